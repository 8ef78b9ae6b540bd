"""What a manifest says of the forecast: how well it foresees at each horizon, and what may be shown of it.

A horizon at which it was no better than simpler forecasts names no features; a node shows nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from node_anomaly_core.calibration import Tail
from node_anomaly_core.manifest_reader import read_tail, tail_document, wrong

if TYPE_CHECKING:
    from node_anomaly_core.manifest_reader import Reader

FORECASTER = "lstm"
USUAL, PERSISTENCE, SEASONAL = "usual", "persistence", "seasonal_naive"
RIVALS: tuple[str, ...] = (PERSISTENCE, SEASONAL, USUAL)
"""What anybody could foresee: all stays as it is; it is as it was at this time yesterday; it is as usual."""

MAX_HORIZONS = 8
MAX_STEPS = 240
"""That a node rolls out at most, so that a forecast has a bounded price."""


@dataclass(frozen=True, slots=True)
class HorizonEntry:
    """One horizon, measured on normal history that nothing was fitted on.

    Attributes:
        seconds: how far ahead.
        errors: mean absolute error in compressed units over all features that move, of FORECASTER and the
            RIVALS that could be tried.
        features: those that may be shown, each with its skill: 1 - error / error of its best rival.
        skill: the same of all those together that were chosen on the part before the judged one; NaN without.
        alarms_per_week: on the judged part, false alarms per node-week: scores of 1 or more in three
            forecasts in a row; NaN if none was scored.
        tail: makes a score of a level; present where there are features.
    """

    seconds: float
    errors: Mapping[str, float]
    features: Mapping[str, float] = field(default_factory=dict)
    skill: float = float("nan")
    alarms_per_week: float = float("nan")
    tail: Tail | None = None

    @property
    def overall_skill(self) -> float:
        """1 - error / error of the best rival, over all features that move; NaN without a rival's error."""
        best = min((self.errors[name] for name in RIVALS if name in self.errors), default=0.0)
        return 1.0 - self.errors[FORECASTER] / best if best > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class ForecastEntry:
    """All horizons, nearest first, and the normal range of every feature that one of them shows.

    `ranges` are low and high, below and above 0, in compressed units.
    """

    horizons: tuple[HorizonEntry, ...]
    ranges: Mapping[str, tuple[float, float]]

    @property
    def shown(self) -> tuple[HorizonEntry, ...]:
        """Those with skill."""
        return tuple(horizon for horizon in self.horizons if horizon.features)


def forecast_document(entry: ForecastEntry) -> dict[str, object]:
    """As JSON has it; what is not known is left out."""
    horizons = []
    for one in entry.horizons:
        document: dict[str, object] = {
            "seconds": one.seconds,
            "errors": dict(one.errors),
            "features": dict(one.features),
        }
        for name in ("skill", "alarms_per_week"):
            value = getattr(one, name)
            if value == value:  # noqa: PLR0124  # NaN is not known
                document[name] = value
        if one.tail is not None:
            document["tail"] = tail_document(one.tail)
        horizons.append(document)
    return {
        "horizons": horizons,
        "ranges": {name: {"low": low, "high": high} for name, (low, high) in entry.ranges.items()},
    }


def read_forecast(item: Reader, features: Sequence[str], interval_s: float) -> ForecastEntry:
    """Parse it for a bundle of these features, trained at `interval_s`. Raises BundleError("manifest")."""
    horizons = tuple(_horizon(one, features, interval_s) for one in item.children("horizons", MAX_HORIZONS))
    seconds = [one.seconds for one in horizons]
    if seconds != sorted(set(seconds)):
        raise wrong(f"{item.path}.horizons", "must rise")
    ranges = {}
    for name, bounds in item.child("ranges").items(len(features)):
        low, high = bounds.number("low"), bounds.number("high")
        if not low < 0 < high:
            raise wrong(bounds.path, "must reach from below 0 to above 0")
        ranges[name] = (low, high)
    for one in horizons:
        for name in one.features:
            if name not in ranges:
                raise wrong(f"{item.path}.ranges", f"has no {name}")
    return ForecastEntry(horizons, ranges)


def _horizon(item: Reader, features: Sequence[str], interval_s: float) -> HorizonEntry:
    seconds = item.positive("seconds")
    if not 1 <= round(seconds / interval_s) <= MAX_STEPS:
        raise wrong(f"{item.path}.seconds", f"must be 1 to {MAX_STEPS} ticks of {interval_s:g} s")
    errors = item.child("errors").figures(1 + len(RIVALS))
    if FORECASTER not in errors or not set(errors) <= {FORECASTER, *RIVALS}:
        raise wrong(f"{item.path}.errors", f"must be of {FORECASTER} and of {', '.join(RIVALS)}")
    shown = item.child("features").figures(len(features))
    if unknown := sorted(set(shown) - set(features)):
        raise wrong(f"{item.path}.features", f"has {unknown[0]}, which is no feature of the bundle")
    if shown and not item.has("tail"):
        raise wrong(f"{item.path}.tail", "is missing")
    return HorizonEntry(
        seconds=seconds,
        errors=errors,
        features=shown,
        skill=item.number("skill") if item.has("skill") else float("nan"),
        alarms_per_week=item.number("alarms_per_week") if item.has("alarms_per_week") else float("nan"),
        tail=read_tail(item.child("tail")) if item.has("tail") else None,
    )
