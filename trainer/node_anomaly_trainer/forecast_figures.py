"""How well a run's forecast foresees, as reports, metrics and MLflow show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node_anomaly_core.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ForecastFigures:
    """How well the LSTM foresaw one horizon, beside what anybody could foresee."""

    horizon_s: float
    errors: Mapping[str, float]
    """Mean absolute error in compressed units, all features that move."""
    skill: float
    """1 - error / error of the best rival, all features that move."""
    shown_skill: float
    """The same of the features that were chosen on the part before the judged one; NaN without any."""
    features: Mapping[str, float]
    """Those that nodes show, with their skill."""
    alarms_per_node_week: float
    """False alarms of its score on the judged part; NaN without one."""


def forecast_figures(manifest: Manifest) -> tuple[ForecastFigures, ...]:
    """What the manifest says of the forecast."""
    if manifest.forecast is None:
        return ()
    return tuple(
        ForecastFigures(
            horizon_s=one.seconds,
            errors=one.errors,
            skill=one.overall_skill,
            shown_skill=one.skill,
            features=one.features,
            alarms_per_node_week=one.alarms_per_week,
        )
        for one in manifest.forecast.horizons
    )


def duration(seconds: float) -> str:
    """In hours or minutes where that is a whole number."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds % size == 0:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:g} s"
