"""Residual blocks: eight questions asked of every feature at every tick, as running updates.

Block order is part of the bundle format. `step` takes a batch of nodes; a node's agent is a batch of one, the
trainer's replay a batch of the fleet, and both run these same lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.windows import RunningMeans, smoothing, ticks_in

DAY = 86_400.0
HOUR = 3_600.0

BLOCKS: tuple[str, ...] = (
    "level",  # how far from the node's centre
    "level_day",  # how far from its adapted level, half-life one day
    "level_hour",  # ... half-life one hour
    "difference",  # how far from one tick ago
    "mean_5m_60m",  # short mean minus long mean
    "mean_15m_240m",
    "mean_3m_15m",
    "unexplained",  # what the other features do not explain: outside the cohort's principal components
)

_MEANS: tuple[tuple[tuple[float, int], tuple[float, int]], ...] = (
    # (seconds, least ticks): the recipe's tick counts at 60 s, which also hold at 300 s
    ((300.0, 5), (3_600.0, 60)),
    ((900.0, 15), (14_400.0, 240)),
    ((180.0, 3), (900.0, 15)),
)
LEVELS: tuple[float, ...] = (DAY, HOUR)
_INNOVATION_CLIP = 3.0
_CROSS_CLIP = 5.0
_EXPLAINED = 0.9
_DEVIATION_HALF_LIFE = 3 * DAY

Array = NDArray[np.float64]


def longest_window(interval_s: float) -> int:
    """Ticks after which the blocks have forgotten everything but their adapted levels."""
    return max(ticks_in(seconds, interval_s, least) for pair in _MEANS for seconds, least in pair)


def principal_components(rows: Array) -> Array:
    """Orthonormal directions (k, f) that hold 90 % of the second moment of compressed rows (n, f).

    A missing value (NaN) counts as the node's centre, which is 0, both here and when residuals are taken.
    """
    filled = np.clip(np.where(np.isfinite(rows), rows, 0.0), -_CROSS_CLIP, _CROSS_CLIP)
    power, directions = np.linalg.eigh(filled.T @ filled / max(len(rows), 1))
    power, directions = power[::-1], directions[:, ::-1].T
    total = power.sum()
    if not total > 0:
        return np.empty((0, rows.shape[1]))
    count = int(np.searchsorted(np.cumsum(power) / total, _EXPLAINED)) + 1
    return np.asarray(directions[: min(count, rows.shape[1] // 2)])


class ResidualBlocks:
    """Running state of all blocks for a batch of `nodes` with `features` each."""

    def __init__(self, nodes: int, features: int, interval_s: float, components: Array | None = None) -> None:
        """Start without a past; `components` (k, features) are orthonormal rows.

        See `principal_components`.
        """
        self._components = np.empty((0, features)) if components is None else components
        lengths = sorted({ticks_in(seconds, interval_s, least) for pair in _MEANS for seconds, least in pair})
        self._pairs = [
            tuple(lengths.index(ticks_in(seconds, interval_s, least)) for seconds, least in pair)
            for pair in _MEANS
        ]
        self._means = RunningMeans(lengths, (nodes, features))
        self._previous = np.full((nodes, features), np.nan)
        self._level = np.full((len(LEVELS), nodes, features), np.nan)
        self._deviation = np.full((len(LEVELS), nodes, features), 0.25)
        self._seen = np.zeros((nodes, features))
        self._weight = np.array([smoothing(half_life, interval_s) for half_life in LEVELS])[:, None, None]
        self._deviation_weight = smoothing(_DEVIATION_HALF_LIFE, interval_s)

    def step(self, compressed: Array, learn: NDArray[np.bool_] | None = None) -> Array:
        """Residuals (nodes, blocks, features) of compressed values (nodes, features); NaN where not known.

        Nodes (nodes,) whose `learn` is False keep their adapted levels as they are.
        """
        result = np.empty((compressed.shape[0], len(BLOCKS), compressed.shape[1]))
        result[:, 0] = compressed
        innovation = compressed - self._level
        result[:, 1] = innovation[0]
        result[:, 2] = innovation[1]
        result[:, 3] = compressed - self._previous
        means = self._means.push(compressed)
        for index, (short, long) in enumerate(self._pairs):
            np.subtract(means[short], means[long], out=result[:, 4 + index])
        filled = np.clip(np.where(np.isnan(compressed), 0.0, compressed), -_CROSS_CLIP, _CROSS_CLIP)
        np.subtract(filled, (filled @ self._components.T) @ self._components, out=result[:, 7])
        if np.isnan(compressed).any():
            result[:, 4:][np.broadcast_to(np.isnan(compressed)[:, None], result[:, 4:].shape)] = np.nan
        self._adapt(compressed, innovation, learn)
        return result

    def _adapt(self, compressed: Array, innovation: Array, learn: NDArray[np.bool_] | None) -> None:
        self._previous = np.array(compressed)
        known = np.isfinite(compressed)
        if learn is not None:
            known &= learn[:, None]
        self._seen += known
        first = known & np.isnan(self._level)
        self._level[first] = np.broadcast_to(compressed, first.shape)[first]
        move = known & ~first
        weight = np.maximum(
            self._weight, 1.0 / np.maximum(self._seen, 1.0)
        )  # a plain mean until there is a past
        limit = _INNOVATION_CLIP * self._deviation
        clipped = np.clip(innovation, -limit, limit)
        np.add(self._level, weight * clipped, out=self._level, where=move)
        pull = np.maximum(self._deviation_weight, 1.0 / (self._seen + 60.0))  # starts worth an hour at 60 s
        size = np.minimum(np.abs(innovation), 2 * limit) * 1.25
        np.add(self._deviation, pull * (size - self._deviation), out=self._deviation, where=move)
        np.maximum(self._deviation, 0.05, out=self._deviation)

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The adapted levels, which outlive the windows; windows are rebuilt by replaying recent rows."""
        return {"level": self._level.copy(), "deviation": self._deviation.copy(), "seen": self._seen.copy()}

    def restore(self, state: dict[str, NDArray[np.float64]]) -> None:
        """Take over levels saved by `state`; raises ValueError if the shapes differ."""
        for name, own in (("level", self._level), ("deviation", self._deviation), ("seen", self._seen)):
            if state[name].shape != own.shape:
                raise ValueError(f"saved {name} has shape {state[name].shape}, expected {own.shape}")
            own[...] = state[name]
