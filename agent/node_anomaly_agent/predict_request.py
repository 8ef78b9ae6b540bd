"""What a client asks of /api/v1/predict, checked completely before anything is scored.

Every error is a ConfigError whose message begins with the path of what is wrong, and a colon.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from node_anomaly_core.errors import ConfigError
from node_anomaly_core.features import Feature
from node_anomaly_core.manifest_reader import LATEST

MAX_ROWS = 500
MAX_REASONS = 50
DEFAULT_REASONS = 5

_KEYS = ("rows", "history", "reasons")
_ROW_KEYS = ("features", "timestamp")
_SHAPE = 'send {"rows": [{"features": {"cpu_busy_ratio": 0.5}}]}'


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose shape is right; its rows are still to be matched with a bundle."""

    rows: tuple[Mapping[str, object], ...]
    with_history: bool
    reasons: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row: unix seconds, and (f,) values in the bundle's order, NaN where missing."""

    timestamp: float
    values: list[float]


def parse_request(body: bytes) -> Asked:
    """The request in a body. Raises ConfigError."""
    try:
        document = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # which a wrong encoding and a wrong constant are too
        raise ConfigError(f"body: it is not JSON: {error}", _SHAPE) from None
    if not isinstance(document, dict):
        raise ConfigError(f"body: expected an object, got {_kind(document)}", _SHAPE)
    _known(document, _KEYS, "")
    rows = document.get("rows")
    if not isinstance(rows, list) or not rows:
        raise ConfigError("rows: expected a list of at least one row", _SHAPE)
    if len(rows) > MAX_ROWS:
        raise ConfigError(f"rows: {len(rows)} rows are more than {MAX_ROWS}", "send them in several requests")
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ConfigError(f"rows[{at}]: expected an object, got {_kind(row)}", _SHAPE)
        _known(row, _ROW_KEYS, f"rows[{at}].")
        if not isinstance(row.get("features"), dict):
            raise ConfigError(f"rows[{at}].features: expected an object of names and values", _SHAPE)
    history = document.get("history", "node")
    if history not in ("node", "none"):
        raise ConfigError(
            f"history: expected node or none, got {_show(history)}",
            "node scores the rows as what this node does next, none as those of a node that is not known",
        )
    wanted = document.get("reasons", DEFAULT_REASONS)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 0 <= wanted <= MAX_REASONS:
        raise ConfigError(f"reasons: expected a number from 0 to {MAX_REASONS}, got {_show(wanted)}", "")
    return Asked(tuple(rows), history == "node", wanted)


def parse_rows(asked: Asked, features: Sequence[Feature], interval_s: float, last: float | None) -> list[Row]:
    """The rows for a bundle with these features. Raises ConfigError.

    Rows without a timestamp follow each other at the interval, after `last`, the node's last tick, if there
    is one.
    """
    names = {feature.name: at for at, feature in enumerate(features)}
    previous = last
    rows = []
    for at, row in enumerate(asked.rows):
        where = f"rows[{at}]"
        timestamp = _timestamp(row.get("timestamp"), previous, interval_s, where)
        if previous is not None and timestamp <= previous:
            after = "the node's last tick" if at == 0 else "the row before"
            raise ConfigError(
                f"{where}.timestamp: {timestamp:.3f} is not after {after}, {previous:.3f}",
                'rows go forward in time; to score the past, ask with "history": "none"',
            )
        previous = timestamp
        rows.append(Row(timestamp, _values(row["features"], names, where)))
    return rows


def _timestamp(given: object, previous: float | None, interval_s: float, where: str) -> float:
    if given is None:
        return 0.0 if previous is None else previous + interval_s
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LATEST:
        raise ConfigError(
            f"{where}.timestamp: expected unix seconds, got {_show(given)}", "leave it out, or send seconds"
        )
    return float(given)


def _values(given: object, names: Mapping[str, int], where: str) -> list[float]:
    values = [math.nan] * len(names)
    for name, value in given.items() if isinstance(given, dict) else ():
        place = f"{where}.features.{name[:100]}"
        if name not in names:
            near = difflib.get_close_matches(name[:100], names, n=1)
            hint = (
                f"did you mean {near[0]}?" if near else "the bundle's features are listed by /api/v1/explain"
            )
            raise ConfigError(f"{place}: the bundle has no such feature", hint)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(
                f"{place}: expected a number or null, got {_show(value)}", "send its value in its unit"
            )
        try:
            values[names[name]] = float(value)
        except OverflowError:
            raise ConfigError(f"{place}: the number is too large", "send its value in its unit") from None
    return values


def _known(given: Mapping[str, object], known: Sequence[str], prefix: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key[:100], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{prefix}{key[:100]}: unknown key", hint)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON; send null for what is not known")


def _kind(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), "nothing")


def _show(value: object) -> str:
    return repr(value)[:60]
