"""Settings of `suppressors`: which deviations of a feature are none of the score's business."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from node_anomaly_agent.config_values import InvalidValue, one_of
from node_anomaly_core.errors import ConfigError

SECTION = "suppressors"
MAX_SUPPRESSORS = 256
_DIRECTIONS = ("both", "up", "down")
_KEYS = ("direction", "min-absolute", "min-relative")


@dataclass(frozen=True, slots=True)
class Suppressor:
    """What a deviation needs to count: all of it.

    Attributes:
        pattern: a feature's name, or a glob pattern of names.
        direction: `up`, `down` or `both`.
        min_absolute: in the feature's unit.
        min_relative: as a share of the expected value's magnitude.
    """

    pattern: str
    direction: str = "both"
    min_absolute: float = 0.0
    min_relative: float = 0.0


def parse_suppressors(
    document: object, features: Sequence[str], problems: list[ConfigError]
) -> tuple[Suppressor, ...]:
    """The section's entries. `features` are all names there are; what is wrong is added to `problems`."""
    if document is None:
        return ()
    if not isinstance(document, Mapping):
        what = f"expected a mapping from features to what counts, got {type(document).__name__}"
        problems.append(ConfigError(f"{SECTION}: {what}"))
        return ()
    if len(document) > MAX_SUPPRESSORS:
        problems.append(ConfigError(f"{SECTION}: at most {MAX_SUPPRESSORS} entries, got {len(document)}"))
        return ()
    found = []
    for name, entry in document.items():
        pattern = str(name)
        wrong = [f"{SECTION}.{pattern}{problem}" for problem in _problems(pattern, entry, features)]
        problems += [ConfigError(problem) for problem in wrong]
        if not wrong:
            found.append(
                Suppressor(
                    pattern,
                    str(entry.get("direction", "both")).lower(),
                    _minimum(entry.get("min-absolute", 0)),
                    _minimum(entry.get("min-relative", 0)),
                )
            )
    return tuple(found)


def _problems(pattern: str, entry: object, features: Sequence[str]) -> Iterable[str]:
    if not any(fnmatchcase(feature, pattern) for feature in features):
        near = difflib.get_close_matches(pattern, features, n=1)
        yield f": matches no feature ({_meant(near) or 'anomaly-agent features lists them'})"
    if not isinstance(entry, Mapping):
        yield f": expected some of {', '.join(_KEYS)}, got {entry!r}"
        return
    for key in entry:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1, cutoff=0.5)
            yield f".{key}: unknown key ({_meant(near) or 'known keys: ' + ', '.join(_KEYS)})"
    valid = True
    try:
        one_of(*_DIRECTIONS)(entry.get("direction", "both"))
    except InvalidValue as error:
        valid = False
        yield f".direction: {error}"
    for key in _KEYS[1:]:
        try:
            _minimum(entry.get(key, 0))
        except InvalidValue as error:
            valid = False
            yield f".{key}: {error}"
    nothing = str(entry.get("direction", "both")).lower() == "both" and not any(map(entry.get, _KEYS[1:]))
    if valid and nothing:
        yield ": suppresses nothing: give a direction up or down, min-absolute or min-relative"


def _meant(near: Sequence[str]) -> str:
    return f"did you mean {near[0]}?" if near else ""


def _minimum(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"expected a number of at least 0, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number >= 0):
        raise InvalidValue(f"must be at least 0 and finite, got {number:g}")
    return number


def describe_suppressors(suppressors: Sequence[Suppressor]) -> list[tuple[str, object]]:
    """Rows for check-config; none without any."""
    return [
        (
            f"{SECTION}.{one.pattern}",
            f"counts: {one.direction}, from {one.min_absolute:g} and {one.min_relative:.4g} of the expected",
        )
        for one in suppressors
    ]
