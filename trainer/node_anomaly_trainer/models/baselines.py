"""Two detectors that nobody would ship, which every member must be better than.

They share the trainer's scaled and compressed values and nothing else with the members; a node never
runs them.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError

_CHUNK_ROWS = 2048
_ROWS_AT_ONCE = 200_000
"""Of all nodes together, that are held in float64 or decomposed: a fleet has millions."""


class Baseline(Protocol):
    """A causal detector on compressed values (t, m, f) with a mask of what was observed."""

    name: str

    def fit(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_], seed: int) -> None:
        """Learn what is normal; raises TrainingError if there is too little of it."""

    def score(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Score every tick of every node (t, m), higher is worse, NaN where it cannot know."""


class _Standardiser:
    """Mean 0 and deviation 1 per feature over what was observed; what was not becomes the mean."""

    def __init__(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        ticks, nodes, features = compressed.shape
        step = max(1, _ROWS_AT_ONCE // nodes)
        count, total, squares = (np.zeros(features) for _ in range(3))
        parts = [slice(first, first + step) for first in range(0, ticks, step)]
        for part in parts:
            seen = mask[part].reshape(-1, features)
            count += seen.sum(axis=0)
            total += _known(compressed[part], mask[part]).sum(axis=0)
        count = np.maximum(count, 1.0)
        self._mean = total / count
        for part in parts:
            seen = mask[part].reshape(-1, features)
            away = _known(compressed[part], mask[part]) - self._mean
            squares += (np.where(seen, away, 0.0) ** 2).sum(axis=0)
        deviation = np.sqrt(squares / count)
        self._scale = np.where(deviation > 1e-6, deviation, 1.0)

    def __call__(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        z = (np.where(mask, compressed, self._mean) - self._mean) / self._scale
        return np.asarray(z, dtype=np.float32)


def _known(compressed: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rows (n, f) with 0 for what was not observed."""
    return np.where(mask, compressed, np.float32(0.0)).reshape(-1, compressed.shape[-1])


class PCABaseline:
    """Mean squared residual of a tick outside the components that hold 90 % of the variance."""

    name = "pca"

    def __init__(self, variance: float = 0.9) -> None:
        self._variance = variance

    def fit(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_], seed: int) -> None:
        """See Baseline.fit; the decomposition is exact, so the seed changes nothing."""
        from sklearn.decomposition import PCA

        observed = np.asarray(mask.any(axis=-1))
        if int(observed.sum()) < 2:
            raise TrainingError("pca baseline: fewer than 2 ticks with values", "give it a longer history")
        self._standardise = _Standardiser(compressed, mask)
        some = slice(None, None, -(-observed.size // _ROWS_AT_ONCE))
        rows = self._standardise(compressed[some], mask[some])[observed[some]]
        with np.errstate(invalid="ignore"):  # of what never moved every share of the variance is unknown
            self._pca = PCA(n_components=self._variance, svd_solver="full").fit(rows)

    def score(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See Baseline.score; NaN where nothing of a node was observed."""
        scores = np.full(mask.shape[:2], np.nan)
        components = self._pca.components_.astype(np.float32)
        step = max(1, min(_CHUNK_ROWS, _ROWS_AT_ONCE // compressed.shape[1]))
        for start in range(0, len(compressed), step):
            part = slice(start, start + step)
            z = self._standardise(compressed[part], mask[part]) - self._pca.mean_.astype(np.float32)
            residual = z - z @ components.T @ components
            seen = mask[part].sum(axis=-1)
            squares = (residual**2 * mask[part]).sum(axis=-1, dtype=np.float64)
            scores[part] = np.where(seen > 0, squares / np.maximum(seen, 1), np.nan)
        return scores


class WindowedKMeans:
    """Distance of a node's last ticks to the nearest of a few centroids, as log1p."""

    name = "plain_kmeans"

    def __init__(self, centroids: int = 30, window: int = 40, max_windows: int = 6000) -> None:
        self._centroids = centroids
        self._window = window
        self._max_windows = max_windows

    def fit(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_], seed: int) -> None:
        """See Baseline.fit; learns from at most `max_windows` windows drawn at random."""
        from sklearn.cluster import MiniBatchKMeans

        ticks, nodes, features = compressed.shape
        possible = (ticks - self._window + 1) * nodes
        if possible < self._centroids:
            raise TrainingError(
                f"k-means baseline: {ticks} ticks of {nodes} nodes are too few windows of {self._window}",
                "give it a longer history",
            )
        self._standardise = _Standardiser(compressed, mask)
        rng = np.random.default_rng(seed)
        count = min(self._max_windows, possible)
        start, node = np.divmod(rng.choice(possible, count, replace=False), nodes)
        at = start[:, None] + np.arange(self._window)
        rows = self._standardise(compressed[at, node[:, None]], mask[at, node[:, None]])
        kmeans = MiniBatchKMeans(self._centroids, batch_size=1024, n_init=1, max_iter=20, random_state=seed)
        kmeans.fit(rows.reshape(count, self._window * features))
        self._centres = kmeans.cluster_centers_.astype(np.float32)

    def score(self, compressed: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """See Baseline.score; NaN until a whole window has passed."""
        ticks, nodes, features = compressed.shape
        scores = np.full((ticks, nodes), np.nan)
        lengths = (self._centres**2).sum(axis=1)
        for node in range(nodes):
            z = self._standardise(compressed[:, node], mask[:, node])
            for start in range(0, ticks - self._window + 1, _CHUNK_ROWS):
                part = z[start : start + _CHUNK_ROWS + self._window - 1]
                windows = np.lib.stride_tricks.sliding_window_view(part, self._window, axis=0)
                rows = windows.swapaxes(1, 2).reshape(len(windows), self._window * features)
                squares = (rows**2).sum(axis=1)[:, None] - 2.0 * rows @ self._centres.T + lengths
                nearest = np.sqrt(np.maximum(squares.min(axis=1), 0.0))
                first = start + self._window - 1
                scores[first : first + len(rows), node] = np.log1p(nearest)
        return scores


BASELINES: tuple[type[PCABaseline | WindowedKMeans], ...] = (PCABaseline, WindowedKMeans)
