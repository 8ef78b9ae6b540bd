"""One episode: an alarm of this node from its begin to its end, with why, and its form on disk.

The file is JSON that people and programs may read. It holds numbers, names of features and of processes,
never a line of a log and never a command line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from node_anomaly_agent.snapshot import Reason
from node_anomaly_core.errors import AnomalyError
from node_anomaly_core.manifest_reader import LATEST

FORMAT_VERSION = 1
MAX_EPISODE_BYTES = 1 << 20
TOP_REASONS = 8
MAX_PROCESSES = 64
MAX_FLIGHT_TICKS = 512

ID_PATTERN = re.compile(r"\d{8}T\d{6}Z")

ENDS = ("recovered", "outgrown", "no_score")
"""How an episode ended: what was odd went away, the threshold rose over it, or no score told."""


class EpisodeError(AnomalyError):
    """An episode that cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One feature's part in the score, in the feature's own unit; NaN = unknown."""

    feature: str
    unit: str
    share: float
    direction: str
    observed: float
    expected: float

    @classmethod
    def of(cls, reason: Reason) -> Cause:
        """From what the snapshot says."""
        direction = ""
        if reason.observed > reason.expected:
            direction = "above"
        elif reason.observed < reason.expected:
            direction = "below"
        unit = reason.feature.unit
        return cls(reason.feature.name, unit, reason.share, direction, reason.observed, reason.expected)


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one process used around the start: cores, bytes resident, bytes per second of disk; NaN = unknown.

    `name` is the kernel's (15 bytes at most), not the command line, which may hold secrets.
    """

    pid: int
    name: str
    cpu_cores: float
    resident_bytes: float
    io_bytes_per_second: float


@dataclass(frozen=True, slots=True)
class Flight:
    """The features around the start: `rows` (t, f) at unix `times` (t,) with `scores` (t,); NaN = unknown."""

    features: tuple[str, ...] = ()
    times: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Episode:
    """One alarm. Times are unix seconds.

    Attributes:
        id: its start in UTC, which is also the name of its file.
        start: the first of the three ticks that made the alarm.
        last: the latest tick with a score of 1 or more.
        end: `last`, once the episode is over; NaN while it goes on.
        ended: one of ENDS, or empty while it goes on.
        peak: the highest score so far.
        start_reasons: the largest shares at the tick that completed the alarm.
        peak_reasons: the same at `peak_time`.
        threshold_ratio: the node's own threshold at the start, as a multiple of what training promised.
        new_log_templates: patterns of log lines not seen before, within the flight record.
        processes: those that used most at the start.
    """

    id: str
    start: float
    last: float
    peak: float
    peak_time: float
    start_reasons: tuple[Cause, ...]
    peak_reasons: tuple[Cause, ...]
    bundle_version: str
    threshold_ratio: float
    end: float = math.nan
    ended: str = ""
    new_log_templates: int = 0
    processes: tuple[ProcessUse, ...] = ()
    flight: Flight = field(default_factory=Flight)

    @property
    def ongoing(self) -> bool:
        """Whether it is not over."""
        return not self.ended


def episode_id(start: float) -> str:
    """The name of an episode that began at unix `start`."""
    return datetime.fromtimestamp(start, UTC).strftime("%Y%m%dT%H%M%SZ")


def document(episode: Episode) -> dict[str, object]:
    """Everything but the flight record, JSON-able; what is not known is None."""
    return {
        "format_version": FORMAT_VERSION,
        "id": episode.id,
        "start": episode.start,
        "last": episode.last,
        "end": _number(episode.end),
        "ended": episode.ended,
        "peak": episode.peak,
        "peak_time": episode.peak_time,
        "bundle_version": episode.bundle_version,
        "threshold_ratio": _number(episode.threshold_ratio),
        "new_log_templates": episode.new_log_templates,
        "start_reasons": [_fields(cause) for cause in episode.start_reasons],
        "peak_reasons": [_fields(cause) for cause in episode.peak_reasons],
        "processes": [_fields(process) for process in episode.processes],
    }


