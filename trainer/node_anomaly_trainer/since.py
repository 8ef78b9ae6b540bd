"""How far back a command looks, as it is typed."""

from __future__ import annotations

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.config import LONGEST_RANGE_S
from node_anomaly_trainer.settings import InvalidValueError, parse_duration


def seconds_since(since: str, example: str) -> float:
    """What --since says, in seconds. Raises ConfigError."""
    hint = f"for example --since {example}"
    try:
        seconds = parse_duration(since)
    except InvalidValueError as invalid:
        raise ConfigError(f"--since {since}: expected {invalid.expected}", hint) from None
    if not 60.0 <= seconds <= LONGEST_RANGE_S:
        raise ConfigError(
            f"--since {since}: expected 60 seconds to {LONGEST_RANGE_S / 86_400:.0f} days", hint
        )
    return seconds
