"""A time as people read it."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(seconds: float) -> str:
    """Unix seconds as ISO 8601 in UTC, to the minute."""
    return f"{datetime.fromtimestamp(float(seconds), UTC):%Y-%m-%d %H:%M}Z"
