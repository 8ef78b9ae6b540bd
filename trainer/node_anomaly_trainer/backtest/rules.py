"""The shipped rules, or yours: those alerts that follow from scores, and what they are made of.

What speaks of the agents themselves (down, slow, stale) or lays a line through a resource has nothing to do
with a bundle and is left out; a rule is kept as it is written, with its group and its interval.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from node_anomaly_core.errors import ConfigError

FILES = ("recording.yml", "alerts.yml")
SCORE = "anomaly_score"
VALUE = "anomaly_feature_value"
GIVEN = frozenset({SCORE, VALUE, "up"})
"""Series that a backtest has."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_STEP = re.compile(
    r'"(?:[^"\\]|\\.)*"'
    r"|'(?:[^'\\]|\\.)*'"
    r"|[()]|\b(?:and|or|unless)\b"
)
"""Strings are steps that lead nowhere: what stands in them is no operator."""

_FEATURE = re.compile(r'feature="([a-z0-9_]+)"')
_JOB = re.compile(r'anomaly_score\{[^}]*job="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Rules:
    """Rule groups as Prometheus reads them, and what has to be fed to them."""

    groups: tuple[Mapping[str, Any], ...]
    alerts: Mapping[str, str]
    """By name, its severity ("" where it has none)."""
    features: frozenset[str]
    """Whose values a symptom asks for."""
    job: str
    """The job label that the rules expect of an agent's series."""
    unknown: frozenset[str]
    """Series that the rules ask for and a backtest does not have; the rules see them as absent."""


def find_rules(directory: Path | None) -> Path:
    """The directory asked for, else the rules beside this package or in its source tree.

    Raises ConfigError where there are none.
    """
    here = Path(__file__).resolve().parent
    places = [directory] if directory else [here / "shipped", *(parent / "rules" for parent in here.parents)]
    for place in places:
        if all((place / name).is_file() for name in FILES):
            return place
    where = f"{directory}: no {' and '.join(FILES)}" if directory else "the shipped rules are not installed"
    raise ConfigError(where, "name the directory that holds both with --rules")


def read_rules(directory: Path) -> Rules:
    """Those of the directory that follow from scores. Raises ConfigError for a file that holds no rules."""
    groups = [group for name in FILES for group in _groups(directory / name)]
    recorded: dict[str, set[str]] = {}
    for rule in _rules(groups):
        if "record" in rule:
            recorded.setdefault(rule["record"], set()).update(_names(rule["expr"]))
    wanted = [rule for rule in _rules(groups) if "alert" in rule and _follows(rule["expr"], recorded)]
    if not wanted:
        raise ConfigError(f"{directory}: no alert there asks for {SCORE}", "name other rules with --rules")
    needed = set().union(*(_names(rule["expr"]) for rule in wanted))
    while more := set().union(*(recorded.get(name, set()) for name in needed)) - needed:
        needed |= more
    kept = [rule for rule in _rules(groups) if rule in wanted or rule.get("record") in needed]
    text = " ".join(str(rule["expr"]) for rule in kept)
    metrics = {name for name in needed if name.startswith("anomaly_") and name not in recorded}
    jobs = _JOB.findall(text)
    return Rules(
        groups=tuple(
            {**group, "rules": [rule for rule in group["rules"] if rule in kept]}
            for group in groups
            if any(rule in kept for rule in group["rules"])
        ),
        alerts={rule["alert"]: str(rule.get("labels", {}).get("severity", "")) for rule in wanted},
        features=frozenset(_FEATURE.findall(text)),
        job=jobs[0] if jobs else "anomaly-agent",
        unknown=frozenset(metrics - GIVEN),
    )


def _groups(path: Path) -> list[dict[str, Any]]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        groups = document["groups"]
        for rule in _rules(groups):
            rule["expr"] = str(rule["expr"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a file of Prometheus rules ({type(error).__name__})", "check it with promtool"
        ) from error
    return list(groups)


def _rules(groups: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [rule for group in groups for rule in group["rules"]]


def _names(expression: str) -> set[str]:
    return set(_NAME.findall(expression))


def _follows(expression: str, recorded: Mapping[str, set[str]]) -> bool:
    """Whether an expression comes to the score, by way of recorded series or not, and lays no line.

    One that the score only silences, as it does a forecast, has nothing here that could raise it.
    """
    if "predict_linear" in expression:
        return False
    seen, left = set(), [*_names(_raising(expression))]
    while left:
        name = left.pop()
        if name == SCORE:
            return True
        if name not in seen:
            seen.add(name)
            left += recorded.get(name, set())
    return False


def _raising(expression: str) -> str:
    """An expression without what follows an `unless`, up to the next `and` or `or` beside it or around it."""
    kept, depth, skipping, at = [], 0, -1, 0
    for step in _STEP.finditer(expression):
        word = step.group()
        if skipping < 0:
            kept.append(expression[at : step.start()])
        at = step.start()
        depth += (word == "(") - (word == ")")
        if skipping > depth or (skipping == depth and word in {"and", "or"}):
            skipping = -1
        if word == "unless" and skipping < 0:
            skipping = depth
    return "".join([*kept, expression[at:] if skipping < 0 else ""])
