"""Whether nodes still behave as they did when the bundle was trained: PSI and KS, feature by feature.

The population stability index compares shares of bins, sum of (p - q) ln(p / q): below 0.1 nothing moved,
above 0.25 it did (Siddiqi, Credit Risk Scorecards, 2006). The Kolmogorov-Smirnov distance is the largest
difference of the two distribution functions. Both are of all nodes pooled: they say that a fleet has changed,
not which node. The reference is small, lies beside the bundles and is never sent to a node.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.whole_file import write_whole

FOLDER = "references"
LEVELS = np.linspace(0.0, 1.0, 101)
LEAST_SHARE = 1e-4
"""A bin that one side has never seen counts as this much, or the logarithm has no end."""
LEAST_VALUES = 200
MOST_TOLD = 20

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reference:
    """How one feature was distributed in training.

    Attributes:
        quantiles: (101,) in the feature's unit.
        edges: (k,) right edges of all bins but the last; the outermost bins lie outside what was seen.
        shares: (k + 1,) of values per bin.
    """

    quantiles: Array
    edges: Array
    shares: Array


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """How far one feature has moved; `psi` and `ks` are NaN where too little of it is known now."""

    feature: str
    psi: float
    ks: float
    values: int


def summarise(history: History, normal: NDArray[np.bool_] | None = None) -> Mapping[str, Reference]:
    """Per feature the distribution over all nodes, of the ticks and nodes (t, m) that are normal.

    Features with fewer than LEAST_VALUES values are left out.
    """
    chosen = history.values if normal is None else history.values[normal][:, None]
    found = {}
    for at, name in enumerate(history.feature_names):
        values = _known(chosen[:, :, at])
        if len(values) < LEAST_VALUES:
            continue
        quantiles = np.quantile(values, LEVELS)
        inner = quantiles[10:100:10]
        # one bin below everything that was seen and one above it, so that a new range shows at once
        edges = np.unique([np.nextafter(values.min(), -np.inf), *inner, values.max()])
        found[name] = Reference(quantiles, edges, _shares(values, edges))
    return found


def compare(reference: Mapping[str, Reference], history: History) -> tuple[FeatureDrift, ...]:
    """Each feature of the reference in this history, the farthest moved first, the unknown ones last."""
    drifts = []
    for name, known in reference.items():
        at = history.feature_names.index(name) if name in history.feature_names else -1
        values = _known(history.values[:, :, at]) if at >= 0 else np.empty(0)
        if len(values) < LEAST_VALUES:
            drifts.append(FeatureDrift(name, float("nan"), float("nan"), len(values)))
        else:
            drifts.append(FeatureDrift(name, psi(known, values), ks(known, values), len(values)))
    return tuple(sorted(drifts, key=lambda drift: (np.isnan(drift.psi), -drift.psi, drift.feature)))


def psi(known: Reference, values: Array) -> float:
    """Population stability index of values (n,) against the reference."""
    was = np.maximum(known.shares, LEAST_SHARE)
    now = np.maximum(_shares(values, known.edges), LEAST_SHARE)
    return float(np.sum((now - was) * np.log(now / was)))


def ks(known: Reference, values: Array) -> float:
    """Kolmogorov-Smirnov distance (0..1) of values (n,), to the resolution of the 101 quantiles."""
    at = np.unique(known.quantiles)
    was = LEVELS[np.searchsorted(known.quantiles, at, side="right") - 1]
    ordered = np.sort(values)
    upto, below = (np.searchsorted(ordered, at, side=side) / len(values) for side in ("right", "left"))
    was_below = LEVELS[np.searchsorted(known.quantiles, at, side="left")]
    return float(max(np.abs(upto - was).max(), np.abs(below - was_below).max()))


def reference_file(root: Path, version: str) -> Path:
    """Where the reference of a version lies below the published directory."""
    return root / FOLDER / f"{version}.parquet"


def write_reference(root: Path, version: str, reference: Mapping[str, Reference]) -> Path:
    """Keep a reference beside the bundles, and remove those whose bundle is gone. Raises TrainingError."""
    path = reference_file(root, version)
    try:
        write_whole(path, as_parquet(reference))
        for other in path.parent.glob("*.parquet"):
            if other != path and not (root / other.stem).is_dir():
                other.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(
            f"cannot write {path}: {error.strerror or error}",
            "make room, or choose another publish.directory",
        ) from error
    return path


def read_reference(root: Path, version: str) -> Mapping[str, Reference]:
    """The reference of a version. Raises TrainingError where there is none that can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = reference_file(root, version)
    try:
        rows = pq.read_table(BytesIO(path.read_bytes())).to_pylist()
        return {
            str(row["feature"]): Reference(
                *(np.array(row[key], float) for key in ("quantiles", "edges", "shares"))
            )
            for row in rows
        }
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        said = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)[:200]
        raise TrainingError(
            f"{path}: no distributions of the training data: {said}",
            "train and publish again: bundles made before this was kept have none",
        ) from error


def as_parquet(reference: Mapping[str, Reference]) -> bytes:
    """One row for each feature."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "feature": list(reference),
            **{
                key: [getattr(known, key).tolist() for known in reference.values()]
                for key in ("quantiles", "edges", "shares")
            },
        }
    )
    sink = BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _known(values: Array) -> Array:
    return values[np.isfinite(values)]


def _shares(values: Array, edges: Array) -> Array:
    """Share of values in each of the bins (-inf, e0], (e0, e1], ..., (ek, inf)."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return np.asarray(counts / len(values), dtype=np.float64)
