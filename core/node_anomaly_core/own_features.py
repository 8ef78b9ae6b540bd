"""Users' own features: one description that both ends read, checked against itself.

The trainer takes `promql`, the agent the local `source`; what can be compared between the two is compared
here, before either uses it. A description is parsed YAML (this package reads no files): a list of

    name, unit, help, kind: gauge|rate, direction: high|low|both, floor, promql, source

where `source` is `{exporter: URL or node_exporter, metric, match, aggregate, scale}` or
`{textfile: path.prom, metric, match, aggregate, scale, max_age_seconds}`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from node_anomaly_core.catalogue import FEATURES_BY_NAME, UNITS, Feature
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.expressions import (
    Aggregate,
    AggregateOp,
    Expression,
    Gauge,
    Match,
    MatchOp,
    Rate,
    Written,
)

MAX_OWN = 128
NODE_EXPORTER = "node_exporter"
"""As an exporter's URL: the one at the agent's `node_exporter.url`."""

KEYS = ("name", "unit", "help", "kind", "direction", "floor", "promql", "source")
SOURCE_KEYS = ("exporter", "textfile", "metric", "match", "aggregate", "scale", "max_age_seconds")
KINDS = ("gauge", "rate")
DIRECTIONS = ("high", "low", "both")
AGGREGATES = ("sum", "max", "min", "avg")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}")
_OPERATOR = re.compile(r"=~|!~|!=|=")
_RATE_CALL = re.compile(r"\b(rate|irate|increase|delta|idelta|deriv)\s*\(")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'|`[^`]*`')
_FIRST_AGGREGATE = re.compile(r"\s*(sum|max|min|avg)\b")
_PAIRS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True, slots=True)
class LocalSource:
    """Where the agent finds the series: exactly one of `exporter` and `textfile` is not empty.

    `aggregate` is what makes one number of several series; the query's own where the description has none.
    `max_age_s` is how old a textfile may be; 0 leaves that to the agent.
    """

    exporter: str
    textfile: str
    metric: str
    match: tuple[Match, ...] = ()
    aggregate: str = "sum"
    max_age_s: float = 0.0

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether a series of the metric with these labels is meant; an absent label is an empty one."""
        return all(match.holds(labels.get(match.label, "")) for match in self.match)


@dataclass(frozen=True, slots=True)
class OwnFeature:
    """A feature of the user's, and the local series it is computed from.

    The agent hands the series to the feature's expression under the metric `series_metric(name)`.
    """

    feature: Feature
    source: LocalSource


def series_metric(name: str) -> str:
    """The metric under which readings carry the series of an own feature; no exporter has such a name."""
    return f"own feature {name}"


def parse_own_features(document: object, where: str) -> tuple[OwnFeature, ...]:
    """The features of a parsed list; `where` is the path of the list, for messages.

    Raises ConfigError with every problem, each with its path and the nearest valid name.
    """
    problems: list[str] = []
    found: list[OwnFeature] = []
    if document is None:
        return ()
    if not isinstance(document, list):
        raise ConfigError(f"{where}: expected a list of features, got {type(document).__name__}", _HINT)
    if len(document) > MAX_OWN:
        raise ConfigError(f"{where}: {len(document)} features, at most {MAX_OWN} are allowed", _HINT)
    for at, item in enumerate(document):
        one = _feature(item, f"{where}[{at}]", problems)
        if one is not None:
            found.append(one)
    problems += name_clashes([one.feature.name for one in found], where)
    if problems:
        raise ConfigError("; ".join(problems), _HINT)
    return tuple(found)


def parse_own_document(document: object, where: str) -> tuple[OwnFeature, ...]:
    """The features of a whole file: a mapping with the one key `features`. Raises ConfigError."""
    if document is None:
        return ()
    if not isinstance(document, Mapping) or set(document) != {"features"}:
        raise ConfigError(f"{where}: expected the one key `features` with a list of features", _HINT)
    return parse_own_features(document["features"], f"{where}: features")


def name_clashes(names: Collection[str], where: str) -> list[str]:
    """What is wrong with these names beside each other and beside the catalogue."""
    problems = [
        f"{where}: {name} is a feature of the catalogue already" for name in names if name in FEATURES_BY_NAME
    ]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            problems.append(f"{where}: {name} is named twice")
        seen.add(name)
    return problems


