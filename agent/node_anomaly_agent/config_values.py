"""What a setting's value may look like: a parser for each kind, raising InvalidValue with what it expects."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TELEMETRY_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_RESERVED_PATHS = ("/-/healthy", "/-/ready", "/-/reload")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class InvalidValue(ValueError):  # noqa: N818  # it names the value, the loader makes the error of it
    """A value that its key cannot take; the message says what it should look like."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the web server listens; `host` is empty for every address of the machine."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its dotted path (also the flag), how its value is read, and what it means.

    The flag of one with `repeat` may be given several times; it then makes a list. One without a `metavar`
    takes no value: it is a switch, with a second flag that begins with `no-`.
    """

    path: str
    parse: Callable[[object], Any]
    default: Any
    help: str
    metavar: str = "VALUE"
    repeat: bool = False


def parse_duration(value: object) -> float:
    """Seconds from `15s`, `1m30s`, `500ms` or a plain number.

    Raises InvalidValue with what a duration looks like.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidValue(f"expected a duration such as 15s or 1m, got {value!r}")
    if isinstance(value, str):
        text = value.strip()
        parts = _DURATION.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise InvalidValue(f"expected a duration such as 15s or 1m, got {value!r}") from None
    if not math.isfinite(seconds):
        raise InvalidValue(f"expected a duration such as 15s or 1m, got {value!r}")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest spelling that `parse_duration` reads back."""
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{seconds / _SECONDS[unit]:.12g}{unit}"
    return f"{seconds:.12g}s"


def parse_address(value: object) -> Address:
    """An address such as `:9917`, `127.0.0.1:9917` or `[::1]:9917`; port 0 lets the system choose one."""
    if not isinstance(value, str):
        raise InvalidValue(f"expected HOST:PORT or :PORT, got {value!r}")
    host, colon, port = value.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or (":" in host and not bracketed):
        raise InvalidValue(f"expected HOST:PORT, [IPV6]:PORT or :PORT, got {value!r}")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidValue(f"expected a port from 0 to 65535 after the last colon, got {value!r}")
    return Address(host[1:-1] if bracketed else host, int(port))


def between(low: float, high: float) -> Callable[[object], float]:
    """A duration within these limits, in seconds."""

    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            limits = f"{format_duration(low)} to {format_duration(high)}"
            raise InvalidValue(f"must be from {limits}, got {value!r}")
        return seconds

    return parse


def one_of(*choices: str) -> Callable[[object], str]:
    """One of these words, in any case."""

    def parse(value: object) -> str:
        text = str(value).lower()
        if text not in choices:
            raise InvalidValue(f"must be one of {', '.join(choices)}, got {value!r}")
        return text

    return parse


def _names_a_file(text: str) -> bool:
    """Whether it could: YAML can say what the system takes in no path, a NUL or half a surrogate."""
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def absolute_path(value: object) -> Path:
    """An absolute path."""
    if not isinstance(value, str | Path) or not _names_a_file(str(value)):
        raise InvalidValue(f"expected a path, got {value!r}")
    path = Path(value)
    if not path.is_absolute():
        raise InvalidValue(f"expected an absolute path, got {str(value)!r}")
    return path


def flag_path(value: object) -> Path:
    """A path whose meaning must not depend on where the daemon was started, made absolute once."""
    if not isinstance(value, str | Path) or not _names_a_file(str(value)):
        raise InvalidValue(f"expected a directory, got {value!r}")
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # ~somebody
        raise InvalidValue(f"expected a path, got {value!r}, whose user has no home here") from None


def telemetry_path(value: object) -> str:
    """The path of a page, which no probe has already."""
    if not isinstance(value, str) or not _TELEMETRY_PATH.fullmatch(value):
        raise InvalidValue(f"expected a path such as /metrics, got {value!r}")
    if value in _RESERVED_PATHS:
        raise InvalidValue(f"{value} is taken by a probe")
    return value


def plain_name(value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidValue(f"expected a name, got {value!r}")
    return value.strip()


def switch(value: object) -> bool:
    """A truth value, or a word for it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise InvalidValue(f"expected true or false, got {value!r}")


def exporter_url(value: object) -> str:
    """The URL of a local exporter, such as http://127.0.0.1:9100/metrics."""
    from node_anomaly_core.own_features import url_problem  # its memory is for those who have an exporter

    if not isinstance(value, str):
        raise InvalidValue(f"expected http://HOST:PORT/PATH, got {value!r}")
    problem = url_problem(value)
    if problem:
        raise InvalidValue(problem)
    return value
