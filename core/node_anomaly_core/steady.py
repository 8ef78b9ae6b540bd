"""Two short memories between the members and the threshold: less noise below it, no holes above it.

What lasts should count for more than a tick of it; and an incident that drops below the threshold for one
tick is still the same incident. Both were chosen on real servers by means over all of them (docs/adr/0023),
and both are the same lines on a node and in the trainer's replay.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS
from node_anomaly_core.windows import ticks_in

SMOOTHED_S, SMOOTHED_TICKS = 60.0, 5

Array = NDArray[np.float64]


class HalfSmoothed:
    """Half a score, half its mean over the last minute (at least five ticks), for m series at once.

    For the forests: an extreme row stays extreme, but a state that lasts counts for more than a tick of it.
    """

    def __init__(self, series: int, interval_s: float) -> None:
        self._ring = np.full((ticks_in(SMOOTHED_S, interval_s, SMOOTHED_TICKS), series), np.nan)
        self._pushed = 0

    def step(self, scores: Array) -> Array:
        """Scores (m,) of this tick, NaN = unknown, which stays unknown and counts for nothing later."""
        self._ring[self._pushed % len(self._ring)] = scores
        self._pushed += 1
        known = np.isfinite(self._ring)
        sums = np.add.reduce(np.where(known, self._ring, 0.0), axis=0)
        mean: Array = sums / np.maximum(np.add.reduce(known, axis=0), 1)
        return (scores + mean) / 2

    def state(self) -> Array:
        """The scores (k, m) that the mean is taken of, oldest first; NaN where there was none."""
        return np.roll(self._ring, -(self._pushed % len(self._ring)), axis=0)

    def restore(self, ring: Array) -> None:
        """Take over what `state` saved; raises ValueError for another shape."""
        if ring.shape != self._ring.shape:
            raise ValueError(f"saved forest scores {ring.shape}, expected {self._ring.shape}")
        self._ring, self._pushed = np.array(ring, dtype=np.float64), 0


def half_smoothed(scores: Array, interval_s: float) -> Array:
    """Consecutive scores (t, m) as `HalfSmoothed` gives them tick by tick."""
    running = HalfSmoothed(scores.shape[1], interval_s)
    return np.array([running.step(row) for row in scores]).reshape(scores.shape)


class PeakHold:
    """The largest evidence of the last three ticks, the length that an alarm has to last.

    An alarm needs three ticks at the threshold; with held peaks ticks in between may lie below, and a single
    tick is enough if it is high enough. Calibration and threshold see held evidence too: they count such
    ticks on normal data, and the false-alarm budget is kept with them.
    """

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=HOLD_TICKS)

    def step(self, evidence: float) -> float:
        """This tick's combined evidence; NaN = unknown, which stays unknown."""
        self._last.append(evidence)
        if evidence != evidence:  # noqa: PLR0124  # NaN
            return evidence
        return max(value for value in self._last if value == value)  # noqa: PLR0124  # NaN

    def state(self) -> Array:
        """The evidence (k,), k <= 3, of the last ticks, oldest first."""
        return np.array(self._last, dtype=np.float64)

    def restore(self, last: Array) -> None:
        """Take over what `state` saved; raises ValueError if it is longer."""
        if len(last) > HOLD_TICKS:
            raise ValueError(f"saved {len(last)} ticks of evidence, at most {HOLD_TICKS}")
        self._last = deque((float(value) for value in last), maxlen=HOLD_TICKS)


def peak_held(evidence: Array) -> Array:
    """Consecutive evidence (t, ...) as `PeakHold` gives it tick by tick, along the first axis."""
    filled = np.where(np.isnan(evidence), -np.inf, evidence)
    held = filled.copy()
    for back in range(1, HOLD_TICKS):
        held[back:] = np.maximum(held[back:], filled[:-back])
    return np.where(np.isnan(evidence), np.nan, held)
