"""All forests of a bundle descended together, level by level: a third of the calls for one row of a node.

Their nodes lie in common arrays, one forest after the other, which the forests themselves use too: nothing is
kept twice. What each says is what it says by itself, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.forest import Forest, NodeTable, lay_out
from node_anomaly_core.manifest import BOTH_SUMMARIES, NORMALISED

Array = NDArray[np.float64]

NOTHING = NodeTable(
    np.empty(0, dtype=np.intp),
    np.empty(0, dtype=np.float32),
    np.empty(0, dtype=np.intp),
    np.empty(0, dtype=np.float64),
)


def plant(forests: Mapping[str, Forest]) -> dict[str, Forest]:
    """The same forests with their nodes in common arrays.

    Where there are several, those that are given have no nodes afterwards: nothing is held twice.
    """
    if len(forests) < 2:
        return dict(forests)
    each = [forest.table for forest in forests.values()]
    for forest in forests.values():
        forest.table = NOTHING
    first = np.cumsum([0, *(len(one.left) for one in each)]).tolist()
    columns, thresholds, lefts, values = (
        [getattr(one, field.name) for one in each] for field in fields(NodeTable)
    )
    each.clear()
    table = NodeTable(_joined(columns), _joined(thresholds), _joined(lefts), _joined(values))
    for start, stop in pairwise(first):
        table.left[start:stop] += start
    return {
        name: forest.among(table, start)
        for (name, forest), start in zip(forests.items(), first, strict=False)
    }


def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """All of them in one, and the list without them."""
    whole = np.concatenate(arrays)
    arrays.clear()
    return whole


class Grove:
    """Buffers to descend planted forests with. Not to be shared between threads.

    The normalised summary lies behind the other one: a forest of both reads on.

    Args:
        forests: as `plant` gave them.
        inputs: which of manifest's MODEL_INPUTS each is given.
    """

    def __init__(self, forests: Mapping[str, Forest], inputs: Mapping[str, str]) -> None:
        self._table = next((forest.table for forest in forests.values()), None)
        self._depth = max((forest.depth for forest in forests.values()), default=0)
        widths = (
            forest.n_features // (2 if inputs[name] == BOTH_SUMMARIES else 1)
            for name, forest in forests.items()
        )
        width = max(widths, default=0)
        self._inputs = np.empty((2, width))
        self._cells = np.empty((2, 2 * width), dtype=np.float32)
        self._row = self._cells.reshape(-1)
        self._trees: dict[str, slice] = {}
        shift: list[int] = []
        for name, forest in forests.items():
            self._trees[name] = slice(len(shift), len(shift) + forest.trees)
            shift += [2 * width if inputs[name] == NORMALISED else 0] * forest.trees
        trees = len(shift)
        self._shift = np.array(shift, dtype=np.intp)
        self._roots = np.concatenate([forest.roots for forest in forests.values()] or [self._shift])
        self._at, self._column = np.empty(trees, dtype=np.intp), np.empty(trees, dtype=np.intp)
        self._x, self._t = np.empty(trees, dtype=np.float32), np.empty(trees, dtype=np.float32)
        self._right = np.empty(trees, dtype=np.bool_)
        self._descended = False

    def take(self, summary: Array, normalised: Array) -> None:
        """The row (n_features,) of this tick in both forms."""
        self._inputs[0], self._inputs[1] = summary, normalised
        self._descended = False

    def leaves(self, name: str) -> NDArray[np.intp]:
        """Where this tick's row came to in each tree of a forest; the next tick overwrites it."""
        if not self._descended:
            self._descend()
            self._descended = True
        return self._at[self._trees[name]]

    def _descend(self) -> None:
        table = self._table
        if table is None:
            return
        lay_out(self._inputs, self._cells)
        at, column, x, t, right = self._at, self._column, self._x, self._t, self._right
        at[:] = self._roots
        # mode="clip" writes straight into `out`; the indexes were checked when the forests were built.
        for _ in range(self._depth):
            table.columns.take(at, out=column, mode="clip")
            np.add(column, self._shift, out=column)
            self._row.take(column, out=x, mode="clip")
            table.threshold.take(at, out=t, mode="clip")
            np.greater(x, t, out=right)
            table.left.take(at, out=column, mode="clip")
            np.add(column, right, out=at)