def encode(episode: Episode) -> bytes:
    """The content of a file, at most MAX_EPISODE_BYTES: rows far from the start are left out beyond that."""
    flight = episode.flight
    while True:
        table = {
            "features": list(flight.features),
            "times": list(flight.times),
            "scores": [_number(score) for score in flight.scores],
            "rows": [[_number(float(f"{value:.6g}")) for value in row] for row in flight.rows],
        }
        whole = {**document(episode), "flight": table}
        content = json.dumps(whole, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if len(content) <= MAX_EPISODE_BYTES or not flight.rows:
            return content
        flight = _shorter(flight, episode.start)


def decode(content: bytes) -> Episode:
    """Read a file's content back. Raises EpisodeError, and nothing else, whatever the bytes are."""
    try:
        read = json.loads(content.decode())
        if read["format_version"] != FORMAT_VERSION:
            raise EpisodeError(f"its format version {read['format_version']} is not {FORMAT_VERSION}")
        return _checked(read)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EpisodeError(f"it does not hold what an episode's file holds ({error!r})") from error


def _checked(read: Mapping[str, Any]) -> Episode:
    table = read["flight"]
    features, times, scores = (tuple(table[name]) for name in ("features", "times", "scores"))
    rows = tuple(tuple(map(_known, row)) for row in table["rows"])
    if not len(times) == len(scores) == len(rows) <= MAX_FLIGHT_TICKS:
        raise ValueError("a flight record of unequal length")
    if any(len(row) != len(features) for row in rows) or not all(isinstance(name, str) for name in features):
        raise ValueError("a flight record with rows that do not fit its features")
    flight = Flight(features, tuple(map(_time, times)), tuple(map(_known, scores)), rows)
    if not ID_PATTERN.fullmatch(read["id"]) or read["ended"] not in ("", *ENDS):
        raise ValueError("an unknown id or end")
    return Episode(
        id=read["id"],
        start=_time(read["start"]),
        last=_time(read["last"]),
        end=math.nan if read["end"] is None else _time(read["end"]),
        ended=read["ended"],
        peak=_finite(read["peak"]),
        peak_time=_time(read["peak_time"]),
        bundle_version=str(read["bundle_version"]),
        threshold_ratio=_known(read["threshold_ratio"]),
        new_log_templates=int(read["new_log_templates"]),
        start_reasons=_causes(read["start_reasons"]),
        peak_reasons=_causes(read["peak_reasons"]),
        processes=tuple(
            ProcessUse(
                int(one["pid"]),
                str(one["name"]),
                *(_known(one[name]) for name in ("cpu_cores", "resident_bytes", "io_bytes_per_second")),
            )
            for one in read["processes"][:MAX_PROCESSES]
        ),
        flight=flight,
    )


def _causes(read: Sequence[Mapping[str, Any]]) -> tuple[Cause, ...]:
    return tuple(
        Cause(
            str(one["feature"]),
            str(one["unit"]),
            _known(one["share"]),
            str(one["direction"]),
            _known(one["observed"]),
            _known(one["expected"]),
        )
        for one in read[:TOP_REASONS]
    )


def _fields(one: Cause | ProcessUse) -> dict[str, object]:
    values = ((name, getattr(one, name)) for name in one.__slots__)
    return {name: _number(value) if isinstance(value, float) else value for name, value in values}


def _shorter(flight: Flight, start: float) -> Flight:
    """The half of the rows that is nearest to the start."""
    order = sorted(range(len(flight.times)), key=lambda at: abs(flight.times[at] - start))
    kept = sorted(order[: len(order) // 2])
    times, scores, rows = (
        tuple(column[at] for at in kept) for column in (flight.times, flight.scores, flight.rows)
    )
    return Flight(flight.features, times, scores, rows)  # type: ignore[arg-type]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _known(value: object) -> float:
    return math.nan if value is None else _finite(value)


def _time(value: object) -> float:
    """Unix seconds that can be shown as a date."""
    seconds = _finite(value)
    if not 0 <= seconds < LATEST:
        raise ValueError(f"{value!r} is no time")
    return seconds


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
