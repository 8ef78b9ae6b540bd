"""Quiet windows: times of the week in which no episode begins, `mon-fri 22:00-06:00 Europe/Berlin`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from node_anomaly_agent.config_values import InvalidValue

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_WINDOW = re.compile(
    r"(?P<days>[a-z,-]+)\s+(?P<from>\d{2}:\d{2})-(?P<to>\d{2}:\d{2})(?:\s+(?P<zone>[A-Za-z0-9_+/-]+))?",
    re.IGNORECASE,
)
_SHAPE = (
    "expected DAYS HH:MM-HH:MM [ZONE], such as 'daily 02:00-04:00' or 'mon-fri,sun 22:00-06:00 Europe/Berlin'"
)


@dataclass(frozen=True, slots=True)
class QuietWindow:
    """A time of the week, by the clock on the wall of its zone.

    Attributes:
        text: as it was written.
        days: 0 = Monday; the days on which it begins.
        start: minutes after midnight.
        end: the same; at or before `start` it ends on the next day.
        zone: whose wall.
    """

    text: str
    days: frozenset[int]
    start: int
    end: int
    zone: tzinfo

    def __str__(self) -> str:
        return self.text

    def holds(self, now: float) -> bool:
        """Whether unix `now` is in it."""
        local = datetime.fromtimestamp(now, self.zone)
        minute = 60 * local.hour + local.minute
        if self.start < self.end:
            return local.weekday() in self.days and self.start <= minute < self.end
        yesterday = (local - timedelta(days=1)).weekday()
        return (local.weekday() in self.days and minute >= self.start) or (
            yesterday in self.days and minute < self.end
        )


def parse_window(value: object) -> QuietWindow:
    """Read one; raises InvalidValue with what it should look like."""
    match = _WINDOW.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise InvalidValue(f"{_SHAPE}, got {value!r}")
    return QuietWindow(
        match[0],
        _days(match["days"]),
        _minute(match["from"], 0),
        _minute(match["to"], 1),
        _zone(match["zone"]),
    )


def _days(text: str) -> frozenset[int]:
    if text.lower() == "daily":
        return frozenset(range(7))
    found: set[int] = set()
    for item in text.lower().split(","):
        first, dash, last = item.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise InvalidValue(f"expected days such as daily, sat,sun or mon-fri, got {item!r}")
        at, to = DAYS.index(first), DAYS.index(last)
        found |= {(at + step) % 7 for step in range((to - at) % 7 + 1)}
    return frozenset(found)


def _minute(text: str, midnight: int) -> int:
    """Minutes after midnight; 24:00 is one where `midnight` allows it."""
    hour, minute = int(text[:2]), int(text[3:])
    if minute > 59 or hour > 23 + (midnight if minute == 0 else 0):
        raise InvalidValue(f"expected a time from 00:00 to 23:59, got {text!r}")
    return 60 * hour + minute


def _zone(name: str | None) -> tzinfo:
    if name is None or name.upper() == "UTC":
        return UTC
    from zoneinfo import ZoneInfo  # its memory is for those who name a zone

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise InvalidValue(
            f"unknown time zone {name!r}: use UTC or a name such as Europe/Berlin from the host's tzdata"
        ) from error
