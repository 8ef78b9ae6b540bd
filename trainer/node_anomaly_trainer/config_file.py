"""The configuration as a file: every key at its default, with a comment; and what a file says, checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.config_comments import COMMENTS
from node_anomaly_trainer.config_environ import FROM_ENVIRONMENT
from node_anomaly_trainer.settings import Bounds
from node_anomaly_trainer.whole_file import write_whole

COLUMN = 32
"""Where comments begin, if the line is that short."""

WIDEST = 120

UNITS = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001))
HEADER = """\
# Every setting of anomaly-trainer with its default. A file holds only what differs:
#   anomaly-trainer train --config anomaly-trainer.yml
# Durations are written as in Prometheus: 15s, 10m, 1h30m, 14d. `anomaly-trainer config check` reads it.
"""


def commented() -> str:
    """A file with every key at its default; read back, it is the defaults."""
    return HEADER + "".join(f"{line}\n" for line in _lines(TrainConfig(), "", 0))


def write_commented(path: Path, *, force: bool) -> None:
    """Write that file. Raises ConfigError where one is in the way, or it cannot be written."""
    try:
        if path.exists() and not force:
            raise ConfigError(f"{path} exists already", "choose another --output, or say --force")
        write_whole(path, commented().encode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", "choose a writable --output") from error


def differences(config: TrainConfig) -> dict[str, str]:
    """Keys whose value is not the default, with that value as a file would have it."""
    return dict(_different(config, TrainConfig(), ""))


def _different(value: Any, default: Any, path: str) -> Iterator[tuple[str, str]]:
    hints = get_type_hints(type(value), include_extras=True)
    for entry in fields(value):
        one, other = getattr(value, entry.name), getattr(default, entry.name)
        at = f"{path}.{entry.name}" if path else entry.name
        if is_dataclass(one):
            yield from _different(one, other, at)
        elif one != other:
            yield at, _shown(one, hints[entry.name])


def _lines(value: Any, path: str, depth: int) -> Iterator[str]:
    hints = get_type_hints(type(value), include_extras=True)
    was_group = False
    for entry in fields(value):
        at = f"{path}.{entry.name}" if path else entry.name
        inner = getattr(value, entry.name)
        comment = COMMENTS[at]
        indent = "  " * depth
        grouped = is_dataclass(inner)
        if depth == 0 and (grouped or was_group):
            yield ""
        was_group = grouped
        shown = "" if grouped else f" {_shown(inner, hints[entry.name])}"
        # At its default it would still win over the environment: a variable that is set would go unheard.
        off = "# " if at in FROM_ENVIRONMENT else ""
        yield from _with_comment(f"{indent}{off}{entry.name}:{shown}", comment, indent)
        if grouped:
            yield from _lines(inner, at, depth + 1)


def _with_comment(line: str, comment: str, indent: str) -> Iterator[str]:
    """The comment behind the line, or above it where that would be too wide."""
    wide = f"{line:<{COLUMN - 1}} # {comment}"
    if comment and len(wide) > WIDEST:
        yield f"{indent}# {comment}"
        yield line
    else:
        yield wide if comment else line


def _shown(value: Any, hint: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(name)}: {_text(str(item))}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(item, (*get_args(hint), None)[0]) for item in value) + "]"
    if isinstance(value, float) and _is_duration(hint):
        return _duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: str) -> str:
    """As YAML has it, without quotes where it needs none."""
    plain = value.replace("_", "").replace("-", "").replace(".", "").replace("/", "").replace(":", "")
    needs_none = plain.isascii() and plain.isalnum() and not plain.isdigit() and ": " not in value
    if needs_none and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off"):
        return value
    return "'" + value.replace("'", "''") + "'"


def _is_duration(hint: Any) -> bool:
    return any(
        isinstance(rule, Bounds) and rule.duration
        for one in (hint, *get_args(hint))
        for rule in (getattr(one, "__metadata__", ()) if get_origin(hint) is not None else ())
    )


def _duration(seconds: float) -> str:
    if seconds == 0:
        return "0s"
    for unit, size in UNITS:
        count = seconds / size
        if math.isclose(count, round(count)) and round(count) >= 1:
            return f"{round(count)}{unit}"
    return f"{seconds:g}"