_HINT = "docs/own-features.md describes every key; anomaly-agent check-config checks a file"


class _Item:
    """One mapping of the description; every problem is noted under its path, the first is not the last."""

    def __init__(self, raw: object, path: str, known: tuple[str, ...], problems: list[str]) -> None:
        self.path, self._problems = path, problems
        self.raw: Mapping[object, object] = {}
        self._before = len(problems)
        if not isinstance(raw, Mapping):
            self.wrong("", f"expected a mapping with {', '.join(known)}, got {type(raw).__name__}")
            return
        self.raw = raw
        for key in raw:
            if key not in known:
                self.wrong(str(key), f"unknown key{_nearest(str(key), known)}")

    @property
    def sound(self) -> bool:
        return len(self._problems) == self._before

    def wrong(self, key: str, what: str) -> None:
        self._problems.append(f"{self.path}.{key}: {what}" if key else f"{self.path}: {what}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.raw.get(key, default)
        if value is None:
            self.wrong(key, "is required")
            return ""
        if not isinstance(value, str) or (not value.strip() and default is None):
            self.wrong(key, f"expected a text, got {value!r}")
            return ""
        return value.strip()

    def one_of(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(key, default)
        if value and value not in choices:
            self.wrong(key, f"must be one of {', '.join(choices)}, got {value!r}{_nearest(value, choices)}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.raw.get(key, default)
        if value is None:
            self.wrong(key, "is required")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
            self.wrong(key, f"expected a number above 0, got {value!r}")
        else:
            return float(value)
        return 1.0

    def matching(self, key: str, pattern: re.Pattern[str], what: str) -> str:
        value = self.text(key)
        if value and not pattern.fullmatch(value):
            self.wrong(key, f"expected {what}, got {value!r}")
        return value


def _feature(raw: object, path: str, problems: list[str]) -> OwnFeature | None:
    item = _Item(raw, path, KEYS, problems)
    if not item.sound and not item.raw:
        return None
    name = item.matching("name", _NAME, "lower-case letters, digits and underscores")
    unit = item.one_of("unit", UNITS)
    if name and unit in UNITS and not name.endswith(f"_{unit}"):
        item.wrong("name", f"must end with its unit, such as {name}_{unit}")
    text = item.text("help")
    if len(text) > 500 or not text.isprintable():
        item.wrong("help", "expected at most 500 printable characters")
    kind = item.one_of("kind", KINDS)
    if kind == "rate" and unit in ("bytes", "count", "celsius"):
        item.wrong("unit", f"a rate is per second, not in {unit}{_nearest(f'{unit}_per_second', UNITS)}")
    direction = item.one_of("direction", DIRECTIONS, "both")
    floor = item.positive("floor")
    promql = item.text("promql")
    found = _source(item, promql, problems)
    if found is not None and promql:
        for what in _disagreements(promql, kind, found[0]):
            item.wrong("promql", what)
    if not item.sound or found is None:
        return None
    source, scale = found
    leaf = (Rate if kind == "rate" else Gauge)(series_metric(name), "labels")
    local: Expression = Aggregate(cast("AggregateOp", source.aggregate), leaf)
    written = Written(promql, local if scale == 1.0 else local * scale)
    return OwnFeature(Feature(name, unit, text, "own", kind, direction, floor, written), source)


def _source(item: _Item, promql: str, problems: list[str]) -> tuple[LocalSource, float] | None:
    """The local source and its scale; None if anything is wrong with it."""
    if "source" not in item.raw:
        item.wrong("source", "is required")
        return None
    source = _Item(item.raw["source"], f"{item.path}.source", SOURCE_KEYS, problems)
    if not source.raw:
        if source.sound:
            source.wrong("", "is empty")
        return None
    exporter, textfile = source.text("exporter", ""), source.text("textfile", "")
    if bool(exporter) == bool(textfile):
        source.wrong("", "needs either exporter or textfile")
    if exporter and exporter != NODE_EXPORTER:
        problem = url_problem(exporter)
        if problem:
            near = _nearest(exporter, (NODE_EXPORTER,)) if "/" not in exporter else ""
            source.wrong("exporter", f"{problem}, or {NODE_EXPORTER}{near}")
    if textfile and not (textfile.startswith("/") and textfile.endswith(".prom") and "\0" not in textfile):
        source.wrong("textfile", f"expected an absolute path that ends with .prom, got {textfile!r}")
    if "max_age_seconds" in source.raw and not textfile:
        source.wrong("max_age_seconds", "is for a textfile only")
    max_age = source.positive("max_age_seconds", 1.0) if "max_age_seconds" in source.raw else 0.0
    metric = source.matching("metric", _METRIC, "a metric's name")
    match = _matches(source)
    first = _FIRST_AGGREGATE.match(promql)
    aggregate = source.one_of("aggregate", AGGREGATES, first[1] if first else "sum")
    scale = source.positive("scale", 1.0)
    if not source.sound:
        return None
    return LocalSource(exporter, textfile, metric, match, aggregate, max_age), scale


def _matches(source: _Item) -> tuple[Match, ...]:
    """`match: {label: value}`; a value may begin with one of PromQL's operators: `=~mail|print`."""
    raw = source.raw.get("match")
    if raw is None:
        return ()
    if not isinstance(raw, Mapping):
        source.wrong("match", f"expected a mapping of labels to values, got {type(raw).__name__}")
        return ()
    found: list[Match] = []
    for label, value in raw.items():
        where = f"match.{label}"
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            source.wrong(where, "is not a label's name")
            continue
        if not isinstance(value, str):
            source.wrong(where, f"expected a text (put it into quotes), got {value!r}")
            continue
        operator = _OPERATOR.match(value)
        op, wanted = (operator[0], value[operator.end() :]) if operator else ("=", value)
        if op in ("=~", "!~"):
            try:
                re.compile(wanted)
            except re.error as error:
                source.wrong(where, f"{wanted!r} is not a regular expression: {error}")
                continue
        found.append(Match(label, cast("MatchOp", op), wanted))
    return tuple(found)


def url_problem(url: str) -> str:
    """What is wrong with the URL of a local exporter, or an empty string."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or parts.scheme != "http" or not parts.hostname or port == 0 or parts.fragment:
        return f"expected http://HOST:PORT/PATH, got {url!r}"
    if parts.username is not None or parts.password is not None:
        return "expected http://HOST:PORT/PATH without a user or a password"
    if not url.isascii() or not url.isprintable() or " " in url:
        return f"expected http://HOST:PORT/PATH in plain characters, got {url!r}"
    return ""


def _disagreements(promql: str, kind: str, source: LocalSource) -> list[str]:
    """Where the query and the local source cannot mean the same number."""
    problems: list[str] = []
    code = _STRING.sub('""', promql)
    unbalanced = _unbalanced(code)
    if unbalanced:
        problems.append(unbalanced)
    words = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", code))
    if source.metric not in words and f'"{source.metric}"' not in promql:
        near = difflib.get_close_matches(source.metric, words, n=1, cutoff=0.6)
        problems.append(
            f"does not mention {source.metric}, the metric of source.metric"
            + (f" (did you mean {near[0]}?)" if near else "")
        )
    problems += [
        f"does not mention the label {match.label}, which source.match narrows by"
        for match in source.match
        if not words & {match.label, f"exported_{match.label}"}
    ]
    calls = set(_RATE_CALL.findall(code))
    if kind == "gauge" and calls:
        problems.append(f"kind is gauge, but the query takes {min(calls)}(); say kind: rate")
    elif kind == "rate" and calls != {"rate"}:
        other = f", not {min(calls - {'rate'})}()" if calls - {"rate"} else ""
        problems.append(f"kind is rate, so the query must take rate(){other}")
    elif kind == "rate" and code.count("[") != code.count("[$window]"):
        problems.append("a rate must span [$window], which is four intervals at both ends")
    first = _FIRST_AGGREGATE.match(code)
    if first and first[1] != source.aggregate:
        problems.append(f"takes the {first[1]}, but source.aggregate is {source.aggregate}")
    return problems


def _unbalanced(code: str) -> str:
    stack: list[str] = []
    for character in code:
        if character in "([{":
            stack.append(character)
        elif character in _PAIRS and (not stack or stack.pop() != _PAIRS[character]):
            return f"has a {character!r} too many"
    return f"has a {stack[-1]!r} that is never closed" if stack else ""


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""
