"""k-means on windows of forty minutes: what the fleet's nodes usually look like for longer than a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.clusters import POSITIONS, Windows, window_ticks
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.tensors import write_tensors
from node_anomaly_trainer.config_models import KMeansConfig
from node_anomaly_trainer.models.interface import Report, TrainingSet

if TYPE_CHECKING:  # its import takes seconds
    from sklearn.cluster import MiniBatchKMeans

MAX_CELLS = 1 << 26  # of all drawn windows together, 256 MiB: wide ones are drawn less often
LEAST_NORMAL = 0.9  # share of a training window's ticks that must be normal and known
STARTS = 3
START_WINDOWS_PER_CENTROID = (
    20  # starting points are chosen among these; scikit-learn's default is 10 s slower
)
EPOCHS = 5  # ten change the mean distance by less than 0.1 %
_REPORT_EVERY = 500


class KMeansModel:
    """Unsupervised member; a node is as strange as its last window is far from the nearest centroid."""

    name = "kmeans"
    type = "kmeans"
    input = "compressed"
    filename = "kmeans.safetensors"

    def __init__(self, config: KMeansConfig) -> None:
        self._config = config
        self._fitted: MiniBatchKMeans | None = None

    def fit(self, data: TrainingSet, seed: int, report: Report) -> None:
        """Fit on windows of normal history, drawn over all nodes alike; see Model.fit."""
        from sklearn.cluster import MiniBatchKMeans

        report(0.0, "drawing windows")
        windows = drawn_windows(
            data, self._config.max_windows, seed, lambda done, note: report(done / 2, note)
        )
        wanted = self._config.centroids
        if len(windows) < wanted:
            ticks = Windows(1, 1, data.interval_s).ticks
            raise TrainingError(
                f"kmeans: {len(windows)} windows of {ticks} normal ticks for {wanted} centroids",
                "give it a longer history, or fewer models.kmeans.centroids",
            )
        report(0.5, f"{wanted} centroids")
        # A missing value counts as the node's centre, which is 0. No early stop: its sums depend on threads.
        self._fitted = MiniBatchKMeans(
            wanted,
            n_init=STARTS,
            init_size=START_WINDOWS_PER_CENTROID * wanted,
            max_iter=EPOCHS,
            compute_labels=False,
            max_no_improvement=None,
            random_state=seed,
        ).fit(np.nan_to_num(windows, copy=False).reshape(len(windows), -1))
        report(1.0, f"{wanted} centroids of {len(windows)} windows")

    def export(self) -> bytes:
        """Return the centroids; see Model.export."""
        centres = self._model().cluster_centers_.astype(np.float32)
        return write_tensors({"centroids": centres.reshape(len(centres), POSITIONS, -1)})

    def reference_score(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return scikit-learn's distance of complete windows (n, POSITIONS, f); see Model.reference_score."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        nearest = self._model().transform(flat).min(axis=1)
        return np.asarray(np.log1p(nearest / np.sqrt(flat.shape[1])), dtype=np.float64)

    def _model(self) -> MiniBatchKMeans:
        if self._fitted is None:
            raise TrainingError("kmeans: asked for before it was fitted", "call fit first")
        return self._fitted


def whole_windows(known: NDArray[np.bool_], interval_s: float) -> NDArray[np.intp]:
    """First tick and node (n, 2) of each window that is normal nearly throughout, of what is known (t, m)."""
    ticks, nodes = known.shape
    length = window_ticks(interval_s)
    seen = np.zeros((ticks + 1, nodes), dtype=np.int64)
    np.cumsum(known, axis=0, out=seen[1:])
    within = seen[length:] - seen[: max(0, ticks + 1 - length)]
    return np.argwhere(within >= LEAST_NORMAL * length)


def drawn_windows(data: TrainingSet, most: int, seed: int, report: Report) -> NDArray[np.float32]:
    """At most `most` windows (n, POSITIONS, f) that are normal nearly throughout, NaN = unknown.

    They are cut by core's own `Windows`, so training sees what a node will see.
    """
    ticks, nodes, features = data.compressed.shape
    windows = Windows(nodes, features, data.interval_s)
    ends = whole_windows(np.asarray(data.mask.any(axis=-1)), data.interval_s)
    count = min(most, max(1, MAX_CELLS // (POSITIONS * features)), len(ends))
    ends = ends[np.sort(np.random.default_rng(seed).choice(len(ends), count, replace=False))]
    result = np.empty((count, POSITIONS, features), dtype=np.float32)
    last = ends[:, 0] + windows.ticks - 1
    edges = np.searchsorted(last, np.arange(ticks + 1))
    for tick in range(ticks):
        windows.push(np.where(data.mask[tick], data.compressed[tick], np.nan))
        drawn = slice(edges[tick], edges[tick + 1])
        if drawn.stop > drawn.start:
            result[drawn] = windows.now(ends[drawn, 1])
        if tick % _REPORT_EVERY == 0:
            report(tick / ticks, f"tick {tick:,} of {ticks:,}")
    return result
