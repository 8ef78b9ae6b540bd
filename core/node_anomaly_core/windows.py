"""Windows over ticks that are never recomputed: every update costs O(features), however long the window.

A window is defined in seconds and becomes a number of ticks, but never fewer than the recipe was measured
with, so that a 5-minute scrape interval still averages several samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ZERO = np.float64(0.0)  # a plain 0.0 would leave the difference of two float32 rows in float32


def ticks_in(seconds: float, interval_s: float, least: int = 1) -> int:
    """Number of ticks that a window of `seconds` covers, at least `least`."""
    return max(least, round(seconds / interval_s))


def smoothing(half_life_s: float, interval_s: float) -> float:
    """Weight of the newest sample in an exponentially weighted mean with this half-life."""
    return float(1.0 - 0.5 ** (interval_s / half_life_s))


class RunningMeans:
    """Means over the last k rows for several k at once, ignoring NaN.

    Memory is one float32 ring of the longest window. Sums are float64 over float32 values and are taken anew
    each time the ring wraps, so rounding cannot accumulate over months of uptime.
    """

    def __init__(self, lengths: Sequence[int], shape: tuple[int, ...]) -> None:
        self.lengths = tuple(lengths)
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"window lengths must be positive, got {self.lengths}")
        self._ring = np.full((max(self.lengths), *shape), np.nan, dtype=np.float32)
        self._sums = np.zeros((len(self.lengths), *shape))
        self._counts = np.zeros((len(self.lengths), *shape))
        self._back = np.array(self.lengths)
        self._pushed = 0
        self._size = len(self._ring)
        self._one = len(self.lengths) == 1
        self._known = b""
        self._alike = 0  # rows in a row in which the same was known
        self._divisor: NDArray[np.float64] | None = None

    def push(self, row: NDArray[np.floating]) -> NDArray[np.float64]:
        """Add one row (shape `shape`, NaN = missing).

        Means (len(lengths), *shape), NaN where a window is empty.
        """
        ring, size = self._ring, self._size
        position = self._pushed % size
        if self._one:
            leaving = ring[position : position + 1]  # a view: used before the row takes its place
        else:
            leaving = ring.take(position - self._back, axis=0, mode="wrap")
        entering = row.astype(np.float32)
        self._pushed += 1
        known = entering == entering  # NaN is the only value that differs from itself  # noqa: PLR0124
        mask = known.tobytes()  # compares faster than arrays do
        if mask == self._known:
            self._alike += 1
        else:
            self._known, self._alike = mask, 0
            if self._divisor is not None:
                self._sums[self._counts == 0] = 0.0
                self._divisor = None
        if position == size - 1:
            ring[position] = entering
            self._recount()
        elif self._alike > size:  # every row that enters or leaves has what this one has: counts stand still
            if self._divisor is None:
                self._divisor = np.where(self._counts > 0, self._counts, np.nan)
            # The sum of what is never known becomes NaN: without a mask this takes a third of the time.
            np.add(self._sums, np.subtract(entering, leaving, dtype=np.float64), out=self._sums)
            ring[position] = entering
            means: NDArray[np.float64] = self._sums / self._divisor
            return means
        else:
            gone = leaving == leaving  # noqa: PLR0124
            self._sums += np.where(known, entering, _ZERO) - np.where(gone, leaving, _ZERO)
            self._counts += known.astype(np.float64) - gone
            ring[position] = entering
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self._counts > 0, self._sums / self._counts, np.nan)

    def _recount(self) -> None:
        """Sums and counts from the rows themselves, at the end of the ring."""
        for index, length in enumerate(self.lengths):
            rows = np.ascontiguousarray(self._ring[len(self._ring) - length :][::-1])
            known = np.isfinite(rows)
            self._sums[index] = np.where(known, rows, 0.0).sum(axis=0, dtype=np.float64)
            self._counts[index] = known.sum(axis=0)


class RowRing:
    """The last `capacity` rows in order, as float32 (rounding 6e-8 of the value)."""

    def __init__(self, capacity: int, width: int) -> None:
        self._rows = np.full((capacity, width), np.nan, dtype=np.float32)
        self._times = np.zeros(capacity)
        self._pushed = 0

    def __len__(self) -> int:
        return min(self._pushed, len(self._rows))

    def push(self, timestamp: float, row: NDArray[np.floating]) -> None:
        """Add one row (width,) taken at `timestamp` (unix seconds).

        The oldest leaves when the ring is full.
        """
        position = self._pushed % len(self._rows)
        self._rows[position] = row
        self._times[position] = timestamp
        self._pushed += 1

    def ordered(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Timestamps (n,) and rows (n, width), oldest first."""
        count = len(self)
        order = (self._pushed - count + np.arange(count)) % len(self._rows)
        return self._times[order], self._rows[order]


class ThinnedRows:
    """Rows from the whole past in bounded memory: when full, every second row goes and the stride doubles.

    Gives a robust centre and scale for as long a life as the node has had, without keeping it.
    """

    def __init__(self, capacity: int, width: int, longest: int) -> None:
        self.rows = np.full((capacity, width), np.nan, dtype=np.float32)
        self.kept = 0
        self.stride = 1
        self.offered = 0
        self._longest = longest  # ticks that the kept rows may span at most

    def push(self, row: NDArray[np.floating]) -> None:
        """Offer one row (width,); kept when it falls on the current stride."""
        if self.offered % self.stride == 0:
            if self.kept == len(self.rows):
                self._make_room()
            if self.offered % self.stride == 0:
                self.rows[self.kept] = row
                self.kept += 1
        self.offered += 1

    def _make_room(self) -> None:
        if self.stride * len(self.rows) < self._longest:
            half = self.rows[::2].copy()
            self.rows[: len(half)] = half
            self.kept = len(half)
            self.stride *= 2
        else:  # as long as it may get: the oldest eighth leaves
            gone = max(1, len(self.rows) // 8)
            self.rows[:-gone] = self.rows[gone:].copy()
            self.kept = len(self.rows) - gone

    def values(self) -> NDArray[np.float32]:
        """The kept rows (n, width), oldest first."""
        return self.rows[: self.kept]
