"""What a scrape shows of the logs: counts alone, never a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from node_anomaly_agent.families import Family, counter, gauge, plain_counter, plain_gauge
from node_anomaly_core.expressions import SeriesKey

DROP_REASONS = ("unread", "estimated", "late")
"""Lines only counted: for want of time or bytes in a tick; those whose number or size was reckoned; and those
that were written while no agent ran."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The counters of one source or group."""

    lines: float = 0.0
    bytes: float = 0.0
    errors: float = 0.0
    warnings: float = 0.0


@dataclass(frozen=True, slots=True)
class LogStatus:
    """The counters after a tick.

    Attributes:
        sources: by name, whether it could be read, whether the host lacks it, and its open streams.
        counted: counters by source; only of those that could be read.
        groups: counters by configured group.
        silences: seconds of unusual silence by metric and source or group; absent where nothing is usual yet.
        dropped: lines not looked at, by each of DROP_REASONS.
    """

    sources: Mapping[str, tuple[bool, bool, int]] = field(default_factory=dict)
    counted: Mapping[str, Counted] = field(default_factory=dict)
    groups: Mapping[str, Counted] = field(default_factory=dict)
    silences: Mapping[SeriesKey, float] = field(default_factory=dict)
    templates: int = 0
    new_templates: int = 0
    unmined: int = 0
    dropped: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(DROP_REASONS, 0.0))


_TEXTS = {
    "lines": "Complete lines that were logged",
    "bytes": "Bytes of lines that were logged",
    "errors": "Lines of severity error or worse",
    "warnings": "Lines of severity warning",
}
_SILENCE = "Seconds that a {} which normally logs has been silent beyond its longest usual gap."


def log_families(status: LogStatus) -> Iterator[Family]:
    """The families of the logs; none on a host where nothing is read."""
    if not status.sources:
        return
    yield gauge(
        "anomaly_agent_log_source_success",
        "Whether a source of logs could be read; absent where the host has none.",
        ((name, success) for name, (success, missing, _) in status.sources.items() if not missing),
        "source",
    )
    yield gauge(
        "anomaly_agent_log_source_missing",
        "Whether the host has no such logs.",
        ((name, missing) for name, (_, missing, _) in status.sources.items()),
        "source",
    )
    yield gauge(
        "anomaly_agent_log_streams",
        "Streams that a source reads: open files, or 1 for the journal.",
        ((name, streams) for name, (success, _, streams) in status.sources.items() if success),
        "source",
    )
    for what, text in _TEXTS.items():
        for infix, label, table in (("", "source", status.counted), ("group_", "group", status.groups)):
            samples = ((name, getattr(counted, what)) for name, counted in table.items())
            yield counter(f"anomaly_agent_log_{infix}{what}", f"{text}, by {label}.", samples, label)
    for infix, label in (("", "source"), ("group_", "group")):
        name = f"anomaly_agent_log_{infix}silence_seconds"
        samples = ((key, value) for (metric, key), value in status.silences.items() if metric == name)
        yield gauge(name, _SILENCE.format(label), samples, label)
    if status.counted:
        yield plain_counter(
            "anomaly_agent_log_new_templates",
            "Patterns of lines that had not been seen before.",
            status.new_templates,
        )
        yield plain_gauge(
            "anomaly_agent_log_templates", "Patterns of lines that are known.", status.templates
        )
    yield plain_counter(
        "anomaly_agent_log_lines_unmined",
        "Lines whose pattern was not looked for, for want of time: while it grows, patterns are sampled.",
        status.unmined,
    )
    yield counter(
        "anomaly_agent_log_lines_dropped",
        "Lines counted but not looked at: unread, estimated from bytes, or written while no agent ran.",
        status.dropped.items(),
        "reason",
    )
