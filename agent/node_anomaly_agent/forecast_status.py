"""What the agent foresees (see forecast.py), as a scrape shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from node_anomaly_agent.families import Family, gauge, plain_counter, plain_gauge
from node_anomaly_agent.units import format_age, format_value
from node_anomaly_core.forecast import Forecast, Leaving, horizon_label


@dataclass(frozen=True, slots=True)
class ForecastStatus:
    """The last forecast; None before the first, and while there is none to believe."""

    forecast: Forecast | None = None
    failures: int = 0


def leaving_words(one: Leaving) -> str:
    """When, and from what to what: `in 12 min: 3 %, normal from 10 %`."""
    expected, edge = (format_value(value, one.feature.unit) for value in (one.expected, one.edge))
    side = "up to" if one.expected > one.edge else "from"
    return f"in {format_age(one.seconds)}: {expected}, normal {side} {edge}"


def forecast_failures(status: ForecastStatus) -> Iterator[Family]:
    """How often it went wrong."""
    yield plain_counter("anomaly_agent_forecast_failures", "Forecasts that raised an error.", status.failures)


def forecast_families(status: ForecastStatus) -> Iterator[Family]:
    """What is expected."""
    forecast = status.forecast
    if forecast is None:
        return
    yield gauge(
        "anomaly_forecast_score",
        "How unusual this node is expected to be that far ahead: normal ones reach 1 once per budget.",
        ((horizon_label(seconds), score) for seconds, score in forecast.scores.items()),
        "horizon",
    )
    yield gauge(
        "anomaly_forecast_leaves_normal_seconds",
        "When a feature is expected to leave the normal range that it is in, in seconds from the forecast.",
        ((one.feature.name, one.seconds) for one in forecast.leaving),
        "feature",
    )
    yield plain_gauge(
        "anomaly_forecast_timestamp_seconds",
        "When the forecast was made, as a unix timestamp.",
        forecast.made_at,
    )
