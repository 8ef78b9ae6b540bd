"""What logs are counted into: lines, bytes, severities, patterns and silence, the same at both ends.

The agent feeds it from its sources and the trainer from old files; both read the features off it with the
catalogue's expressions, under the names of the agent's own metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from node_anomaly_core.expressions import Reading
from node_anomaly_core.log_severity import count_severities, line_severities
from node_anomaly_core.log_templates import TemplateMiner

PREFIX = "anomaly_agent_log_"
COUNTED = ("lines", "bytes", "errors", "warnings")
"""Counters of each source and each group; `anomaly_agent_log_<name>_total`, and `_group_<name>_total`."""

HALF_LIFE_S = 86400.0
"""In which a source's longest gap is half forgotten."""

LONGEST_TICK_S, LONGER = 600.0, 3.0
"""Between two ticks that are further apart, and so many times as far as the two before, nobody looked: the
agent was stopped, the host suspended, or its clock was set. That is neither silence nor a usual gap."""

MAX_TIME = 1e15
"""No unix second is so far; a foreign state file may hold any integer."""

TALKS_AFTER = 20
"""Gaps between two ticks with lines after which a source is one that normally speaks."""

PIECE_BYTES = 32 << 10
"""Lines are judged in pieces of this size: what that takes for a moment is a few times as much."""

MAX_KEYS = 64
"""Sources and groups together; they are configured, so only a foreign state file could hold more."""


@dataclass(slots=True)
class Habit:
    """How long a stream of lines is usually silent.

    Attributes:
        longest: its longest gap in seconds, fading by half in HALF_LIFE_S.
        gaps: how many gaps there were, up to TALKS_AFTER.
        spoke: when it last had a line, unix seconds; NaN before the first.
    """

    longest: float = 0.0
    gaps: int = 0
    spoke: float = math.nan

    def look(self, now: float, spoke: bool) -> None:
        """One tick, in which there were lines or not."""
        if not self.spoke <= now:  # the first line, or a clock that went back
            self.spoke = now if spoke else math.nan
            return
        if spoke:
            gap = now - self.spoke
            self.longest = max(self.longest * 0.5 ** (gap / HALF_LIFE_S), gap)
            self.gaps = min(self.gaps + 1, TALKS_AFTER)
            self.spoke = now

    def away(self, seconds: float) -> None:
        """So long nobody looked; negative where the clock went back."""
        self.spoke += seconds

    def silence(self, now: float) -> float:
        """Seconds of silence beyond the longest usual gap; NaN while it is not known to speak normally."""
        if self.gaps < TALKS_AFTER:
            return math.nan
        return max(0.0, now - self.spoke - self.longest)


@dataclass(slots=True)
class Stream:
    """The counters of one source or group."""

    lines: float = 0.0
    bytes: float = 0.0
    errors: float = 0.0
    warnings: float = 0.0
    habit: Habit = field(default_factory=Habit)
    spoke: bool = False
    looked_at: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    unseen: float = 0.0

    def settle(self) -> None:
        """What was only counted in this tick has the shares of errors and warnings of what was looked at."""
        lines, errors, warnings = self.looked_at
        if lines:
            self.errors += self.unseen * errors / lines
            self.warnings += self.unseen * warnings / lines
        self.looked_at, self.unseen = [0.0, 0.0, 0.0], 0.0


