"""A YAML mapping -> a frozen dataclass, every key checked: the machinery under config.py."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import SplitResult, urlsplit

from node_anomaly_core.errors import ConfigError

T = TypeVar("T")

DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
EXPONENT = re.compile(r"[-+]?\d+[eE][-+]?\d+")
UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

LATEST_S = 7_258_118_400.0
"""The year 2200: what lies beyond is no time in seconds."""


class Bounds:
    """Annotation of a number: `low` <= value <= `high`, with an optional time unit in text form (`15s`)."""

    def __init__(self, low: float = -math.inf, high: float = math.inf, duration: bool = False) -> None:
        self.low, self.high, self.duration = low, high, duration


class Choice:
    """Annotation of a text: one of these."""

    def __init__(self, *names: str) -> None:
        self.names = names


class InvalidValueError(Exception):
    """One value that does not fit; `expected` is what the key takes."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def url_parts(key: str, text: str) -> SplitResult:
    """A URL in its parts. Raises InvalidValueError where it is none, as with half a bracket.

    Without repeating it: what stands where a port should may be a password.
    """
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise InvalidValueError(f"{key}: expected a URL such as http://host:port") from None
    return parts


def parse_duration(text: object) -> float:
    """Seconds of `15s`, `1d`, `1h30m` or a bare number of seconds. Raises InvalidValueError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    if isinstance(text, str):
        if DURATION.fullmatch(text.strip()):
            return sum(float(n) * UNIT_SECONDS[unit] for n, unit in DURATION_PART.findall(text))
        if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
            return float(text)
    raise InvalidValueError("a duration such as 15s, 10m or 14d")


def build(cls: type[T], raw: object, path: str = "") -> T:
    """An instance of the dataclass `cls` from a parsed YAML mapping.

    Raises ConfigError naming every wrong key by its path, with the nearest valid name for unknown ones.
    """
    problems: list[str] = []
    value = _dataclass(cls, raw, path, problems)
    if problems or value is None:
        raise ConfigError(
            "\n".join(problems), "`anomaly-trainer config init` prints every key with its default"
        )
    return value


def _dataclass(cls: type[T], raw: object, path: str, problems: list[str]) -> T | None:
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        problems.append(f"{path or 'the configuration'}: expected a mapping of keys, got {_shown(raw)}")
        return None
    hints = get_type_hints(cls, include_extras=True)
    known: dict[str, Field[Any]] = {entry.name: entry for entry in fields(cls)}  # type: ignore[arg-type]
    values: dict[str, object] = {}
    for key, item in raw.items():
        at = f"{path}.{key}" if path else str(key)
        if key not in known:
            problems.append(f"{at}: unknown key{nearest(str(key), known)}")
            continue
        try:
            values[key] = _value(hints[key], item, at, problems)
        except InvalidValueError as invalid:
            problems.append(f"{at}: expected {invalid.expected}, got {_shown(item)}")
    for name, entry in known.items():
        if name not in raw and entry.default is MISSING and entry.default_factory is MISSING:
            problems.append(f"{path}.{name}: is required" if path else f"{name}: is required")
    if problems:
        return None
    try:
        return cls(**values)
    except InvalidValueError as invalid:
        problems.append(f"{path or 'the configuration'}: {invalid.expected}")
        return None


def _value(hint: Any, raw: object, path: str, problems: list[str]) -> object:
    rules: tuple[object, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        rules = tuple(rest)
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        if raw is None:
            return None
        plain = next(option for option in get_args(hint) if option is not type(None))
        return _value(Annotated[plain, *rules] if rules else plain, raw, path, problems)
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, raw, path, problems)
    if origin is tuple:
        return _sequence(get_args(hint)[0], raw, path, problems)
    if origin in (dict, Mapping):
        if not isinstance(raw, Mapping):
            raise InvalidValueError("a mapping of names to texts")
        return {str(key): str(item) for key, item in raw.items()}
    return _scalar(hint, raw, rules)


def _sequence(item: Any, raw: object, path: str, problems: list[str]) -> tuple[object, ...]:
    if not isinstance(raw, list | tuple):
        raise InvalidValueError("a list")
    values = []
    for at, entry in enumerate(raw):
        try:
            values.append(_value(item, entry, f"{path}[{at}]", problems))
        except InvalidValueError as invalid:
            problems.append(f"{path}[{at}]: expected {invalid.expected}, got {_shown(entry)}")
    return tuple(values)


def _scalar(hint: Any, raw: object, rules: tuple[object, ...]) -> object:
    bounds = next((rule for rule in rules if isinstance(rule, Bounds)), Bounds())
    choice = next((rule for rule in rules if isinstance(rule, Choice)), None)
    if hint is bool:
        if not isinstance(raw, bool):
            raise InvalidValueError("true or false")
        return raw
    if hint is str:
        if not isinstance(raw, str):
            raise InvalidValueError("a text")
        if choice and raw not in choice.names:
            raise InvalidValueError("one of " + ", ".join(choice.names) + nearest(raw, choice.names))
        return raw
    if bounds.duration:
        return _bounded(parse_duration(raw), bounds)
    if hint is float and isinstance(raw, str) and EXPONENT.fullmatch(raw):
        raw = float(raw)  # YAML 1.1 reads 1e-9 as text, 1.0e-9 as a number
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise InvalidValueError("a whole number" if hint is int else "a number")
    if hint is int and not (isinstance(raw, int) or raw.is_integer()):
        raise InvalidValueError("a whole number")
    return _bounded(int(raw) if hint is int else float(raw), bounds)


def _bounded(value: float, bounds: Bounds) -> float:
    if not bounds.low <= value <= bounds.high:
        unit = " seconds" if bounds.duration else ""
        if bounds.high == math.inf:
            raise InvalidValueError(f"at least {bounds.low:g}{unit}")
        raise InvalidValueError(f"a value from {bounds.low:g} to {bounds.high:g}{unit}")
    return value


def nearest(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    """`; did you mean X?`, or the known names where none is close and there are few."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known)}" if 0 < len(known) <= 16 else ""


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."
