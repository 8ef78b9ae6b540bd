"""What the LSTM expects ahead: rolled out step by step from a node's recent past, at both ends alike.

The forecaster is started anew for each forecast, from the rows that the scorer keeps anyway. So it disturbs
no running state, goes on after a restart, and a node that ticks four times as often as the bundle was
trained feeds it every fourth row: a step stays as long as in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import compress, expand
from node_anomaly_core.evidence import FORECAST_CLIP, feature_sides, mean_of_top
from node_anomaly_core.features import Feature
from node_anomaly_core.forecast_entry import ForecastEntry
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.members import Models

CONTEXT_TICKS = 60
"""Of the bundle's interval that the forecaster lives through first: as long as it was trained on."""

EVERY_S = 300.0
"""A node looks ahead this often, and so does the trainer that calibrates it: three in a row are an alarm."""

LEAST_CONTEXT_TICKS = 30
TOP_SHARE = 0.2
"""Of a horizon's features: so many of them make its level."""

_OFF_BEAT = 0.05  # share of a step by which a node's ticks may miss it

Array = NDArray[np.float64]


def horizon_label(seconds: float) -> str:
    """A horizon as PromQL writes durations: 15m, 1h, 90s."""
    for unit, size in (("h", 3600.0), ("m", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


@dataclass(frozen=True, slots=True)
class Leaving:
    """A feature that is within its normal range and is expected outside.

    `seconds` from now; `expected` then, and the `edge` that it passes, in the feature's unit.
    """

    feature: Feature
    seconds: float
    expected: float
    edge: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is expected from unix second `made_at` on.

    `scores` are by horizon in seconds, 1.0 = what three forecasts in a row reach once per budget on a normal
    node.
    """

    made_at: float
    scores: Mapping[float, float]
    leaving: tuple[Leaving, ...] = ()


def roll_out(lstm: StepLSTM, context: NDArray[np.floating], steps: int) -> Array:
    """Forecasts (steps, m, f) of the ticks after compressed rows (t, m, f), each made from those before it.

    What is missing (NaN) is fed as the centre, and so are its forecasts: the caller knows what to believe.
    """
    lstm.reset()
    for row in np.clip(np.where(np.isfinite(context), context, 0.0), -FORECAST_CLIP, FORECAST_CLIP):
        ahead = lstm.step(row)
    path = np.empty((steps, *context.shape[1:]))
    for step in range(steps):
        path[step] = np.clip(ahead, -FORECAST_CLIP, FORECAST_CLIP)
        if step < steps - 1:
            ahead = lstm.step(path[step])
    return path


class NormalRange:
    """How far compressed values are on the way out of the normal range of their features."""

    def __init__(self, entry: ForecastEntry, features: tuple[Feature, ...]) -> None:
        self._sides = feature_sides(features)
        bounds = [entry.ranges.get(feature.name, (-np.inf, np.inf)) for feature in features]
        self.low, self.high = np.array(bounds).reshape(-1, 2).T
        self._columns = {
            one.seconds: np.array([at for at, feature in enumerate(features) if feature.name in one.features])
            for one in entry.shown
        }

    def way_out(self, compressed: Array) -> Array:
        """Values (..., f): 0 at the centre, 1 at the edge; only the anomalous side counts. NaN = unknown."""
        share = compressed / np.where(compressed < 0, self.low, self.high)
        harmless = compressed * self._sides < 0
        return np.where(harmless, 0.0, share)

    def level(self, seconds: float, way_out: Array) -> Array:
        """Level (...) of rows (..., f) at a horizon: the mean of what is farthest on its way out."""
        return mean_of_top(way_out[..., self._columns[seconds]], TOP_SHARE)


@dataclass(frozen=True, slots=True)
class _Units:
    """Back to the features' own units, (f,) each; not below 0 for what has not been there lately."""

    centre: Array
    scale: Array
    lowest: Array

    def of(self, compressed: float, at: int) -> float:
        """One compressed value of feature number `at`."""
        one = slice(at, at + 1)
        value = float(expand(np.array([compressed]), self.centre[one], self.scale[one])[0])
        return max(value, 0.0) if self.lowest[at] >= 0 else value


class Forecaster:
    """The forecaster of one bundle; not thread-safe."""

    def __init__(self, models: Models, lstm: StepLSTM, entry: ForecastEntry) -> None:
        manifest = models.manifest
        self.name = models.forecaster or ""
        self._lstm = lstm
        self._entry = entry
        self._features = manifest.features
        self._interval_s = manifest.interval_s
        self._range = NormalRange(entry, manifest.features)
        self._steps = max(round(one.seconds / self._interval_s) for one in entry.shown)
        names = [feature.name for feature in manifest.features]
        self._reach = np.zeros(len(names), dtype=np.intp)  # steps to which each feature is believed
        for one in entry.shown:
            for name in one.features:
                self._reach[names.index(name)] = round(one.seconds / self._interval_s)

    @classmethod
    def of(cls, models: Models) -> Forecaster | None:
        """That of a bundle, or None where it has no skill at any horizon."""
        entry = models.manifest.forecast
        lstm = None if entry is None or not entry.shown else models.step_lstm(1)
        return None if entry is None or lstm is None else cls(models, lstm, entry)

    def look(self, state: Mapping[str, NDArray[np.generic]], interval_s: float) -> Forecast | None:
        """Look ahead from what `NodeScorer.state` of a node that ticks every `interval_s` returned.

        None where the node is not known yet, ticks at another rhythm, or has too short a past without a gap.
        """
        if "centre" not in state:
            return None
        times = np.asarray(state["times"], dtype=np.float64)
        stride = max(1, round(self._interval_s / interval_s))
        if abs(stride * interval_s - self._interval_s) > _OFF_BEAT * self._interval_s:
            return None
        whole = len(times) - 1
        while whole > 0 and times[whole] - times[whole - 1] <= 2 * interval_s:
            whole -= 1
        chosen = np.arange(len(times) - 1, whole - 1, -stride)[:CONTEXT_TICKS][::-1]
        if len(chosen) < LEAST_CONTEXT_TICKS:
            return None
        centre, scale = (np.asarray(state[name], dtype=np.float64) for name in ("centre", "scale"))
        rows = np.asarray(state["rows"], dtype=np.float64)[chosen]
        context = compress(rows, centre, scale)
        path = roll_out(self._lstm, context[:, None], self._steps)[:, 0]
        path = np.where(np.isfinite(context[-1]), path, np.nan)
        outward = self._range.way_out(path)
        return Forecast(
            made_at=float(times[-1]),
            scores=self._scores(outward),
            leaving=self._leaving(
                self._range.way_out(context[-1]),
                outward,
                path,
                _Units(centre, scale, np.nanmin(rows, axis=0)),
            ),
        )

    def _scores(self, outward: Array) -> dict[float, float]:
        scores = {}
        for one in self._entry.shown:
            step = round(one.seconds / self._interval_s) - 1
            level = self._range.level(one.seconds, outward[step : step + 1])
            if one.tail is not None:
                scores[one.seconds] = float(one.tail.score(level)[0])
        return scores

    def _leaving(self, now: Array, outward: Array, path: Array, units: _Units) -> tuple[Leaving, ...]:
        """Features that are within now and not later, the first to go first."""
        believed = np.arange(1, len(outward) + 1)[:, None] <= self._reach
        out = believed & (outward >= 1.0) & (now < 1.0)
        found = []
        for at in np.flatnonzero(out.any(axis=0)).tolist():
            step = int(out[:, at].argmax())
            edge = self._range.low if path[step, at] < 0 else self._range.high
            expected, passed = units.of(path[step, at], at), units.of(edge[at], at)
            found.append(Leaving(self._features[at], (step + 1) * self._interval_s, expected, passed))
        return tuple(sorted(found, key=lambda one: one.seconds))
