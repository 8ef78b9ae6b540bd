"""Windowed k-means: how far a node's last forty minutes are from anything the fleet did in training.

A window is POSITIONS rows; each is the mean over a minute, and they are a minute apart (recipe, step 7: there
40 ticks at 60 s). Where a tick is longer than a minute a position is one tick. A cell (position, feature)
that is not known weighs nothing: what is compared is the mean squared difference over the known ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import BundleError
from node_anomaly_core.windows import RunningMeans, ticks_in

POSITIONS = 40
POSITION_S = 60.0
MAX_CENTROIDS = 64
WINDOW_CLIP = 5.0

Array = NDArray[np.float64]
Array32 = NDArray[np.float32]


def window_values(compressed: NDArray[np.floating]) -> NDArray[np.floating]:
    """What windows are made of, from compressed values of any shape; NaN stays NaN, never beyond the clip.

    One loud metric must not hide what all the others do.
    """
    return np.asarray(np.minimum(np.maximum(compressed, -WINDOW_CLIP), WINDOW_CLIP))


def window_ticks(interval_s: float) -> int:
    """Ticks that a window covers."""
    return POSITIONS * ticks_in(POSITION_S, interval_s)


class Windows:
    """The current window of each of `nodes` nodes, updated in O(features) a tick."""

    def __init__(self, nodes: int, features: int, interval_s: float) -> None:
        self.step = ticks_in(POSITION_S, interval_s)
        self.ticks = window_ticks(interval_s)
        """Ticks that a window covers."""
        # the mean over one tick is that tick
        self._means = RunningMeans([self.step], (nodes, features)) if self.step > 1 else None
        self._ring = np.full((nodes, self.ticks, features), np.nan, dtype=np.float32)
        self._back = self.step * np.arange(POSITIONS)[::-1] + 1
        self._pushed = 0

    def push(self, compressed: NDArray[np.floating]) -> None:
        """Take in one tick's compressed values (nodes, features), NaN = missing."""
        values = window_values(compressed)
        row = values if self._means is None else self._means.push(values)[0]
        self._ring[:, self._pushed % self.ticks] = row
        self._pushed += 1

    def now(self, nodes: slice | NDArray[np.intp] = slice(None)) -> Array32:
        """Windows (n, POSITIONS, features) that end with the last tick, oldest position first.

        NaN where nothing was known.
        """
        places = (self._pushed - self._back) % self.ticks
        return np.asarray(self._ring[nodes].take(places, axis=1))


class NearestCentroid:
    """The nearest of a few centroids by what is known of a window. Not thread-safe."""

    def __init__(self, centroids: Array32) -> None:
        """`centroids` (k, POSITIONS, features), see `parse_centroids`."""
        self._centroids = centroids.reshape(len(centroids), -1)
        self._mask = b""
        self._weight = np.empty((0, 0), dtype=np.float32)  # 1 where a cell is known, 0 where not
        self._lengths = np.empty((0, len(centroids)), dtype=np.float32)
        self.cells: NDArray[np.intp] = np.empty(0, dtype=np.intp)
        """How many cells of each window (n,) that `apart` saw last are known."""
        self.positions: NDArray[np.intp] = np.empty(0, dtype=np.intp)
        """Of how many of its positions anything is (n,)."""

    def apart(self, windows: Array32) -> tuple[Array, NDArray[np.bool_]]:
        """Squared differences (n, features) to each window's nearest centroid, summed over positions.

        And which cells (n, POSITIONS, features) of the windows (same shape) are known; the others count 0.
        """
        rows = windows.reshape(len(windows), -1)
        known = ~np.isnan(rows)
        mask = known.tobytes()
        if mask != self._mask or known.shape != self._weight.shape:  # seldom: a node has what it has
            self._mask, self._weight = mask, known.astype(np.float32)
            self._lengths = self._weight @ np.square(self._centroids).T
            self.cells = known.sum(axis=1)
            self.positions = known.reshape(windows.shape).any(axis=2).sum(axis=1)
        filled = np.where(known, rows, np.float32(0.0))
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and the first is the same for every centroid
        nearest = (self._lengths - 2.0 * (filled @ self._centroids.T)).argmin(axis=1)
        squares = np.square(filled - self._centroids.take(nearest, axis=0)) * self._weight
        summed = np.add.reduce(squares.reshape(windows.shape), axis=1, dtype=np.float64)
        return summed, known.reshape(windows.shape)


def parse_centroids(tensors: Mapping[str, NDArray[np.generic]], features: int) -> Array32:
    """Centroids (k, POSITIONS, features) of untrusted arrays. Raises BundleError("model")."""
    if set(tensors) != {"centroids"}:
        raise _refused(f"arrays {sorted(tensors)}, expected only centroids")
    centroids = tensors["centroids"]
    if centroids.dtype != np.float32 or centroids.ndim != 3 or centroids.shape[1:] != (POSITIONS, features):
        shape = f"(k, {POSITIONS}, {features})"
        raise _refused(f"centroids are {centroids.dtype} {centroids.shape}, expected float32 {shape}")
    if not 0 < len(centroids) <= MAX_CENTROIDS:
        raise _refused(f"{len(centroids)} centroids, expected 1 to {MAX_CENTROIDS}")
    # a mean of windows cannot leave the range that windows have; NaN is refused here too
    if not (np.abs(centroids) <= WINDOW_CLIP * 1.001).all():
        raise _refused(f"a centroid holds a value that is not within {WINDOW_CLIP:g} of 0")
    return np.asarray(centroids, dtype=np.float32)


def _refused(what: str) -> BundleError:
    return BundleError("model", f"kmeans: {what}", "publish the bundle again with anomaly-trainer")
