"""The counter window: per-second rates as PromQL's rate() gives them, over many series at once.

A rate is the slope between the first and the last sample in the window, counter resets added back as
Prometheus does (after a reset the new value is the increase). The window begins an EDGE later than `window_s`
ago: a query comes on average half an interval after the newest sample, and a window of four ticks that began
at a tick would hold four or five of them as the clock jitters. When fewer than two ticks fall into the window
the two latest are used. On regular samples that fill the window this equals Prometheus' extrapolated
rate. It differs on purpose while a series is younger than the window and while a counter is near its birth
at 0: there Prometheus extrapolates less and understates the rate, and an agent that has just started would
show a ramp on every counter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.expressions import SeriesKey

MAX_SAMPLES = 64
"""Ticks kept at most; a window that would hold more is shortened to its newest ones."""

EDGE = 0.125
"""Of a window: half a tick of the four that it spans."""

JUMP_WINDOWS = 5.0
"""A step of the clock by more windows than this, or back, restarts every rate."""


class CounterWindow:
    """The samples of the last window for a set of counters, and their rates.

    Memory: at most MAX_SAMPLES rows of 8 bytes for each series.
    """

    def __init__(self, window_s: float) -> None:
        if not window_s > 0:
            raise ValueError(f"the rate window must be positive, not {window_s!r}")
        self.window_s = float(window_s)
        self.keys: tuple[SeriesKey, ...] = ()
        self._times: list[float] = []
        self._rows: list[NDArray[np.float64]] = []
        self._last: NDArray[np.float64] = np.empty(0)  # newest raw value of each series, NaN: none yet
        self._offset: NDArray[np.float64] = np.empty(0)  # what resets have taken away so far

    @property
    def latest(self) -> float:
        """Timestamp of the newest tick, in seconds; minus infinity before the first."""
        return self._times[-1] if self._times else -math.inf

    def restart(self) -> None:
        """Forget every sample; all rates are missing until two more ticks."""
        self._times.clear()
        self._rows.clear()
        self._last = np.full(len(self.keys), np.nan)
        self._offset = np.zeros(len(self.keys))

    def relayout(self, keys: Sequence[SeriesKey]) -> None:
        """Change the set of series; those that stay keep their samples."""
        places = {key: at for at, key in enumerate(self.keys)}
        source = np.array([places.get(key, -1) for key in keys], dtype=np.intp)
        self.keys = tuple(keys)
        self._last = _take(self._last, source, np.nan)
        self._offset = _take(self._offset, source, 0.0)
        self._rows = [_take(row, source, np.nan) for row in self._rows]

    def push(self, timestamp: float, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add one tick (raw counters in the order of `keys`, NaN where absent); rates per second, NaN = none.

        Never raises for odd data: negative and non-finite counters count as absent, a clock that stands
        still, goes back or jumps ahead by more than JUMP_WINDOWS windows restarts the rates.
        """
        times, rows = self._times, self._rows
        if times and not 0.0 < timestamp - times[-1] <= JUMP_WINDOWS * self.window_s:
            self.restart()
        with np.errstate(invalid="ignore"):
            values = np.where((values >= 0.0) & (values < np.inf), values, np.nan)
            reset = values < self._last
            if np.count_nonzero(reset):  # a third of the time of any()
                self._offset = np.where(reset, self._offset + self._last, self._offset)
        absent = np.isnan(values)
        self._last = np.where(absent, self._last, values) if np.count_nonzero(absent) else values
        times.append(timestamp)
        rows.append(values + self._offset)
        start = timestamp - self.window_s * (1.0 - EDGE)
        while len(times) > MAX_SAMPLES or (len(times) > 2 and times[0] <= start):
            del times[0], rows[0]
        if len(times) < 2:
            return np.full(len(self.keys), np.nan)
        rates: NDArray[np.float64] = (rows[-1] - rows[0]) / (timestamp - times[0])
        gaps = np.flatnonzero(np.isnan(rates))
        if gaps.size and len(times) > 2:
            rates[gaps] = self._rates_with_gaps(gaps)
        return rates

    def _rates_with_gaps(self, columns: NDArray[np.intp]) -> NDArray[np.float64]:
        """Slope between the first and the last present sample; NaN with fewer than two."""
        stack = np.array(self._rows)[:, columns]
        times = np.array(self._times)
        present = ~np.isnan(stack)
        first = present.argmax(axis=0)
        last = len(times) - 1 - present[::-1].argmax(axis=0)
        each = np.arange(columns.size)
        span = times[last] - times[first]
        slope = (stack[last, each] - stack[first, each]) / np.where(span > 0.0, span, np.nan)
        return np.where(present.any(axis=0), slope, np.nan)

    def state(self) -> dict[str, object]:
        """The window as plain JSON values, so that another process can go on from it."""
        return {
            "window_s": self.window_s,
            "keys": [list(key) for key in self.keys],
            "times": list(self._times),
            "rows": [_plain(row) for row in self._rows],
            "last": _plain(self._last),
            "offset": _plain(self._offset),
        }

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take over a saved window; False, and nothing changes, if it is not one of this length."""
        try:
            restored = _checked(state, self.window_s)
        except (KeyError, TypeError, ValueError):
            return False
        self.keys, self._times, self._rows, self._last, self._offset = restored
        return True


def _take(row: NDArray[np.float64], source: NDArray[np.intp], fill: float) -> NDArray[np.float64]:
    """row[source], with `fill` where the source is -1."""
    if not row.size:
        return np.full(source.size, fill)
    return np.where(source >= 0, row[source], fill)


def _plain(row: NDArray[np.float64]) -> list[float | None]:
    """JSON has no NaN."""
    return [None if math.isnan(value) else value for value in row.tolist()]


_Restored = tuple[
    tuple[SeriesKey, ...],
    list[float],
    list[NDArray[np.float64]],
    NDArray[np.float64],
    NDArray[np.float64],
]


def _checked(state: Mapping[str, object], window_s: float) -> _Restored:
    """The parts of a saved window; ValueError, TypeError or KeyError if it is not one."""
    if state["window_s"] != window_s:
        raise ValueError("another window")
    keys = tuple(_key(pair) for pair in _listed(state["keys"]))
    times = [_number(value) for value in _listed(state["times"])]
    rows = [_row(row, len(keys)) for row in _listed(state["rows"])]
    if len(rows) != len(times) or len(rows) > MAX_SAMPLES or len(set(keys)) != len(keys):
        raise ValueError("rows and times differ")
    if any(b <= a for a, b in pairwise(times)) or not np.isfinite(times).all():
        raise ValueError("times do not increase")
    return keys, times, rows, _row(state["last"], len(keys)), _row(state["offset"], len(keys))


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _key(value: object) -> SeriesKey:
    metric, label = _listed(value)
    if not isinstance(metric, str) or not isinstance(label, str):
        raise TypeError("not a series key")
    return metric, label


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return float(value)


def _row(value: object, width: int) -> NDArray[np.float64]:
    row = np.array([np.nan if v is None else _number(v) for v in _listed(value)], dtype=np.float64)
    if row.shape != (width,) or (row < 0.0).any() or np.isinf(row).any():
        raise ValueError("not a row of counters")
    return row
