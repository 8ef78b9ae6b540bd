"""A configuration in the shape of the project's first `config.json`, as the shape of today.

Its sections were data, models, evaluation and alerts. `models` and `evaluation` are still called so; some of
their keys, and the two other sections, are translated. What a key of then cannot mean any more is said in a
note, never passed over; a key that neither shape has stays where it is, for the check to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.settings import InvalidValueError, nearest, parse_duration

DATA = ("n_samples", "anomaly_rate", "test_size", "include_temporal")
ALERTS = ("false_alarms_per_node_week",)
TEMPORAL = ("lstm", "kmeans", "autoregression", "log_errors")
MEAN_FAULT_S = 1_400.0
"""Usual length of an injected fault, log-uniform between three ticks and two hours."""

DEFAULT_INTERVAL_S = 15.0
HINTS = {
    "data": "anomaly-trainer config init writes every key",
    "alerts": "what an alert fires on is in rules/, and Alertmanager sends it",
}
DAY_S = 86_400.0


def translated(raw: object) -> tuple[object, tuple[str, ...]]:
    """The mapping in today's shape, and a note on everything that does not mean the same any more.

    Raises ConfigError for a key of `data` or `alerts` that is not known, with the nearest one that is, and
    where the file says one thing in both shapes.
    """
    if not isinstance(raw, Mapping):
        return raw, ()
    result: dict[Any, Any] = dict(raw)
    notes: list[str] = []
    for section, known, take in (("data", DATA, _data), ("alerts", ALERTS, _alerts)):
        if section in result:
            given = result.pop(section)
            _check(section, given, known)
            take(dict(given or {}), result, notes)
    _models(result, notes)
    return result, tuple(notes)


def _check(section: str, given: object, known: tuple[str, ...]) -> None:
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(
            f"{section}: expected a mapping of keys, got {given!r}", f"known: {', '.join(known)}"
        )
    wrong = [
        f"{section}.{key}: unknown key{nearest(str(key), known)}" for key in given or () if key not in known
    ]
    if wrong:
        raise ConfigError("\n".join(wrong), HINTS[section])


def _data(data: dict[str, Any], result: dict[Any, Any], notes: list[str]) -> None:
    if (samples := data.get("n_samples")) is not None:
        seconds = _number(samples, "data.n_samples") * _interval(result)
        _put(result, ("source", "synthetic", "range"), seconds, "data.n_samples")
        notes.append(f"data.n_samples: {samples} ticks of each simulated node")
    if (rate := data.get("anomaly_rate")) is not None:
        per_day = max(_number(rate, "data.anomaly_rate") * DAY_S / MEAN_FAULT_S, 0.1)
        _put(result, ("training", "faults_per_node_day"), round(per_day, 2), "data.anomaly_rate")
        notes.append(
            f"data.anomaly_rate: {per_day:.2f} injected faults per node-day, about that share of ticks"
        )
    if (share := data.get("test_size")) is not None:
        fitted = round(1.0 - _number(share, "data.test_size"), 6)
        _put(result, ("training", "fit_fraction"), fitted, "data.test_size")
        notes.append("data.test_size: the latest part calibrates and judges, it is not drawn at random")
    if data.get("include_temporal") is False:
        from node_anomaly_trainer.config_models import MEMBERS

        kept = [name for name in MEMBERS if name not in TEMPORAL]
        _put(result, ("models", "enabled"), kept, "data.include_temporal")


def _alerts(alerts: dict[str, Any], result: dict[Any, Any], _notes: list[str]) -> None:
    if (budget := alerts.get("false_alarms_per_node_week")) is not None:
        _put(result, ("budget", "false_alarms_per_node_week"), budget, "alerts.false_alarms_per_node_week")


def _models(result: dict[Any, Any], notes: list[str]) -> None:
    models = result.get("models")
    if not isinstance(models, Mapping):
        return
    renamed = {name: dict(given) if isinstance(given, Mapping) else given for name, given in models.items()}
    forest, lstm = renamed.get("isolation_forest"), renamed.get("lstm")
    if isinstance(forest, dict) and "contamination" in forest:
        value = forest.pop("contamination")
        if value != "auto" and not (isinstance(value, float) and 0.0 < value <= 0.5):
            raise ConfigError(
                f"models.isolation_forest.contamination: expected auto or a share up to 0.5, got {value!r}",
                "leave it out: the threshold follows from budget.false_alarms_per_node_week",
            )
        notes.append(
            "models.isolation_forest.contamination: not used; the threshold is searched for "
            "budget.false_alarms_per_node_week"
        )
    if isinstance(lstm, dict) and "lstm_units" in lstm:
        if "units" in lstm:
            raise ConfigError("models.lstm: both units and lstm_units", "keep units")
        lstm["units"] = lstm.pop("lstm_units")
    result["models"] = renamed


def _put(result: dict[Any, Any], path: tuple[str, ...], value: object, origin: str) -> None:
    """Set a value of today's shape; the levels on the way are copied, the caller's mapping stays as it is."""
    level = result
    for key in path[:-1]:
        inner = level.get(key)
        level[key] = dict(inner) if isinstance(inner, Mapping) else {}
        level = level[key]
    if path[-1] in level:
        raise ConfigError(f"both {origin} and {'.'.join(path)}", f"keep {'.'.join(path)}")
    level[path[-1]] = value


def _interval(result: Mapping[Any, Any]) -> float:
    """Of the file; one that cannot be read is refused by its own key later."""
    try:
        return parse_duration(result.get("interval", DEFAULT_INTERVAL_S))
    except InvalidValueError:
        return DEFAULT_INTERVAL_S


def _number(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{path}: expected a number, got {value!r}", "write a plain number")
    return float(value)
