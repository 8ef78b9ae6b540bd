"""Settings of the `episodes` group: when an episode ends, what is kept of it, and when none begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from node_anomaly_agent.config_logs import byte_count
from node_anomaly_agent.config_values import InvalidValue, Setting, between, format_duration
from node_anomaly_agent.quiet import QuietWindow, parse_window

MAX_WINDOWS = 32


@dataclass(frozen=True, slots=True)
class EpisodesConfig:
    """How alarms are recorded.

    Attributes:
        end_after_s: how long the score has to stay below 1 for an episode to be over.
        flight_ticks: ticks recorded before and after the start.
        max_count: episodes that are kept.
        max_bytes: what their files may take together.
        quiet: when no episode begins.
    """

    end_after_s: float = 300.0
    flight_ticks: int = 20
    max_count: int = 200
    max_bytes: int = 16 << 20
    quiet: tuple[QuietWindow, ...] = ()

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> EpisodesConfig:
        """From the parsed values of all settings."""
        return cls(
            end_after_s=parsed["episodes.end-after"],
            flight_ticks=parsed["episodes.flight-ticks"],
            max_count=parsed["episodes.max-count"],
            max_bytes=parsed["episodes.max-size"],
            quiet=parsed["episodes.quiet"],
        )

    def is_quiet(self, now: float) -> bool:
        """Whether no episode is to begin at unix `now`."""
        return any(window.holds(now) for window in self.quiet)


def whole_number(low: int, high: int) -> Callable[[object], int]:
    """A whole number within these limits."""

    def parse(value: object) -> int:
        text = str(value).strip()
        digits = not isinstance(value, bool) and text.isascii() and text.isdigit() and len(text) < 10
        if not digits or not low <= int(text) <= high:
            raise InvalidValue(f"expected a whole number from {low} to {high}, got {value!r}")
        return int(text)

    return parse


def quiet_windows(value: object) -> tuple[QuietWindow, ...]:
    """A window or a list of them."""
    texts = value if isinstance(value, list | tuple) else [value]
    if len(texts) > MAX_WINDOWS:
        raise InvalidValue(f"at most {MAX_WINDOWS} windows, got {len(texts)}")
    return tuple(parse_window(text) for text in texts)


ROWS: tuple[Setting, ...] = (
    Setting(
        "episodes.end-after",
        between(1, 86400),
        300.0,
        "an episode is over when the score has stayed below 1 for so long",
        "DURATION",
    ),
    Setting(
        "episodes.flight-ticks",
        whole_number(0, 240),
        20,
        "evaluations recorded before and after the start of an episode",
        "N",
    ),
    Setting("episodes.max-count", whole_number(1, 10000), 200, "episodes that are kept", "N"),
    Setting(
        "episodes.max-size",
        byte_count,
        16 << 20,
        "what all episodes may take on disk, from 64KiB to 256MiB; the oldest go",
        "SIZE",
    ),
    Setting(
        "episodes.quiet",
        quiet_windows,
        (),
        "when no episode begins, such as 'sat,sun 02:00-04:00 Europe/Berlin' (UTC without a zone); "
        "may be given several times",
        "WINDOW",
        repeat=True,
    ),
)


def describe_episodes(config: EpisodesConfig) -> list[tuple[str, object]]:
    """Rows for check-config."""
    return [
        ("episodes.end-after", format_duration(config.end_after_s)),
        ("episodes.flight-ticks", config.flight_ticks),
        ("episodes kept", f"{config.max_count}, within {config.max_bytes >> 10} KiB"),
        *([("episodes.quiet", "; ".join(map(str, config.quiet)))] if config.quiet else []),
    ]
