"""How well the exported LSTM foresees normal history, against what anybody could foresee.

It is rolled out through core, from its int8 file, at moments of the parts that nothing was fitted on.
Features are chosen on the earlier part and judged on the later one, so that the figure is not the best of
many tries. What beats the best of its rivals by LEAST_SKILL may be shown by nodes, the rest is only reported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import fit_tail
from node_anomaly_core.evidence import FORECAST_CLIP
from node_anomaly_core.features import Feature
from node_anomaly_core.forecast import CONTEXT_TICKS, EVERY_S, NormalRange, roll_out
from node_anomaly_core.forecast_entry import (
    FORECASTER,
    MAX_STEPS,
    PERSISTENCE,
    SEASONAL,
    USUAL,
    ForecastEntry,
    HorizonEntry,
)
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.members import Models
from node_anomaly_trainer.calibrate import within
from node_anomaly_trainer.candidate import Candidate, Parts
from node_anomaly_trainer.config_forecast import ForecastConfig
from node_anomaly_trainer.evaluate import false_alarm_rate
from node_anomaly_trainer.progress import Note, Report

DAY_S = 86_400.0
LEAST_SKILL = 0.05
LEAST_ERROR = 1e-3  # of the best rival, in compressed units: below it there is nothing to foresee
MOST_FORECASTS = 3_000  # of a part
AT_ONCE = 500
MOST_RANGE_ROWS = 50_000
RANGE_SHARE = 0.001
"""Of the normal values of a feature, on either side, that lie outside what is called its normal range."""

LEAST_RANGE = float(np.log1p(2.0))
"""A normal range reaches at least two scales to either side, however still a feature was."""

Array = NDArray[np.float64]
MakeLstm = Callable[[int], StepLSTM | None]
"""A fresh LSTM for a batch of so many; see Models.step_lstm."""


@dataclass(frozen=True, eq=False, slots=True)
class Exam:
    """History to be foreseen: compressed values (t, m, f), what of it is normal (t, m), and its parts."""

    compressed: NDArray[np.float32]
    normal: NDArray[np.bool_]
    fitted: slice
    chosen: slice
    judged: slice
    interval_s: float
    budget_per_week: float


@dataclass(frozen=True, eq=False, slots=True)
class Trial:
    """Forecasts from moments (n,) of one part on nodes (k,), as ticks and columns of the history.

    `ahead` has (n, k, f) compressed values by steps ahead; `usable` (n, k) says where the node was normal.
    """

    ahead: Mapping[int, NDArray[np.float32]]
    moments: NDArray[np.intp]
    nodes: NDArray[np.intp]
    usable: NDArray[np.bool_]


def with_forecast(
    parts: Parts, candidate: Candidate, config: ForecastConfig, report: Report, note: Note
) -> Candidate:
    """The candidate with what its manifest says of the forecast, which is nothing if none is wanted."""
    if not config.enabled:
        return candidate
    exam = Exam(
        compressed=candidate.clean.compressed,
        normal=parts.normal,
        fitted=parts.fit,
        chosen=parts.calibration,
        judged=parts.judged,
        interval_s=parts.clean.interval_s,
        budget_per_week=candidate.manifest.budget_per_week,
    )
    models = Models(candidate.bundle())
    if models.forecaster is None:
        return candidate
    entry = measure(models.step_lstm, parts.clean.features, exam, config.horizons, report, note)
    return replace(candidate, manifest=replace(candidate.manifest, forecast=entry))


def measure(
    make: MakeLstm,
    features: tuple[Feature, ...],
    exam: Exam,
    horizons: Sequence[float],
    report: Report,
    note: Note,
) -> ForecastEntry | None:
    """The skill at each horizon (seconds), and what nodes may show; None with nothing to measure."""
    steps = {seconds: round(seconds / exam.interval_s) for seconds in horizons}
    room = min(part.stop - part.start for part in (exam.chosen, exam.judged)) // 2
    most = min(MAX_STEPS, room)
    fitting = {seconds: count for seconds, count in steps.items() if 1 <= count <= most}
    for seconds in horizons:
        if seconds not in fitting:
            note(f"forecast {seconds:g} s ahead is left out: {steps[seconds]} ticks, of 1 to {most} possible")
    if not fitting:
        return None
    wanted = tuple(fitting.values())
    chosen = roll_outs(make, exam, exam.chosen, wanted, within(report, 0.0, 0.5))
    judged = roll_outs(make, exam, exam.judged, wanted, within(report, 0.5, 0.5))
    if chosen is None or judged is None:
        note("forecast: no normal moment to foresee from")
        return None
    found = [_horizon(seconds, (chosen, judged), count, exam, features) for seconds, count in fitting.items()]
    ranges = normal_ranges(exam, features, {name for one in found for name in one.features})
    return _scored(ForecastEntry(tuple(found), ranges), exam, features, (chosen, judged), note)


def roll_outs(
    make: MakeLstm,
    exam: Exam,
    part: slice,
    steps: Sequence[int],
    report: Report,
    most: int = MOST_FORECASTS,
) -> Trial | None:
    """Forecasts `steps` ahead from every EVERY_S of a part, as a node makes them.

    Of as many nodes and as late as `most` forecasts allow; None if none of them was ever normal then.
    """
    every = max(1, round(EVERY_S / exam.interval_s))
    last = part.stop - max(steps) - 1
    moments = np.arange(last, max(part.start, CONTEXT_TICKS) - 1, -every)[:most][::-1]
    if not len(moments):
        return None
    count = exam.compressed.shape[1]
    nodes = np.unique(np.linspace(0, count - 1, max(1, most // len(moments))).astype(np.intp))
    usable = exam.normal[moments][:, nodes]
    if not usable.any():
        return None
    ahead = {
        step: np.empty((len(moments), len(nodes), exam.compressed.shape[2]), np.float32) for step in steps
    }
    at_once = max(1, AT_ONCE // len(nodes))
    for first in range(0, len(moments), at_once):
        chunk = moments[first : first + at_once]
        back = (chunk - np.arange(CONTEXT_TICKS - 1, -1, -1)[:, None])[:, :, None]
        context = exam.compressed[back, nodes].reshape(CONTEXT_TICKS, -1, exam.compressed.shape[2])
        lstm = make(context.shape[1])
        if lstm is None:
            return None
        path = roll_out(lstm, context, max(steps))
        for step in steps:
            ahead[step][first : first + at_once] = path[step - 1].reshape(len(chunk), len(nodes), -1)
        report(first / len(moments), f"{first * len(nodes):,} forecasts")
    return Trial(ahead, moments, nodes, usable)


def errors(trial: Trial, exam: Exam, steps: int) -> dict[str, Array]:
    """Mean absolute error (f,) of the forecaster and its rivals, over the same values for all; NaN = none.

    Yesterday counts only where the history goes that far back.
    """
    nodes = trial.nodes
    target, last = (exam.compressed[np.ix_(at, nodes)] for at in (trial.moments + steps, trial.moments))
    said = {FORECASTER: trial.ahead[steps], PERSISTENCE: last, USUAL: np.zeros_like(target)}
    yesterday = trial.moments + steps - round(DAY_S / exam.interval_s)
    if yesterday.min() >= 0:
        said[SEASONAL] = exam.compressed[np.ix_(yesterday, nodes)]
    known = np.isfinite(target) & (trial.usable & exam.normal[trial.moments + steps][:, nodes])[:, :, None]
    for forecast in said.values():
        known &= np.isfinite(forecast)
    counts = known.sum(axis=(0, 1))
    truth = _clipped(target, known)
    result = {}
    for name, forecast in said.items():
        missed = np.abs(_clipped(forecast, known) - truth).sum(axis=(0, 1), dtype=np.float64)
        result[name] = np.where(counts > 0, missed / np.maximum(counts, 1), np.nan)
    return result


def _clipped(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.clip(np.where(known, values, np.float32(0.0)), -FORECAST_CLIP, FORECAST_CLIP)


def best_rival(found: Mapping[str, Array]) -> Array:
    """The smallest error (f,) of any rival, feature by feature."""
    rivals = [error for name, error in found.items() if name != FORECASTER]
    return np.asarray(np.minimum.reduce(rivals), dtype=np.float64)


def _horizon(
    seconds: float, trials: tuple[Trial, Trial], steps: int, exam: Exam, features: Sequence[Feature]
) -> HorizonEntry:
    before, now = (errors(trial, exam, steps) for trial in trials)
    moving = best_rival(now) > LEAST_ERROR  # NaN is not
    overall = {name: float(error[moving].mean()) for name, error in now.items()} if moving.any() else {}
    chosen = moving & (best_rival(before) > LEAST_ERROR) & (_skill(before) >= LEAST_SKILL)
    entry = HorizonEntry(seconds, overall or dict.fromkeys(now, 0.0))
    if not chosen.any():
        return entry
    together = 1.0 - float(now[FORECASTER][chosen].sum() / best_rival(now)[chosen].sum())
    own = _skill(now)
    shown = {features[at].name: float(own[at]) for at in np.flatnonzero(chosen).tolist() if own[at] > 0}
    return replace(entry, skill=together, features=shown if together >= LEAST_SKILL else {})


def _skill(found: Mapping[str, Array]) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1.0 - found[FORECASTER] / best_rival(found))


def normal_ranges(
    exam: Exam, features: Sequence[Feature], wanted: set[str]
) -> dict[str, tuple[float, float]]:
    """Low and high, in compressed units, that all but a few normal values of the fitted part lie between."""
    normal = np.flatnonzero(exam.normal[exam.fitted])
    some = normal[:: max(1, len(normal) // MOST_RANGE_ROWS)]
    table = exam.compressed[exam.fitted].reshape(-1, exam.compressed.shape[2])
    rows = table[some].astype(np.float64)
    ranges = {}
    for at, feature in enumerate(features):
        known = rows[np.isfinite(rows[:, at]), at]
        if feature.name in wanted and len(known):
            low, high = np.quantile(known, (RANGE_SHARE, 1.0 - RANGE_SHARE))
            ranges[feature.name] = (min(float(low), -LEAST_RANGE), max(float(high), LEAST_RANGE))
    return ranges


def _scored(
    entry: ForecastEntry,
    exam: Exam,
    features: tuple[Feature, ...],
    trials: tuple[Trial, Trial],
    note: Note,
) -> ForecastEntry:
    """With what makes a score of each horizon's level: fitted to forecasts of the part that chose.

    And with the false alarms that this gives on the other part.
    """
    bounds = NormalRange(entry, features)
    spacing = max(EVERY_S, exam.interval_s)
    horizons = []
    for one in entry.horizons:
        shown = one
        if one.features:
            before, now = (levels(bounds, trial, exam, one.seconds) for trial in trials)
            try:
                tail = fit_tail(list(before.T), spacing, exam.budget_per_week)
            except ValueError as error:
                note(f"forecast {one.seconds:g} s ahead is not shown: {error}")
                shown = replace(one, features={})
            else:
                alarms = false_alarm_rate(list(tail.score(now).T), spacing)
                shown = replace(one, tail=tail, alarms_per_week=alarms)
        horizons.append(shown)
    return replace(entry, horizons=tuple(horizons))


def levels(bounds: NormalRange, trial: Trial, exam: Exam, seconds: float) -> Array:
    """Levels (n, k) of the forecasts of one horizon; NaN where the node was not normal.

    Of the features that a node had at that moment, as core's Forecaster makes them.
    """
    ahead = trial.ahead[round(seconds / exam.interval_s)].astype(np.float64)
    ahead[~np.isfinite(exam.compressed[trial.moments][:, trial.nodes])] = np.nan
    outward = bounds.way_out(ahead).reshape(-1, ahead.shape[2])
    found = bounds.level(seconds, outward).reshape(trial.usable.shape)
    return np.where(trial.usable, found, np.nan)
