"""Puts the log sources of a host together from the settings; imported only where logs are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from pathlib import Path

from node_anomaly_agent.config_logs import LogsConfig
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.logs.containers import ContainerSource
from node_anomaly_agent.logs.discovery import Pattern
from node_anomaly_agent.logs.files import FileSource
from node_anomaly_agent.logs.journald import JournaldSource
from node_anomaly_agent.logs.meter import LogMeter
from node_anomaly_agent.logs.source import LogSource

USUAL_FILES = ("/var/log/syslog", "/var/log/auth.log", "/var/log/messages", "/var/log/secure")
"""Read where no journal can be: what rsyslog writes on Debian and on RHEL; kern.log is in syslog already."""

Chooser = Callable[[str], str | None]
"""The group of a path or a unit, "" for none, and None for one that is not to be read."""


def build_logs(settings: LogsConfig, rootfs: Path, log: Log | None = None) -> LogMeter | None:
    """The meter of this host's logs, None if none are to be read. Opens nothing yet.

    All paths and globs are the host's, below `rootfs`.
    """
    if not settings.enabled:
        return None
    sources: list[LogSource] = []
    root = str(rootfs).rstrip("/")
    journal = JournaldSource(rootfs, chooser(settings, paths=False))
    by_path = _below(root, chooser(settings, paths=True))
    readable = settings.journald is not False and journal.available()
    files = settings.files
    if files is None:  # the system's own hold what the journal holds
        files = () if readable else USUAL_FILES
    if settings.journald is not False:
        sources.append(journal)
    if files:
        sources.append(FileSource([Pattern(root + glob) for glob in files], group_of=by_path))
    if settings.containers is not False:
        sources.append(ContainerSource(f"{root}/var/log", group_of=by_path))
    groups = tuple(name for name, _ in settings.groups)
    return LogMeter(sources, groups, settings.max_s, settings.max_bytes, log)


def chooser(settings: LogsConfig, *, paths: bool) -> Chooser | None:
    """Which group a path or a unit is in, by the first that matches; None where no setting speaks of them.

    Patterns with a slash are paths, others units: neither admits or shuts out one of the other kind.
    """

    def matcher(patterns: tuple[str, ...]) -> Callable[[str], object] | None:
        mine = [translate(pattern) for pattern in patterns if ("/" in pattern) == paths]
        return re.compile("|".join(mine)).match if mine else None

    include, exclude = matcher(settings.include), matcher(settings.exclude)
    groups = [(name, match) for name, patterns in settings.groups if (match := matcher(patterns))]
    if not include and not exclude and not groups:
        return None

    def choose(name: str) -> str | None:
        if (include and not include(name)) or (exclude and exclude(name)):
            return None
        return next((group for group, match in groups if match(name)), "")

    return choose


def _below(root: str, choose: Chooser | None) -> Chooser | None:
    """The same choice for paths as this process sees them."""
    if choose is None or not root:
        return choose
    return lambda path: choose(path.removeprefix(root))
