"""What one node has shown so far, in bounded memory: all that a scorer is learnt from.

The recent rows in full, the whole life thinned out, and of each feature its range and how often it was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.residuals import longest_window
from node_anomaly_core.score import STATES, columns_of
from node_anomaly_core.windows import RowRing, ThinnedRows, ticks_in

MOST_THINNED = 512
_MOST_RECENT_ROWS = 960  # consecutive rows kept to rebuild windows from: 4 h at 15 s
_LEARN_FOR_S = 86_400.0
_ENOUGH = 60  # values that a late feature is learnt from anew, where it has shown more than twice as many
_NEARLY = 0.75
_GAP_S, _GAP_TICKS = 3_600.0, 3

Array = NDArray[np.float64]


class NodeMemory:
    """Of one node with f features.

    Attributes:
        recent: consecutive rows up to now.
        ticks: how many rows were taken in, ever.
        since_gap: how many since the last long silence.
        observed: (f,) ticks in which each feature had a value.
    """

    def __init__(self, width: int, interval_s: float, warmup_ticks: int) -> None:
        """Remember nothing yet; a node is learnt first after `warmup_ticks`."""
        self._width, self._interval_s = width, interval_s
        self.recent = self._no_recent()
        self._thinned = self._no_thinned()
        self._lowest = np.full(width, np.inf)
        self._highest = np.full(width, -np.inf)
        self.observed = np.zeros(width)
        self.ticks = 0
        self.since_gap = 0
        self._warmup_ticks = warmup_ticks
        self._learn_at = warmup_ticks
        self._late_at = np.full(width, np.inf)  # observations at which what came late is learnt anew
        self._last: float | None = None
        self._code = b""
        self._states: tuple[str, ...] = ()

    def _no_recent(self) -> RowRing:
        return RowRing(min(longest_window(self._interval_s), _MOST_RECENT_ROWS), self._width)

    def _no_thinned(self) -> ThinnedRows:
        return ThinnedRows(MOST_THINNED, self._width, ticks_in(_LEARN_FOR_S, self._interval_s))

    def silence_before(self, timestamp: float) -> bool:
        """Whether so much time has passed that what comes is no neighbour of what was."""
        longest = max(_GAP_S, _GAP_TICKS * self._interval_s)
        return self._last is not None and timestamp - self._last > longest

    def forget_recent(self) -> None:
        """Begin anew after a silence; range and thinned life stay."""
        self.recent = self._no_recent()
        self.since_gap = 0

    def push(self, timestamp: float, row: Array) -> None:
        """Take in one row (f,), NaN = missing, at unix `timestamp`."""
        self._last = timestamp
        self.recent.push(timestamp, row)
        self._thinned.push(row)
        self._lowest = np.fmin(self._lowest, row)
        self._highest = np.fmax(self._highest, row)
        self.observed += np.isfinite(row)
        self.ticks += 1
        self.since_gap += 1

    def due(self) -> bool:
        """Whether there is so much more of it that the node is to be learnt anew."""
        return self.ticks >= self._learn_at and self.ticks * self._interval_s <= _LEARN_FOR_S * 1.01

    def learnt(self) -> None:
        """Set the next time at which it is due: when the past has doubled."""
        while self._learn_at <= self.ticks:
            self._learn_at *= 2

    @property
    def came_late(self) -> NDArray[np.bool_]:
        """Which features (f,) are learnt by what they themselves have shown, not the node."""
        return self._late_at < np.inf

    def late(self, row: Array, centre: Array) -> NDArray[np.bool_]:
        """Which features (f,) of the row (f,) just taken in are due that came after the others.

        One without a `centre` (f,) is due when it has had a warm-up of its own, another each time that it has
        been seen twice as often, up to a day; where one is, others that nearly are go with it, for each fit
        costs as much as many. Not one that is gone at present, none right after a silence, and none of which
        little is left in the memory: what was learnt of more is better.
        """
        at = np.where(np.isnan(centre), self._warmup_ticks, self._late_at)
        may = np.isfinite(row) & (self.since_gap >= self._warmup_ticks)
        due = (at <= self.observed) & may
        if not np.count_nonzero(due):
            return due
        may &= self._left() >= np.clip(
            self.observed / 2, self._warmup_ticks, max(_ENOUGH, self._warmup_ticks)
        )
        due &= may
        return due | (may & (_NEARLY * self._late_at <= self.observed)) if np.count_nonzero(due) else due

    def _left(self) -> NDArray[np.integer]:
        """How many values of each feature (f,) are kept."""
        recent, life = self.recent.ordered()[1], self._thinned.values()
        left: NDArray[np.integer] = np.maximum(np.isfinite(recent).sum(axis=0), np.isfinite(life).sum(axis=0))
        return left

    def learn_late(self, late: NDArray[np.bool_]) -> None:
        """Let `late` features (f,), and no others, be due as soon as they may."""
        self._late_at = np.where(late, float(self._warmup_ticks), np.inf)

    def learnt_late(self, late: NDArray[np.bool_]) -> None:
        """Set the next time at which `late` features (f,) are due, on the schedule that a node has."""
        nearly = _NEARLY * self._late_at <= self.observed
        seen = np.where(nearly, np.maximum(self.observed, self._late_at), self.observed)
        # The first warm-up times a power of two, or the warm-up, that lies above what was observed.
        _, doublings = np.frexp(seen / self._warmup_ticks)
        again = np.ldexp(float(self._warmup_ticks), np.maximum(doublings, 0))
        again = np.where(again * self._interval_s > _LEARN_FOR_S * 1.01, np.inf, again)
        self._late_at = np.where(late, again, self._late_at)

    def recent_rows(self) -> Array:
        """Consecutive rows (n, f) up to now, oldest first."""
        return self.recent.ordered()[1].astype(np.float64)

    def thinned_rows(self) -> Array:
        """Rows (n, f) from the whole life, oldest first."""
        return self._thinned.values().astype(np.float64)

    def possible(self, values: Array) -> Array:
        """Values (f,), but not below 0 for a feature that never was."""
        return np.where((values < 0) & (self._lowest >= 0), 0.0, values)

    def states(self, row: Array) -> tuple[str, ...]:
        """What each feature of a row (f,) is, see STATES."""
        seen = np.isfinite(self._lowest)
        kind = np.where(np.isnan(row), seen, np.where(self._lowest == self._highest, 2, 3))
        code = kind.tobytes()
        if code != self._code:  # seldom: a feature comes, goes, or moves for the first time
            self._code, self._states = code, tuple([STATES[at] for at in kind.tolist()])
        return self._states

    def state(self) -> dict[str, NDArray[np.generic]]:
        """As saved, see `take_over`."""
        times, rows = self.recent.ordered()
        thinned = self._thinned
        counts = [self.ticks, self._learn_at, thinned.stride, thinned.offered, self.since_gap]
        return {
            "times": times,
            "rows": rows,
            "thinned": thinned.values().copy(),
            "counts": np.array(counts, dtype=np.int64),
            "range": np.stack([self._lowest, self._highest]),
            "late": np.stack([self.observed, np.where(self.came_late, self._late_at, 0.0)]),
        }

    def take_over(self, arrays: Mapping[str, Array]) -> None:
        """Fill an empty memory with what `state` gave.

        Older agents did not save how often each feature was seen: it is counted in the rows that are kept.
        """
        for timestamp, row in zip(arrays["times"], arrays["rows"], strict=True):
            self.recent.push(float(timestamp), row)
            self._last = float(timestamp)
        thinned = self._thinned
        thinned.rows[: len(arrays["thinned"])] = arrays["thinned"]
        thinned.kept = len(arrays["thinned"])
        self.ticks, self._learn_at, thinned.stride, thinned.offered, self.since_gap = (
            int(count) for count in arrays["counts"]
        )
        self._learn_at, thinned.stride = max(self._learn_at, 1), max(thinned.stride, 1)
        self._lowest, self._highest = arrays["range"]
        if "late" in arrays:
            self.observed, again = arrays["late"]
            self._late_at = np.where(again > 0, again, np.inf)
        else:
            in_recent, in_life = (np.isfinite(arrays[name]).sum(axis=0) for name in ("rows", "thinned"))
            self.observed = np.maximum(in_recent, in_life * float(thinned.stride))

    def adopt(self, other: NodeMemory, columns: Sequence[int]) -> None:
        """Take over another's past; `columns` says which of its features each is, -1 for none of them."""
        times, rows = other.recent.ordered()
        self._thinned = self._no_thinned()
        for row in columns_of(other._thinned.values(), columns):
            self._thinned.push(row)
        self._thinned.stride, self._thinned.offered = other._thinned.stride, other._thinned.offered
        for timestamp, row in zip(times, columns_of(rows, columns), strict=True):
            self.recent.push(float(timestamp), row)
        self._lowest = columns_of(other._lowest[None], columns, np.inf)[0]
        self._highest = columns_of(other._highest[None], columns, -np.inf)[0]
        self.observed = columns_of(other.observed[None], columns, 0.0)[0]
        self._late_at = columns_of(other._late_at[None], columns, np.inf)[0]
        self.ticks, self.since_gap, self._last = other.ticks, other.since_gap, other._last
