"""The score of the last hours, for people to look at: one number a minute, and where it was an alarm.

A few KiB of fixed size. What is published is never changed afterwards: a tick that changes anything puts
new arrays in its place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.manifest_reader import LATEST
from node_anomaly_core.score import Score

SPAN_S = 6 * 3600.0
SLOT_S = 60.0
ALARM_TICKS = 3
"""An alarm is a score of 1 or more for so many ticks in a row; the shipped rule says the same."""


def _no_scores() -> NDArray[np.float32]:
    return np.empty(0, dtype=np.float32)


def _no_alarms() -> NDArray[np.bool_]:
    return np.empty(0, dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Span:
    """One alarm: unix seconds of its begin and end, and the highest score in it."""

    start: float
    end: float
    peak: float


@dataclass(frozen=True, slots=True)
class ScoreHistory:
    """Slots of equal length, oldest first; the last one is the present.

    Attributes:
        slot_s: seconds of one slot.
        end: unix seconds where the last slot ends; NaN before the first tick.
        peaks: (n,) the highest score in each, NaN where there was none.
        alarms: (n,) whether an alarm went on in it.
    """

    slot_s: float = SLOT_S
    end: float = math.nan
    peaks: NDArray[np.float32] = field(default_factory=_no_scores)
    alarms: NDArray[np.bool_] = field(default_factory=_no_alarms)

    @property
    def start(self) -> float:
        """Unix seconds where the first slot begins."""
        return self.end - self.slot_s * len(self.peaks)

    @property
    def known(self) -> bool:
        """Whether there is any score in it."""
        return bool(np.isfinite(self.peaks).any())

    def spans(self) -> Iterator[Span]:
        """The alarms, oldest first."""
        edges = np.flatnonzero(np.diff(self.alarms.astype(np.int8), prepend=0, append=0))
        for first, last in edges.reshape(-1, 2).tolist():
            start = self.start + first * self.slot_s
            peak = float(np.fmax.reduce(self.peaks[first:last]))
            yield Span(start, start + (last - first) * self.slot_s, peak)


class ScoreRecorder:
    """Keeps the history up to date. The loop's thread alone."""

    def __init__(self, interval_s: float) -> None:
        self.history = ScoreHistory(slot_s=max(SLOT_S, interval_s))
        self._slots = math.ceil(SPAN_S / self.history.slot_s)
        self._slot = 0
        self._run = 0  # ticks in a row with a score of 1 or more
        self._run_slot = 0  # where they began

    def record(self, timestamp: float, score: Score | None) -> ScoreHistory:
        """Take in one tick at unix `timestamp`; None, or a score not warm yet, leaves a gap."""
        slot = int(timestamp // self.history.slot_s)
        if len(self.history.peaks) != self._slots:
            self._publish(
                slot,
                np.full(self._slots, np.nan, dtype=np.float32),
                np.zeros(self._slots, dtype=np.bool_),
            )
        elif slot != self._slot:
            self._move(slot)
        value = score.score if score is not None and score.warm else math.nan
        if not value >= 1.0:  # NaN is no alarm either
            self._run = 0
        else:
            self._run_slot = slot if self._run == 0 else min(self._run_slot, slot)
            self._run += 1
        before = float(self.history.peaks[-1])
        alarming = self._run >= ALARM_TICKS
        higher = value > before or (math.isnan(before) and not math.isnan(value))
        if higher or (alarming and not self.history.alarms[-1]):
            peaks, alarms = self.history.peaks.copy(), self.history.alarms.copy()
            if higher:
                peaks[-1] = value
            if alarming:
                alarms[-1 - min(slot - self._run_slot, self._slots - 1) :] = True
            self._publish(slot, peaks, alarms)
        return self.history

    def export(self) -> dict[str, NDArray[np.generic]]:
        """What `restore` takes; empty before the first tick."""
        history = self.history
        if not len(history.peaks):
            return {}
        span = np.array([history.slot_s, history.end])
        return {"peaks": history.peaks, "alarms": history.alarms.astype(np.uint8), "span": span}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> bool:
        """Go on from what was exported; False, and untouched, if it does not fit."""
        peaks, alarms, span = (np.asarray(saved.get(name, ())) for name in ("peaks", "alarms", "span"))
        if peaks.shape != (self._slots,) or alarms.shape != (self._slots,) or span.shape != (2,):
            return False
        if peaks.dtype != np.float32 or alarms.dtype != np.uint8 or span.dtype != np.float64:
            return False
        slot_s, end = span.tolist()
        if slot_s != self.history.slot_s or not 0 < end < LATEST or np.isinf(peaks).any():
            return False
        # An alarm without any score in it would have no peak.
        self._publish(round(end / slot_s) - 1, peaks.copy(), (alarms == 1) & np.isfinite(peaks))
        return True

    def _move(self, slot: int) -> None:
        """Let time pass to another slot. A clock that was set back takes what lies ahead of it away."""
        shift = max(-self._slots, min(slot - self._slot, self._slots))
        if abs(shift) > 2:  # no tick for a whole slot: what comes is not in a row with what was
            self._run = 0
        peaks = np.full(self._slots, np.nan, dtype=np.float32)
        alarms = np.zeros(self._slots, dtype=np.bool_)
        if shift > 0:
            peaks[: self._slots - shift] = self.history.peaks[shift:]
            alarms[: self._slots - shift] = self.history.alarms[shift:]
        else:
            peaks[-shift:] = self.history.peaks[:shift]
            alarms[-shift:] = self.history.alarms[:shift]
            self._run_slot = min(self._run_slot, slot)
        self._publish(slot, peaks, alarms)

    def _publish(self, slot: int, peaks: NDArray[np.float32], alarms: NDArray[np.bool_]) -> None:
        peaks.flags.writeable = alarms.flags.writeable = False
        self._slot = slot
        slot_s = self.history.slot_s
        self.history = ScoreHistory(slot_s, (slot + 1) * slot_s, peaks, alarms)
