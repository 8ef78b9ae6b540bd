"""Puts the log sources of a host together from the settings; imported only where logs are read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from pathlib import Path

from node_anomaly_agent.config_logs import LogsConfig
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.logs.journald import GroupOf, JournaldSource
from node_anomaly_agent.logs.meter import LogMeter
from node_anomaly_agent.logs.source import LogSource

Match = Callable[[str], object]

USUAL_FILES = ("var/log/syslog", "var/log/auth.log", "var/log/messages", "var/log/secure")
"""Read where no journal can be: what rsyslog writes on Debian and on RHEL; kern.log is in syslog already."""


def build_logs(settings: LogsConfig, rootfs: Path, log: Log | None = None) -> LogMeter | None:
    """The meter of this host's logs, None if none are to be read. Opens nothing yet."""
    if not settings.enabled:
        return None
    sources: list[LogSource] = []
    journal = JournaldSource(rootfs, unit_groups(settings))
    readable = journal.available()
    if settings.journald or (settings.journald is None and (readable or not settings.files)):
        sources.append(journal)
    files = settings.files
    if files is None:
        files = () if readable and settings.journald is not False else _below(rootfs, USUAL_FILES)
    # FILES
    groups = tuple(name for name, _ in settings.groups)
    return LogMeter(sources, groups, settings.max_s, settings.max_bytes, log)


def _below(rootfs: Path, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(rootfs / path) for path in paths)


def unit_groups(settings: LogsConfig) -> GroupOf | None:
    """Which group a unit is in, None if it is not to be read; no function at all if units play no part."""
    # Patterns with a slash are paths: they neither admit nor shut out a unit.
    include = _matchers(pattern for pattern in settings.include if "/" not in pattern)
    exclude = _matchers(pattern for pattern in settings.exclude if "/" not in pattern)
    groups = [
        (name, _matchers(pattern for pattern in patterns if "/" not in pattern))
        for name, patterns in settings.groups
    ]
    if not include and not exclude and not any(matchers for _, matchers in groups):
        return None

    def group_of(unit: str) -> str | None:
        if include and not any(match(unit) for match in include):
            return None
        if any(match(unit) for match in exclude):
            return None
        return next((name for name, some in groups if any(match(unit) for match in some)), "")

    return group_of


def _matchers(patterns: Iterable[str]) -> list[Match]:
    return [re.compile(translate(pattern)).match for pattern in patterns]
