"""Settings of the `collector.logs` group: which logs are read, and how much a tick may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from node_anomaly_agent.config_values import InvalidValue, Setting, between, switch

AUTO = "auto"
MAX_PATTERNS = 64
MAX_GROUPS = 16
_GROUP = re.compile(r"([a-z][a-z0-9_]{0,31})=(.+)")

Group = tuple[str, tuple[str, ...]]
"""A name, and the patterns of the paths and units that belong to it."""


@dataclass(frozen=True, slots=True)
class LogsConfig:
    """Which logs to read.

    Attributes:
        files: globs of log files; None reads the system's usual ones where its journal cannot be read.
        journald: True, False, or None for a journal if there is one.
        containers: the same for Kubernetes' container logs.
        include: patterns of the paths and units to read; all, if there are none.
        exclude: patterns of those not to read.
        groups: streams to count by themselves too; the first that matches has the stream.
        max_s: seconds that one tick may spend on logs.
        max_bytes: bytes whose lines are looked at in one tick; beyond it they are counted.
    """

    files: tuple[str, ...] | None = None
    journald: bool | None = None
    containers: bool | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    max_s: float = 0.25
    max_bytes: int = 4 << 20

    @property
    def enabled(self) -> bool:
        """Whether any log is read."""
        return self.files != () or self.journald is not False or self.containers is not False

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> LogsConfig:
        """From the parsed values of all settings."""
        return cls(
            files=parsed["collector.logs.files"],
            journald=parsed["collector.logs.journald"],
            containers=parsed["collector.logs.containers"],
            include=parsed["collector.logs.include"],
            exclude=parsed["collector.logs.exclude"],
            groups=parsed["collector.logs.groups"],
            max_s=parsed["collector.logs.max-time"],
            max_bytes=parsed["collector.logs.max-bytes"],
        )


def describe_logs(settings: LogsConfig) -> list[tuple[str, object]]:
    """What check-config prints of it."""
    shown = {None: AUTO, True: "on", False: "off"}
    files = AUTO if settings.files is None else ", ".join(settings.files) or "off"
    rows: list[tuple[str, object]] = [
        ("collector.logs.files", files),
        ("collector.logs.journald", shown[settings.journald]),
        ("collector.logs.containers", shown[settings.containers]),
    ]
    for name, patterns in (("include", settings.include), ("exclude", settings.exclude)):
        if patterns:
            rows.append((f"collector.logs.{name}", ", ".join(patterns)))
    if settings.groups:
        groups = "; ".join(f"{name}={','.join(patterns)}" for name, patterns in settings.groups)
        rows.append(("collector.logs.groups", groups))
    return rows


def _texts(value: object, what: str) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) and item for item in items):
        raise InvalidValue(f"expected {what} or a list of them, got {value!r}")
    if len(items) > MAX_PATTERNS:
        raise InvalidValue(f"expected at most {MAX_PATTERNS}, got {len(items)}")
    return tuple(items)


def file_globs(value: object) -> tuple[str, ...] | None:
    """Absolute globs; `auto`, or false and an empty list for none."""
    if value == AUTO:
        return None
    if value is False or value == "off":
        return ()
    if value in (["off"], []):
        return ()
    globs = _texts(value, "an absolute glob such as /var/log/app/*.log")
    for glob in globs:
        if not glob.startswith("/") or "\0" in glob:
            raise InvalidValue(f"expected an absolute glob such as /var/log/app/*.log, got {glob!r}")
    return globs


def maybe(value: object) -> bool | None:
    """A switch, or `auto`."""
    return None if value == AUTO else switch(value)


def patterns(value: object) -> tuple[str, ...]:
    """Shell patterns of paths and units."""
    return _texts(value, "a pattern such as nginx*.service or /var/log/nginx/*")


def log_groups(value: object) -> tuple[Group, ...]:
    """`NAME=PATTERN,PATTERN` for each group."""
    found: dict[str, tuple[str, ...]] = {}
    for text in _texts(value, "NAME=PATTERN,PATTERN"):
        match = _GROUP.fullmatch(text)
        if not match:
            raise InvalidValue(f"expected NAME=PATTERN,PATTERN with a name of a-z, 0-9 and _, got {text!r}")
        if match[1] in found:
            raise InvalidValue(f"group {match[1]} is given twice")
        found[match[1]] = tuple(part.strip() for part in match[2].split(",") if part.strip())
    if len(found) > MAX_GROUPS:
        raise InvalidValue(f"expected at most {MAX_GROUPS} groups, got {len(found)}")
    return tuple(found.items())


def byte_count(value: object) -> int:
    """Bytes, from 64 KiB to 256 MiB, plain or with KiB or MiB."""
    match = re.fullmatch(r"(\d{1,12})\s*(|KiB|MiB)", str(value))
    size = int(match[1]) << {"": 0, "KiB": 10, "MiB": 20}[match[2]] if match else 0
    if isinstance(value, bool) or not 64 << 10 <= size <= 256 << 20:
        raise InvalidValue(f"expected 64KiB to 256MiB, got {value!r}")
    return size


ROWS: tuple[Setting, ...] = (
    Setting(
        "collector.logs.files",
        file_globs,
        None,
        "read the files of this glob, may be repeated (default: the system's, where no journal is readable)",
        "GLOB",
        repeat=True,
    ),
    Setting("collector.logs.journald", maybe, None, "read the systemd journal (default: if there is one)"),
    Setting(
        "collector.logs.containers",
        maybe,
        None,
        "read Kubernetes' container logs (default: if there are any)",
    ),
    Setting(
        "collector.logs.include", patterns, (), "read only these paths and units", "PATTERN", repeat=True
    ),
    Setting("collector.logs.exclude", patterns, (), "do not read these", "PATTERN", repeat=True),
    Setting(
        "collector.logs.groups",
        log_groups,
        (),
        "count these paths and units by themselves too, may be repeated",
        "NAME=PATTERN,...",
        repeat=True,
    ),
    Setting("collector.logs.max-time", between(0.01, 10), 0.25, "time a tick may spend on logs", "DURATION"),
    Setting(
        "collector.logs.max-bytes",
        byte_count,
        4 << 20,
        "bytes whose lines are looked at in a tick; beyond it they are counted",
        "BYTES",
    ),
)
