"""A forest of decision trees as flat arrays, all trees descended level by level at once.

scikit-learn needs 130 MiB and 10 ms to score one row; a node has neither. The arrays of
`Forest.from_tensors` hold every tree of the forest in *level order across trees*: nodes 0..T-1 are
the T roots, the children of an inner node are neighbours (`left`, `left + 1`) and always come later.
So a child is `left + (x > threshold)`, one index per tree moves down one level per step, and a file
whose links form a cycle cannot be written down.

scikit-learn casts x to float32 and compares it with float64 thresholds. `threshold` holds these
rounded *downward* to float32, which for float32 x gives the same answer always: x <= t exactly when
x <= (largest float32 <= t).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import BundleError

ISOLATION_FOREST = "isolation_forest"
RANDOM_FOREST = "random_forest"
FOREST_KINDS = (ISOLATION_FOREST, RANDOM_FOREST)

MAX_TREES = 500
MAX_NODES = 1 << 20
MAX_DEPTH = 64
MAX_FEATURES = 1 << 14  # a feature and its twin for missing values must fit an int16 index
LOG_ODDS_LIMIT = 12.0

_CHUNK_CELLS = 1 << 16  # rows x trees descended together: about 2 MiB of working memory

_LAYOUT: Mapping[str, tuple[str, str]] = {
    "left": ("int32", "per node: index of the left child, -1 at a leaf"),
    "feature": ("int16", "per node: column that is compared, -1 at a leaf"),
    "threshold": ("float32", "per node: x <= threshold goes left, 0 at a leaf"),
    "missing_left": ("uint8", "per node: 1 if a missing x goes left"),
    "value": ("float64", "per node: what its rows are worth (see `Forest`)"),
    "trees": ("int32", "(1,): number of trees"),
    "scale": ("float64", "(1,): what the sum over trees is divided by"),
}


@dataclass(frozen=True, slots=True)
class NodeTable:
    """All nodes of a forest, or of several one after the other; a leaf is its own left child."""

    columns: NDArray[np.intp]  # of a row whose every number is laid out twice, see `lay_out`
    threshold: NDArray[np.float32]
    left: NDArray[np.intp]
    value: NDArray[np.float64]


class Forest:
    """An exported forest, ready to score rows.

    `value` at a leaf is, for an isolation forest, the expected path length, and `scale` is trees x the
    average path length of the training sample; for a random forest P(anomalous), and `scale` is the
    number of trees. At an inner node it is the mean over the training rows below it, which `credit`
    uses. Only `credit` is safe to share between threads: one row is scored in preallocated buffers.
    """

    def __init__(
        self,
        kind: str,
        n_features: int,
        trees: int,
        scale: float,
        table: NodeTable,
        depth: int,
        first: int = 0,
    ) -> None:
        """Take arrays that `from_tensors` has validated; call that instead. The roots begin at `first`."""
        self.kind = kind
        self.n_features = n_features
        self.trees = trees
        self.depth = depth
        self.table = table
        self.roots = first + np.arange(trees, dtype=np.intp)
        self._scale = scale
        self._row = np.empty(2 * n_features, dtype=np.float32)
        self._at = np.empty(trees, dtype=np.intp)
        self._column = np.empty(trees, dtype=np.intp)
        self._x = np.empty(trees, dtype=np.float32)
        self._t = np.empty(trees, dtype=np.float32)
        self._right = np.empty(trees, dtype=np.bool_)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]], kind: str, n_features: int) -> Forest:
        """Build a forest from untrusted arrays of the layout `_LAYOUT`; rows will have `n_features` columns.

        Raises BundleError("model") unless every node is reached exactly once, from a root at most
        MAX_DEPTH levels above it, and every number is finite and within its range.
        """
        if kind not in FOREST_KINDS:
            raise _refused(f"unknown kind of forest {kind!r}; known: {', '.join(FOREST_KINDS)}")
        if not 0 < n_features <= MAX_FEATURES:
            raise _refused(f"{n_features} columns, outside 1..{MAX_FEATURES}")
        arrays = _checked_layout(tensors)
        trees = int(arrays["trees"][0])
        scale = float(arrays["scale"][0])
        left = arrays["left"].astype(np.intp)
        feature = arrays["feature"].astype(np.intp)
        missing_left = arrays["missing_left"]
        value = np.array(arrays["value"], dtype=np.float64)
        threshold = np.array(arrays["threshold"], dtype=np.float32)
        depth = _checked_structure(left, trees)
        leaf = left < 0
        if np.any(feature[leaf] != -1) or np.any((feature[~leaf] < 0) | (feature[~leaf] >= n_features)):
            raise _refused(f"a node compares a column outside 0..{n_features - 1}")
        if not np.all(np.isfinite(threshold)) or np.any(missing_left > 1):
            raise _refused("a threshold is not finite or a missing-value direction is not 0 or 1")
        _checked_values(kind, value, scale, trees)
        # A leaf is its own left child and nothing exceeds its threshold, so descending past it stays.
        threshold[leaf] = np.inf
        left[leaf] = np.flatnonzero(leaf)
        columns = np.where(leaf, 0, 2 * feature + np.where(missing_left == 1, 0, 1))
        return cls(kind, n_features, trees, scale, NodeTable(columns, threshold, left, value), depth)

    def twin(self) -> Forest:
        """The same trees for another thread: only the buffers are its own."""
        return self.among(self.table, int(self.roots[0]))

    def among(self, table: NodeTable, first: int) -> Forest:
        """The same trees where their nodes lie among those of others, from `first` on."""
        return Forest(self.kind, self.n_features, self.trees, self._scale, table, self.depth, first)

    def score(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Score rows (n, n_features), NaN = missing; higher is more anomalous.

        Isolation forest: what scikit-learn calls -score_samples, in 0..1.
        Random forest: log-odds of P(anomalous), clipped to +-LOG_ODDS_LIMIT.
        """
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"rows have shape {rows.shape}, expected (n, {self.n_features})")
        if len(rows) == 1:
            return self._score_of(self._sum(self._descend_one(rows[0])))
        return self._score_of(self._totals(rows))

    def score_one(self, row: NDArray[np.floating]) -> float:
        """Score one row (n_features,), as `score` does."""
        self._check_row(row)
        return self.score_leaves(self._descend_one(row))

    def score_leaves(self, leaves: NDArray[np.intp]) -> float:
        """The score of a row that came to these leaves (trees,), one of each tree."""
        return float(self._score_of(self._sum(leaves))[0])

    def credit(self, row: NDArray[np.floating]) -> NDArray[np.float64]:
        """Say which of its columns made the score of one row (n_features,). Safe in any thread.

        Each step down a tree credits the compared column with the change of `value` it brought (the
        sign turned for an isolation forest, whose short paths are the anomalous ones). The credits add
        up to the row's value minus the roots', as a mean per tree.
        """
        self._check_row(row)
        path = self._paths(row)
        values = self.table.value.take(path)
        change = values[1:] - values[:-1]
        columns = self.table.columns.take(path[:-1])
        total = np.bincount(columns.ravel(), weights=change.ravel(), minlength=2 * self.n_features)
        total = total[::2] + total[1::2]
        sign = -1.0 if self.kind == ISOLATION_FOREST else 1.0
        return np.asarray(sign * total / self.trees, dtype=np.float64)

    def _check_row(self, row: NDArray[np.floating]) -> None:
        if row.shape != (self.n_features,):
            raise ValueError(f"row has shape {row.shape}, expected ({self.n_features},)")

    def _sum(self, leaves: NDArray[np.intp]) -> NDArray[np.float64]:
        # scikit-learn adds tree after tree; accumulate does too, while sum() would add in pairs.
        return np.add.accumulate(self.table.value.take(leaves))[-1:]

    def _score_of(self, total: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.kind == ISOLATION_FOREST:
            return np.asarray(np.exp2(-total / self._scale), dtype=np.float64)
        return log_odds(total / self._scale)

    def _descend_one(self, row: NDArray[np.floating]) -> NDArray[np.intp]:
        """Return the leaf of every tree (trees,) for one row, in a buffer that the next call overwrites."""
        lay_out(row[None, :], self._row[None, :])
        table, at, column, x, t, right = self.table, self._at, self._column, self._x, self._t, self._right
        at[:] = self.roots
        # mode="clip" writes straight into `out`; the indexes were checked when the forest was built.
        for _ in range(self.depth):
            table.columns.take(at, out=column, mode="clip")
            self._row.take(column, out=x, mode="clip")
            table.threshold.take(at, out=t, mode="clip")
            np.greater(x, t, out=right)
            table.left.take(at, out=column, mode="clip")
            np.add(column, right, out=at)
        return at

    def _paths(self, row: NDArray[np.floating]) -> NDArray[np.intp]:
        """Every step of every tree (depth + 1, trees) for one row, from its root to its leaf."""
        cells = np.empty(2 * self.n_features, dtype=np.float32)
        lay_out(row[None, :], cells[None, :])
        table, path = self.table, np.empty((self.depth + 1, self.trees), dtype=np.intp)
        path[0] = self.roots
        for level in range(self.depth):
            at = path[level]
            right = cells.take(table.columns.take(at)) > table.threshold.take(at)
            np.add(table.left.take(at), right, out=path[level + 1])
        return path

    def _totals(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum the leaf values over trees (n,), in chunks of rows so that memory stays bounded."""
        totals = np.zeros(len(rows), dtype=np.float64)
        chunk = max(1, _CHUNK_CELLS // self.trees)
        width, table = 2 * self.n_features, self.table
        for start in range(0, len(rows), chunk):
            part = rows[start : start + chunk]
            cells = np.empty((len(part), width), dtype=np.float32)
            lay_out(part, cells)
            flat = cells.ravel()
            offset = np.arange(len(part), dtype=np.intp) * width
            at = np.repeat(self.roots[:, None], len(part), axis=1)
            for _ in range(self.depth):
                x = flat.take(table.columns.take(at) + offset)
                at = table.left.take(at) + (x > table.threshold.take(at))
            values = table.value.take(at)
            total = totals[start : start + chunk]
            for of_tree in values:
                total += of_tree
        return totals


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn probabilities (n,) into log-odds within +-LOG_ODDS_LIMIT."""
    with np.errstate(divide="ignore"):
        odds = np.log(probability) - np.log1p(-probability)
    return np.asarray(np.clip(odds, -LOG_ODDS_LIMIT, LOG_ODDS_LIMIT), dtype=np.float64)


def lay_out(rows: NDArray[np.floating], cells: NDArray[np.float32]) -> None:
    """Write rows (n, s) as float32 into cells (n, 2 s), each number twice side by side.

    Missing is -inf in the first of the two, which goes left in a tree, and +inf in the second.
    """
    first, second = cells[:, ::2], cells[:, 1::2]
    with np.errstate(over="ignore"):  # beyond float32 is infinite, as in scikit-learn's cast
        first[:] = rows
    second[:] = first
    missing = np.isnan(first)
    if np.count_nonzero(missing):  # a third of the time of any()
        first[missing] = -np.inf
        second[missing] = np.inf


def _refused(message: str) -> BundleError:
    return BundleError("model", f"forest: {message}", "export the model again with this version's trainer")


def _checked_layout(tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """Check names, dtypes and lengths of the arrays."""
    if set(tensors) != set(_LAYOUT):
        raise _refused(f"arrays {sorted(tensors)}, expected {sorted(_LAYOUT)}")
    for name, (dtype, _) in _LAYOUT.items():
        array = tensors[name]
        if array.dtype != np.dtype(dtype) or array.ndim != 1:
            raise _refused(f"{name} is {array.dtype} of shape {array.shape}, expected a flat {dtype}")
    nodes = len(tensors["left"])
    if not 0 < nodes <= MAX_NODES:
        raise _refused(f"{nodes} nodes, outside 1..{MAX_NODES}")
    for name in _LAYOUT:
        expected = 1 if name in ("trees", "scale") else nodes
        if len(tensors[name]) != expected:
            raise _refused(f"{name} has {len(tensors[name])} entries, expected {expected}")
    return tensors


def _checked_structure(left: NDArray[np.intp], trees: int) -> int:
    """Check that every node but the roots is the child of exactly one earlier node; return the depth."""
    nodes = len(left)
    if not 0 < trees <= min(MAX_TREES, nodes):
        raise _refused(f"{trees} trees in {nodes} nodes, outside 1..{min(MAX_TREES, nodes)}")
    inner = np.flatnonzero(left != -1)
    children = left[inner]
    if np.any(children <= inner) or np.any(children + 1 >= nodes):
        raise _refused("a child does not come after its parent, or is past the end")
    parents = np.bincount(children, minlength=nodes) + np.bincount(children + 1, minlength=nodes)
    if np.any(parents[:trees] != 0) or np.any(parents[trees:] != 1):
        raise _refused("a node has no parent or more than one")
    depth = 0
    level = np.arange(trees, dtype=np.intp)
    while True:
        below = left[level]
        below = below[below != -1]
        if len(below) == 0:
            return depth
        depth += 1
        if depth > MAX_DEPTH:
            raise _refused(f"a tree is deeper than {MAX_DEPTH} levels")
        level = np.concatenate([below, below + 1])


def _checked_values(kind: str, value: NDArray[np.float64], scale: float, trees: int) -> None:
    """Check that node values and the scale are numbers a score can be made of."""
    if not np.isfinite(scale) or scale <= 0.0:
        raise _refused(f"scale is {scale}, expected a positive number")
    if kind == RANDOM_FOREST:
        if scale != trees:
            raise _refused(f"scale is {scale}, expected the number of trees, {trees}")
        if not bool(np.all((value >= 0.0) & (value <= 1.0))):
            raise _refused("a probability is outside 0..1")
    elif not bool(np.all((value >= 0.0) & (value <= float(MAX_NODES)))):
        raise _refused(f"a path length is outside 0..{MAX_NODES}")
