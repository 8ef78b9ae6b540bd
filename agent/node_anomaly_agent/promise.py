"""Whether a new bundle keeps its promise on this node: a number of false alarms per week, and not many more.

Alarms are counted as they page somebody: the score is at 1 or above for three ticks in a row. One that does
not end counts once more for every hour, so that a bundle which is always in alarm is not one that alarmed
once. A node to which nothing happens has at most a Poisson number of alarms in a time, around what its own
threshold makes of the bundle's budget; a count that it would reach less than once in ten thousand times is
no chance. A true and long incident in a bundle's first days looks the same: then the node goes back to
models that it had been well served by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from node_anomaly_core.calibration import HOLD_TICKS

PROBATION_S = 3 * 86400.0
"""How long a bundle is new on a node; afterwards it has proven itself and is left to the operator."""

SURPRISE = 1e-4
LEAST_ALARMS = 3
"""In the first hour two would be a surprise already, and one incident may well page twice."""

AGAIN_S = 3600.0
WEEK_S = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A broken promise: so many alarms where `expected` are usual."""

    alarms: int
    expected: float
    hours: float


class Promise:
    """Counts the alarms of one bundle. Belongs to the loop's thread.

    Args:
        usual_per_week: alarms of a node to which nothing happens (`raised_on_noise` of the bundle's budget).
        since: when it was first used here, unix seconds.
    """

    def __init__(self, usual_per_week: float, since: float) -> None:
        self._usual_per_week = usual_per_week
        self._since = since
        self._row = 0
        self._counted_at = math.nan
        self.alarms = 0

    def tick(self, timestamp: float, score: float) -> Verdict | None:
        """One score (NaN for none); a verdict once the promise is broken."""
        elapsed = timestamp - self._since
        if not 0.0 <= elapsed <= PROBATION_S:
            return None
        self._row = self._row + 1 if score >= 1.0 else 0
        if self._row < HOLD_TICKS:
            return None
        if self._row > HOLD_TICKS and timestamp - self._counted_at < AGAIN_S:
            return None
        self._counted_at = timestamp
        self.alarms += 1
        expected = self._usual_per_week * elapsed / WEEK_S
        if self.alarms < LEAST_ALARMS or poisson_tail(self.alarms, expected) >= SURPRISE:
            return None
        return Verdict(self.alarms, expected, elapsed / 3600.0)


def poisson_tail(count: int, expected: float) -> float:
    """The probability of `count` events or more where `expected` are usual."""
    if count <= 0:
        return 1.0
    if expected <= 0.0:
        return 0.0
    # The sum from `count` upwards, not 1 minus the sum below it, which would be rounded to nothing.
    term = math.exp(-expected + count * math.log(expected) - math.lgamma(count + 1))
    total, at = 0.0, count
    while term > 0.0 and (term > total * 1e-15 or at < expected):
        total += term
        at += 1
        term *= expected / at
    return min(total, 1.0)
