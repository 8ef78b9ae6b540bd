"""Old log lines with their times: syslog, ISO 8601, klog, common log format, CRI, and journald's JSON."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from node_anomaly_core.errors import SourceError
from node_anomaly_core.log_severity import UNKNOWN

MAX_LINE_BYTES = 16_384
YEAR_END_S = 86_400.0 * 40
"""A time without a year that lies further ahead than this of the file's own belongs to the year before."""

_ISO = re.compile(
    rb"(?:^|[\s\[\"=])(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\d*(Z| ?[+-]\d\d:?\d\d(?!\d))?"
)
_SYSLOG = re.compile(rb"(?:<\d{1,3}>)?([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)")
_KLOG = re.compile(rb"[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)")
_COMMON = re.compile(rb"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
_CRI = re.compile(rb"\S+ (?:stdout|stderr) [FP](?::\S*)? ?")
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class LogLine(NamedTuple):
    """One line: unix seconds (UTC where it names no offset), the message, its severity or UNKNOWN."""

    time: float
    message: bytes
    severity: int


def read_lines(path: Path) -> Iterator[LogLine]:
    """The lines of a file, plain or gzip, in its order; one without a time has that of the line before.

    Lines before the first time are left out. Raises SourceError for an unreadable file, or without times.
    """
    latest, untimed = math.nan, 0
    try:
        written = path.stat().st_mtime
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for raw in file:
                line = _parse(raw[:MAX_LINE_BYTES].rstrip(b"\r\n"), written)
                if not math.isnan(line.time):
                    latest = line.time
                if math.isnan(latest):
                    untimed += 1
                else:
                    yield line._replace(time=latest)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: {error}", "name existing log files, plain or gzip") from error
    if untimed and math.isnan(latest):
        known = "syslog, ISO 8601, klog, common log format, CRI or journalctl -o json"
        raise SourceError(f"{path}: no line has a time", f"lines are expected to begin with one: {known}")


def _parse(line: bytes, written: float) -> LogLine:
    if line.startswith(b"{") and b'"__REALTIME_TIMESTAMP"' in line:
        return _journal(line)
    cri = _CRI.match(line)
    return LogLine(line_time(line, written), line[cri.end() :] if cri else line, UNKNOWN)


def _journal(line: bytes) -> LogLine:
    """One object of `journalctl -o json`; a message that is no text is an array of bytes."""
    try:
        entry = json.loads(line)
        when = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        message = entry.get("MESSAGE") or ""
        text = bytes(message) if isinstance(message, list) else str(message).encode()
        level = str(entry.get("PRIORITY", ""))
    except (ValueError, KeyError, TypeError):
        return LogLine(math.nan, line, UNKNOWN)
    known = int(level) if len(level) == 1 and level in "01234567" else UNKNOWN
    return LogLine(when, text.replace(b"\n", b" ")[:MAX_LINE_BYTES], known)


def line_time(line: bytes, written: float) -> float:
    """Unix seconds of a line, NaN if it has no time; `written` tells the year where it names none."""
    head = line[:200]
    try:
        if match := _SYSLOG.match(head):
            month = _MONTHS.index(match[1]) + 1
            return _without_year(month, *(int(match[at]) for at in (2, 3, 4, 5)), written=written)
        if match := _KLOG.match(head):
            return _without_year(*(int(match[at]) for at in (1, 2, 3, 4, 5)), written=written)
        if match := _ISO.search(head):
            zone = match[3].decode().strip().replace("Z", "+00:00") if match[3] else "+00:00"
            whole = datetime.fromisoformat(match[1].decode().replace(" ", "T") + zone).timestamp()
            return whole + (float(b"0." + match[2]) if match[2] else 0.0)
        if match := _COMMON.search(head):
            return datetime.strptime(match[1].decode(), "%d/%b/%Y:%H:%M:%S %z").timestamp()
    except (ValueError, OverflowError):
        pass
    return math.nan


def _without_year(month: int, day: int, hour: int, minute: int, second: int, *, written: float) -> float:
    year = datetime.fromtimestamp(written, UTC).year
    rest = (month, day, hour, minute, min(second, 59))
    with suppress(ValueError):  # the 29th of February of another year
        found = datetime(year, *rest, tzinfo=UTC).timestamp()
        if found <= written + YEAR_END_S:
            return found
    return datetime(year - 1, *rest, tzinfo=UTC).timestamp()