class LogCounters:
    """Counters that only grow, of the node's sources and configured groups.

    Attributes:
        sources: by name.
        groups: by name.
        miner: the patterns of all lines together.
        unmined: lines whose pattern was not looked for, for want of time.
    """

    def __init__(self, sources: tuple[str, ...], groups: tuple[str, ...] = ()) -> None:
        self.sources = {name: Stream() for name in sources}
        self.groups = {name: Stream() for name in groups}
        self.miner = TemplateMiner()
        self.unmined = 0
        self._looked = math.nan
        self._step = 0.0

    def add(
        self,
        source: str,
        group: str,
        lines: int,
        size: int,
        data: bytes,
        severities: bytes | None,
        *,
        mine: bool = True,
        examples: int = 0,
        late: bool = False,
    ) -> list[bytes]:
        """Count one batch, as the agent's sources hand it out; gives up to `examples` lines of new patterns.

        Where `data` holds only some of the lines, the shares of errors and warnings in it stand for all;
        where it holds none, those of the tick's other lines do, unless the lines are `late`: of another time.
        """
        judged, errors, warnings = 0, 0, 0
        new: list[bytes] = []
        for piece in _pieces(data):
            known = None if severities is None else severities[judged:]
            found = line_severities(piece, known)
            more_errors, more_warnings = count_severities(found)
            judged, errors, warnings = judged + len(found), errors + more_errors, warnings + more_warnings
            if mine:
                new += self.miner.mine(piece, examples - len(new))
        scale = lines / judged if judged else 0.0
        for stream in (self.sources.get(source), self.groups.get(group)):
            if stream is not None:
                stream.lines += lines
                stream.bytes += size
                stream.errors += errors * scale
                stream.warnings += warnings * scale
                stream.spoke = stream.spoke or lines > 0
                if judged:
                    shares = (lines, errors * scale, warnings * scale)
                    stream.looked_at = [sum(pair) for pair in zip(stream.looked_at, shares, strict=True)]
                elif not late:
                    stream.unseen += lines
        self.unmined += max(lines - judged, 0) if mine else lines
        return new

    def tick(self, now: float) -> None:
        """All batches up to `now`, unix seconds, have been added: what is counted of them is whole."""
        since = now - self._looked
        self._looked = now
        for stream in (*self.sources.values(), *self.groups.values()):
            stream.settle()
            if since < 0 or since > max(LONGEST_TICK_S, LONGER * self._step):
                stream.habit.away(since)
            stream.habit.look(now, stream.spoke)
            stream.spoke = False
        self._step = 0.0 if math.isnan(since) else since

    def reading(self, now: float, absent: frozenset[str] = frozenset()) -> Reading:
        """The counters under the agent's own metric names; sources named in `absent` are left out."""
        reading: Reading = {}
        present = {name: stream for name, stream in self.sources.items() if name not in absent}
        for infix, streams in (("", present), ("group_", self.groups)):
            for name, stream in streams.items():
                for what in COUNTED:
                    reading[f"{PREFIX}{infix}{what}_total", name] = getattr(stream, what)
                silence = stream.habit.silence(now)
                if not math.isnan(silence):
                    reading[f"{PREFIX}{infix}silence_seconds", name] = silence
        if present:
            reading[f"{PREFIX}new_templates_total", ""] = float(self.miner.created)
            reading[f"{PREFIX}templates", ""] = float(len(self.miner))
        return reading

    def state(self) -> dict[str, object]:
        """Everything as plain JSON values, bounded in size."""
        return {
            "sources": {name: _plain(stream) for name, stream in self.sources.items()},
            "groups": {name: _plain(stream) for name, stream in self.groups.items()},
            "miner": self.miner.state(),
            "unmined": self.unmined,
            "looked": None if math.isnan(self._looked) else self._looked,
        }

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from a saved state, as far as the same streams are configured; False if it is none."""
        try:
            saved = [_streams(state["sources"]), _streams(state["groups"])]
            miner, unmined = state["miner"], state["unmined"]
            looked = state.get("looked")  # not of an older agent
            if not isinstance(miner, Mapping) or not isinstance(unmined, int):
                return False
            if looked is not None and not (isinstance(looked, float | int) and abs(looked) < MAX_TIME):
                return False
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
        if not self.miner.restore(miner):
            return False
        self.unmined = unmined
        self._looked = math.nan if looked is None else float(looked)
        for ours, theirs in zip((self.sources, self.groups), saved, strict=True):
            ours.update({name: stream for name, stream in theirs.items() if name in ours})
        return True


def _pieces(data: bytes) -> Iterator[bytes]:
    """Whole lines of about PIECE_BYTES each."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + PIECE_BYTES) + 1 or len(data)
        yield data[start:end]
        start = end


def _plain(stream: Stream) -> list[float | None]:
    habit = stream.habit
    spoke = None if math.isnan(habit.spoke) else habit.spoke
    return [stream.lines, stream.bytes, stream.errors, stream.warnings, habit.longest, habit.gaps, spoke]


def _streams(value: object) -> dict[str, Stream]:
    """Saved streams by name; KeyError, TypeError or ValueError if they are none."""
    if not isinstance(value, dict) or len(value) > MAX_KEYS:
        raise TypeError("not streams")
    streams = {}
    for name, row in value.items():
        *numbers, spoke = row
        lines, size, errors, warnings, longest, gaps = (float(number) for number in numbers)
        if not all(0.0 <= number < math.inf for number in (lines, size, errors, warnings, longest, gaps)):
            raise ValueError("not counters")
        habit = Habit(longest, int(gaps), math.nan if spoke is None else float(spoke))
        streams[str(name)] = Stream(lines, size, errors, warnings, habit)
    return streams
