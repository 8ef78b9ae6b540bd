"""What the features of a fleet say about each other and about their own next tick: three linear maps.

Principal components (what is left outside them belongs to no pattern of the fleet), a ridge regression of
each feature on all others at the same tick (from the inverse of the second moments), and a ridge vector
autoregression on the ticks before (Luetkepohl, New Introduction to Multiple Time Series Analysis, 2005; the
ridge keeps it sane where features nearly repeat each other). All three see compressed values clipped to +-5
with a missing one (NaN) at the node's centre, which is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.windows import RunningMeans, ticks_in

LAGS: tuple[int, ...] = (1, 2, 3, 5)
LAG_MEANS: tuple[tuple[float, int], ...] = ((900.0, 15), (3_600.0, 60))
"""(seconds, least ticks) of the means that the autoregression is fed beside single ticks."""

CLIP = 5.0
_EXPLAINED = 0.9
_RIDGE = 0.01

Array = NDArray[np.float64]


def bounded(compressed: Array) -> Array:
    """Compressed values of any shape as the maps see them: clipped, and 0 where missing."""
    return np.minimum(np.maximum(np.where(np.isnan(compressed), 0.0, compressed), -CLIP), CLIP)


def past_width(features: int) -> int:
    """How many numbers describe the past of a node with this many features, with the constant."""
    return (len(LAGS) + len(LAG_MEANS)) * features + 1


@dataclass(frozen=True, slots=True)
class Relations:
    """The maps of a bundle, f features: what each of them expects of a tick."""

    components: Array  # (k, f) orthonormal rows
    partial: Array  # (f, f) column j: weight of each other feature in the residual of j; 1 on the diagonal
    autoregression: Array  # (past_width(f), f)


def no_relations(features: int) -> Relations:
    """The maps of a fleet whose features have nothing to do with each other or with their past."""
    return Relations(np.empty((0, features)), np.eye(features), np.zeros((past_width(features), features)))


class Past:
    """The regressors of the autoregression, as running updates for a batch of nodes."""

    def __init__(self, nodes: int, features: int, interval_s: float) -> None:
        self._means = RunningMeans(
            [ticks_in(seconds, interval_s, least) for seconds, least in LAG_MEANS], (nodes, features)
        )
        self._ring = np.zeros((max(LAGS), nodes, features))
        self._back = np.array(LAGS)
        self._pushed = 0
        self._row = np.zeros((nodes, past_width(features)))
        self._row[:, -1] = 1.0

    def row(self) -> Array:
        """The past (m, past_width(f)) before the next tick; a view, good until `push`."""
        return self._row

    def push(self, values: Array) -> None:
        """Take in this tick's bounded values (m, f)."""
        if self._pushed == 0:
            self._ring[:] = values
        self._ring[self._pushed % len(self._ring)] = values
        self._pushed += 1
        nodes, features = values.shape
        parts = self._row[:, :-1].reshape(nodes, -1, features)
        parts[:, : len(LAGS)] = self._ring[(self._pushed - self._back) % len(self._ring)].swapaxes(0, 1)
        parts[:, len(LAGS) :] = self._means.push(values).swapaxes(0, 1)


class Moments:
    """Sums over normal ticks of any number of nodes, from which the maps are fitted."""

    def __init__(self, features: int) -> None:
        self._features = features
        self._count = 0.0
        self._second = np.zeros((features, features))
        self._past_count = 0.0
        self._past = np.zeros((past_width(features), past_width(features)))
        self._cross = np.zeros((past_width(features), features))

    def add(self, ticks: Iterable[Array], normal: Iterable[NDArray[np.bool_]], interval_s: float) -> None:
        """Add consecutive compressed rows (m, f) of m nodes with what of each is normal (m,)."""
        past: Past | None = None
        for number, (tick, usable) in enumerate(zip(ticks, normal, strict=True)):
            values = bounded(tick)
            past = past or Past(len(values), self._features, interval_s)
            chosen = values[usable]
            self._second += chosen.T @ chosen
            self._count += len(chosen)
            if number >= max(LAGS):
                before = past.row()[usable]
                self._past += before.T @ before
                self._cross += before.T @ chosen
                self._past_count += len(chosen)
            past.push(values)

    def fit(self) -> Relations:
        """The maps; those of `no_relations` where there was nothing to learn from."""
        nothing = no_relations(self._features)
        if not self._count or not self._past_count:
            return nothing
        second = self._second / self._count
        power = self._past / self._past_count + _RIDGE * np.eye(len(self._past))
        inverse = np.linalg.inv(second + _RIDGE * np.eye(self._features))
        return Relations(
            components=principal_components(second),
            partial=inverse / np.diag(inverse),
            autoregression=np.asarray(np.linalg.solve(power, self._cross / self._past_count), np.float64),
        )


def principal_components(second: Array) -> Array:
    """Orthonormal directions (k, f) that hold 90 % of the second moments (f, f), at most half of them."""
    power, directions = np.linalg.eigh(second)
    power, directions = power[::-1], directions[:, ::-1].T
    total = power.sum()
    if not total > 0:
        return np.empty((0, len(second)))
    count = int(np.searchsorted(np.cumsum(power) / total, _EXPLAINED)) + 1
    return np.asarray(directions[: min(count, len(second) // 2)])
