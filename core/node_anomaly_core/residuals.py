"""Residual blocks: sixteen questions asked of every feature at every tick, as running updates.

Block order is part of the bundle format. `step` takes a batch of nodes; a node's agent is a batch of one, the
trainer's replay a batch of the fleet, and both run these same lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.relations import Past, Relations, bounded
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
    "spread_5m",  # log of the rolling standard deviation, against what is usual for the node
    "spread_15m",
    "spread_60m",
    "spread_day",  # ... of 15 minutes, against its adapted level
    "unpredicted",  # what the autoregression did not expect
    "unexplained",  # what is outside the fleet's principal components
    "unrelated",  # what the other features of this tick do not say
    "unpredicted_15m",  # means of absolute residuals
    "level_day_15m",
)
UNPREDICTED = BLOCKS.index("unpredicted")
CENTRED = slice(7, 10)
"""Blocks whose usual value is not 0: they are judged against the node's median."""

_MEANS: tuple[tuple[tuple[float, int], tuple[float, int]], ...] = (
    # (seconds, least ticks): the recipe's tick counts at 60 s, which also hold at 300 s
    ((300.0, 5), (3_600.0, 60)),
    ((900.0, 15), (14_400.0, 240)),
    ((180.0, 3), (900.0, 15)),
)
_SPREADS: tuple[tuple[float, int], ...] = ((300.0, 5), (900.0, 15), (3_600.0, 60))
_SIZES = (900.0, 15)
LEVELS: tuple[float, ...] = (DAY, HOUR, DAY)  # of the value, the value, and the spread over 15 minutes
_INNOVATION_CLIP = 3.0
_DEVIATION_HALF_LIFE = 3 * DAY
_LEAST_SPREAD = 0.1  # of compressed units; what moves less is as good as still

Array = NDArray[np.float64]


def longest_window(interval_s: float) -> int:
    """Ticks after which the blocks have forgotten everything but their adapted levels."""
    return max(ticks_in(seconds, interval_s, least) for pair in _MEANS for seconds, least in pair)


def one_sided(residuals: Array, sides: Array) -> Array:
    """Residuals (..., f) with the harmless side set to 0; sides (f,) is 1 (high), -1 (low) or 0 (both)."""
    return np.where(residuals * sides < 0, 0.0, residuals)


class ResidualBlocks:
    """Running state of all blocks for a batch of `nodes` with as many features as `sides` is long."""

    def __init__(self, nodes: int, sides: Array, interval_s: float, relations: Relations) -> None:
        """Start without a past; `sides` (f,) says which sign of a residual counts, see `one_sided`."""
        features = len(sides)
        self._relations = relations
        self._one_sided = bool(sides.any())
        self._block_sides = np.tile(sides, (14, 1))  # of the blocks that are not means of others
        self._block_sides[7:11] = 0.0
        pairs = [[ticks_in(seconds, interval_s, least) for seconds, least in pair] for pair in _MEANS]
        spreads = [ticks_in(seconds, interval_s, least) for seconds, least in _SPREADS]
        lengths = sorted({length for pair in pairs for length in pair} | set(spreads))
        self._short = np.array([lengths.index(short) for short, _ in pairs])
        self._long = np.array([lengths.index(long) for _, long in pairs])
        self._spread = np.array([lengths.index(length) for length in spreads])
        self._means = RunningMeans(lengths, (nodes, features))
        self._squares = RunningMeans(spreads, (nodes, features))
        self._sizes = RunningMeans([ticks_in(_SIZES[0], interval_s, _SIZES[1])], (nodes, 2, features))
        self._past = Past(nodes, features, interval_s)
        self._previous = np.full((nodes, features), np.nan)
        self._level = np.full((len(LEVELS), nodes, features), np.nan)
        self._deviation = np.full((len(LEVELS), nodes, features), 0.25)
        self._seen = np.zeros((nodes, features))
        self._weight = np.array([smoothing(half_life, interval_s) for half_life in LEVELS])[:, None, None]
        self._begun = b""  # what was known at the tick before
        self._deviation_weight = smoothing(_DEVIATION_HALF_LIFE, interval_s)

    def step(self, compressed: Array, learn: NDArray[np.bool_] | None = None) -> Array:
        """Residuals (nodes, blocks, features) of compressed values (nodes, features); NaN where not known.

        One-sided but for those around a usual value (CENTRED). Nodes (nodes,) whose `learn` is False keep
        their adapted levels as they are.
        """
        result = np.empty((compressed.shape[0], len(BLOCKS), compressed.shape[1]))
        means = self._means.push(compressed)
        variance = self._squares.push(compressed * compressed) - np.square(means.take(self._spread, axis=0))
        spread = 0.5 * np.log(np.maximum(variance, 0.0) + _LEAST_SPREAD**2)
        followed = np.empty((len(LEVELS), *compressed.shape))
        followed[:2] = compressed
        followed[2] = spread[1]
        innovation = followed - self._level
        values = bounded(compressed)
        result[:, 0] = compressed
        result[:, 1:3] = innovation[:2].swapaxes(0, 1)
        np.subtract(compressed, self._previous, out=result[:, 3])
        apart = means.take(self._short, axis=0) - means.take(self._long, axis=0)
        result[:, 4:7] = apart.swapaxes(0, 1)
        result[:, 7:10] = spread.swapaxes(0, 1)
        result[:, 10] = innovation[2]
        relations = self._relations
        np.subtract(values, self._past.row() @ relations.autoregression, out=result[:, 11])
        np.subtract(values, (values @ relations.components.T) @ relations.components, out=result[:, 12])
        result[:, 13] = values @ relations.partial
        self._past.push(values)
        missing = np.isnan(compressed)
        some_missing = np.count_nonzero(missing) > 0  # a third of the time of any()
        if some_missing:
            np.copyto(result[:, 4:14], np.nan, where=missing[:, None])
        if self._one_sided:
            present = result[:, :14]
            np.copyto(present, 0.0, where=present * self._block_sides < 0)
        result[:, 14:] = self._sizes.push(np.abs(result[:, 11::-10]))[0]
        if some_missing:
            np.copyto(result[:, 14:], np.nan, where=missing[:, None])
        self._previous = np.array(compressed)
        self._adapt(followed, innovation, learn)
        return result

    def _adapt(self, followed: Array, innovation: Array, learn: NDArray[np.bool_] | None) -> None:
        known = np.isfinite(followed[0])
        if learn is not None:
            known &= learn[:, None]
        self._seen += known
        move: NDArray[np.bool_] = known
        mask = known.tobytes()
        if mask != self._begun:  # seldom: otherwise all that is known has a level by now
            self._begun = mask
            first = known & np.isnan(self._level)
            self._level[first] = followed[first]
            move = known & ~first
        weight = np.maximum(
            self._weight, 1.0 / np.maximum(self._seen, 1.0)
        )  # a plain mean until there is a past
        limit = _INNOVATION_CLIP * self._deviation
        clipped = np.minimum(np.maximum(innovation, -limit), limit)
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
        self._begun = b""
