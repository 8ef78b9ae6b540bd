"""What is left of a score when a member fails: the rest of the members, and a robust z at the very last.

A member that raises, or gives no number where it should, rests for a while and is then tried again. The
evidence of the others is combined as ever. The tail that turns it into a score was calibrated with all
members: a mean over fewer of them is noisier, so the false-alarm budget is not promised until the node's own
threshold has followed, which takes it two days.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.attribution import surprises
from node_anomaly_core.evidence import mean_of_top

REST_TICKS = 20
"""How long a member that failed is left out before it is tried again; the same for one that was dropped."""

LEVELS: tuple[str, ...] = (
    "every member works",
    "a member is left out, a forest works",
    "no forest works, another member does",
    "no member works, the score is a robust z",
)
"""What the levels mean, by number."""

Z_SHARE = 0.05
Z_ALARM = 25.0
"""The robust z that counts as 1.0. A coarse measure without a calibration: it keeps a node from being blind,
and promises no budget."""

Array = NDArray[np.float64]
T = TypeVar("T")


class MemberHealth:
    """Which members of one scorer work. Belongs to whoever steps the scorer.

    Args:
        members: their names.
        forests: those that are forests.

    Attributes:
        tolerant: whether a member may fail; a trainer, and the self-test of a bundle, want to know at once.
        failures: how often each failed since the start.
    """

    def __init__(self, members: Iterable[str], forests: Iterable[str]) -> None:
        self._members = tuple(members)
        self._all = frozenset(self._members)
        self._forests = frozenset(forests)
        self._resting: dict[str, int] = {}
        self._dropped: set[str] = set()
        self.tolerant = False
        self.failures: Mapping[str, int] = dict.fromkeys(self._members, 0)

    def tick(self) -> None:
        """Time passes; at the begin of each tick."""
        if self._resting:
            self._resting = {name: left - 1 for name, left in self._resting.items() if left > 1}

    def may(self, member: str) -> bool:
        """Whether it is to be asked at this tick."""
        return member not in self._resting and member not in self._dropped

    def drop(self, member: str) -> None:
        """Leave one out until `take_back`, because the node cannot afford it."""
        self._dropped.add(member)

    def take_back(self, member: str) -> None:
        """Ask it again."""
        self._dropped.discard(member)

    @property
    def working(self) -> frozenset[str]:
        """Members that are asked."""
        if not self._resting and not self._dropped:  # nearly always
            return self._all
        return frozenset(name for name in self._members if self.may(name))

    @property
    def level(self) -> int:
        """0 to 3, see LEVELS."""
        working = self.working
        if len(working) == len(self._members):
            return 0
        if not working:
            return 3
        return 1 if working & self._forests or not self._forests else 2

    def ask(self, member: str, call: Callable[[], T]) -> T | None:
        """What a member says, or None if it is left out or raises."""
        if not self.may(member):
            return None
        if not self.tolerant:
            return call()
        try:
            return call()
        except Exception:  # noqa: BLE001  # one member must not cost the whole tick; the counter tells
            self.failed(member)
            return None

    def failed(self, member: str) -> None:
        """Count a failure, and let the member rest."""
        self.failures = {**self.failures, member: self.failures[member] + 1}
        self._resting[member] = REST_TICKS

    def number(self, member: str, score: float | None, *, known: bool = True) -> float:
        """Its raw score, NaN if it is left out; where it should be a number and is none, it has failed.

        `known` says whether it could know anything at this tick.
        """
        if score is None:
            return math.nan
        if self.tolerant and (math.isinf(score) or (known and math.isnan(score))):
            self.failed(member)
            return math.nan
        return score


def robust_z(scaled: Array) -> tuple[float, Array]:
    """Score and shares (f,) from residuals (b, f) in units of their usual size; NaN where none is known.

    The mean of the largest twentieth, on a log scale, 1.0 at Z_ALARM.
    """
    largest = np.where(np.isfinite(scaled), np.abs(scaled), -1.0).max(axis=0)
    size = np.where(largest >= 0, np.log1p(np.maximum(largest, 0.0)), np.nan)
    if np.isnan(size).all():
        return math.nan, size
    shares = surprises(size)
    whole = mean_of_top(size[None], Z_SHARE)[0]
    return float(whole / math.log1p(Z_ALARM)), shares if shares.sum() > 0 else np.full(len(size), np.nan)
