"""What every member says of one entity, tick by tick, kept in a file: all that ablation.py tabulates.

Training goes as in a bench (pipeline.prepare), and a node with the exported bundle lives the calibration part
and then the test. Beside the product's members stand those that it is compared with: the Random Forest with
labels of other servers, the LSTM before it was made int8, and the detectors of trainer's bench.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import compress, residual_scale
from node_anomaly_core.evidence import FORECAST_CLIP, ForecastPath, feature_sides
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.manifest import ModelEntry
from node_anomaly_core.members import Models
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_trainer.bench.baselines import DETECTORS, MOST_ROWS
from node_anomaly_trainer.bench.data import Entry, Series, load
from node_anomaly_trainer.bench.lenders import borrow
from node_anomaly_trainer.bench.plan import history_of, planned, values_of
from node_anomaly_trainer.calibrate import PLACEHOLDER_SCALE, PLACEHOLDER_TAIL, comparison_budget
from node_anomaly_trainer.candidate import LEAD_IN_TICKS, Candidate, Parts, raw_scores, split
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.fitting import FORECAST_SCALE_TICKS, FOREST_WEIGHT, LabelledRows
from node_anomaly_trainer.models import TrainingSet
from node_anomaly_trainer.models.lstm import LSTMModel
from node_anomaly_trainer.models.random_forest import RandomForestModel
from node_anomaly_trainer.pipeline import prepare
from node_anomaly_trainer.progress import Report, SilentProgress, ignore_report
from node_anomaly_trainer.weights import weighted
from node_anomaly_trainer.whole_file import write_whole

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.ablation_variants import BASELINE, LSTM, LSTM_FLOAT, OTHERS, Measured

BUDGET_PER_WEEK = 7.0
LEAD_TICKS, WINDOW_TICKS = 120, 360  # the forecaster has found its feet after the lead; no figure moves
_REPORT_EVERY = 200

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MeasureEntity:
    """A task for the processes of trainer's bench."""

    entry: Entry
    path: Path
    config: TrainConfig
    fingerprint: str
    lenders: tuple[Path, ...]

    def run(self, report: Report) -> None:
        """Measure and write the file. Raises TrainingError where the trainer makes no bundle."""
        series, _ = load(self.entry)
        config = planned(self.config, series.train, series.interval_s).config
        made = measure(series, config, borrow(self.lenders) if self.lenders else None, report)
        content = BytesIO()
        arrays: dict[str, Any] = {f"calibration {name}": values for name, values in made.calibration.items()}
        arrays |= {f"lived {name}": values for name, values in made.lived.items()}
        told = {"fingerprint": self.fingerprint, "weights": made.weights, "learned": made.learned}
        np.savez_compressed(content, told=np.array(json.dumps(told)), **arrays)
        write_whole(self.path, content.getvalue())


def read_measured(path: Path, wanted: str) -> Measured | None:
    """What was measured before, or None if it is not there, damaged, or of other data or other code."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            told = json.loads(str(file["told"]))
            if told["fingerprint"] != wanted:
                return None
            kinds: dict[str, dict[str, Array]] = {"calibration": {}, "lived": {}}
            for key in file.files:
                kind, _, name = key.partition(" ")
                if name:
                    kinds[kind][name] = file[key]
            return Measured(kinds["calibration"], kinds["lived"], told["weights"], told["learned"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
        return None


def measure(series: Series, config: TrainConfig, borrowed: LabelledRows | None, report: Report) -> Measured:
    """Train, replay, live. Raises TrainingError where the trainer makes no bundle."""
    history = history_of(series, series.train)
    candidate = prepare(history, config, SilentProgress())
    report(0.5, "trained")
    whole = split(history, config)
    held_back = slice(whole.fit.stop, history.ticks)
    parts = replace(whole, calibration=held_back, judged=slice(history.ticks, history.ticks))
    learned = _learned_weights(parts, candidate)
    if borrowed is not None:
        candidate = with_others(candidate, borrowed, config)
    raw = raw_scores(candidate, candidate.clean, series.interval_s, held_back, ignore_report)
    calibration = {name: scores[held_back, 0] for name, scores in raw.items()}
    report(0.6, "calibrated")
    lived = live(candidate, series, held_back.start, report)
    forecaster = candidate.models.get(LSTM)
    if isinstance(forecaster, LSTMModel):
        lived[LSTM_FLOAT] = float_forecasts(candidate, forecaster.network, series, held_back.start)
    report(0.95, "baselines")
    train = values_of(series.train)
    later = np.concatenate([train[held_back], values_of(series.test)])
    for name, detector in DETECTORS.items():
        fitted = train[: held_back.start][-MOST_ROWS:]
        lived[BASELINE + name] = detector(fitted, later, config.training.seed)
    ticks = history.ticks - held_back.start
    calibration |= {name: scores[:ticks] for name, scores in lived.items() if name not in calibration}
    weights = {model.name: model.weight for model in candidate.manifest.models}
    return Measured(calibration, lived, weights, learned)


def _learned_weights(parts: Parts, candidate: Candidate) -> dict[str, float]:
    """As a training run learns them (trainer's assess.py), here from all that was held back."""
    clean, faulted = (
        raw_scores(candidate, replayed, parts.clean.interval_s, parts.late, ignore_report)
        for replayed in (candidate.clean, candidate.faulted)
    )
    budget = 2 * comparison_budget(parts, BUDGET_PER_WEEK)
    manifest = weighted(parts, candidate.manifest, clean, faulted, budget)
    return {model.name: model.weight for model in manifest.models}


def with_others(candidate: Candidate, borrowed: LabelledRows, config: TrainConfig) -> Candidate:
    """The candidate with one member more: a Random Forest fitted on other servers' incidents alone."""
    nothing = np.empty((0, SUMMARY_WIDTH), dtype=np.float32)
    no_values = np.empty((0, 1, 1), dtype=np.float32)
    forest = RandomForestModel(config.models.random_forest)
    rows = TrainingSet(
        summary=nothing,
        normalised=nothing,
        fault_summary=borrowed.summary,
        fault_normalised=borrowed.normalised,
        fault_labels=borrowed.labels,
        compressed=no_values,
        mask=np.isfinite(no_values),
        real=True,
    )
    forest.fit(rows, config.training.seed, ignore_report)
    file = f"{OTHERS}.safetensors"
    entry = ModelEntry(
        OTHERS, forest.type, file, forest.input, PLACEHOLDER_SCALE, PLACEHOLDER_TAIL, FOREST_WEIGHT[True]
    )
    manifest = replace(candidate.manifest, models=(*candidate.manifest.models, entry))
    return replace(candidate, manifest=manifest, files={**candidate.files, file: forest.export()})


def live(candidate: Candidate, series: Series, start: int, report: Report) -> dict[str, Array]:
    """Raw scores (c + t,) of every member of the bundle on a node that starts at tick `start` of train."""
    bundle = candidate.bundle()
    scorer = NodeScorer(bundle, series.interval_s, series.entry.name, Models(bundle))
    rows = np.concatenate([values_of(series.train[start:]), values_of(series.test)])
    lived = {model.name: np.full(len(rows), np.nan) for model in bundle.manifest.models}
    for at, row in enumerate(rows):
        for name, score in scorer.measure(series.start_s + (start + at) * series.interval_s, row).items():
            lived[name][at] = score
        if at % _REPORT_EVERY == 0:
            report(0.6 + 0.35 * at / len(rows), "live")
    return lived


def float_forecasts(candidate: Candidate, network: Any, series: Series, start: int) -> Array:
    """Scores (c + t,) of the forecaster as Keras computes it, by core's own arithmetic around it."""
    cohort, sides = candidate.cohort, feature_sides(candidate.manifest.features)
    rows = np.concatenate([values_of(series.train), values_of(series.test)])
    compressed = compress(rows, cohort.node_centre[0], cohort.node_scale[0])
    bounded = np.clip(compressed, -FORECAST_CLIP, FORECAST_CLIP)
    forecast = in_windows(network, np.where(np.isfinite(bounded), bounded, 0.0).astype(np.float32))
    late = slice(max(1, start - FORECAST_SCALE_TICKS), start)
    errors = bounded[late] - forecast[late.start - 1 : late.stop - 1]
    usual = residual_scale(errors[:, None, :])[0]
    usual = np.where(np.isfinite(usual), usual, 1.0)
    begin = max(0, start - LEAD_IN_TICKS)
    recorded = cast("StepLSTM", _Recorded(forecast[begin:]))
    path = ForecastPath(recorded, 1, sides, usual, series.interval_s)
    scores = np.array([path.step(row[None]).score[0] for row in compressed[begin:]])
    return scores[start - begin :]


def in_windows(network: Any, fed: NDArray[np.float32]) -> Array:
    """Forecasts (n, f) after each of n ticks (n, f), from overlapping windows, all in a few large batches."""
    starts = np.arange(0, len(fed), WINDOW_TICKS)
    padded = np.concatenate([np.zeros((LEAD_TICKS, fed.shape[1]), np.float32), fed])
    padded = np.concatenate([padded, np.zeros((WINDOW_TICKS, fed.shape[1]), np.float32)])
    windows = padded[starts[:, None] + np.arange(LEAD_TICKS + WINDOW_TICKS)]
    forecast = np.asarray(network.predict(windows, batch_size=64, verbose=0))[:, LEAD_TICKS:]
    return forecast.reshape(-1, fed.shape[1])[: len(fed)].astype(np.float64)


class _Recorded:
    """Stands where the step of the LSTM would: hands out forecasts (n, f) that were made before."""

    def __init__(self, forecasts: Sequence[Array] | Array) -> None:
        self._left = iter(forecasts)

    def step(self, _: NDArray[np.floating]) -> Array:
        """The next forecast (1, f)."""
        return np.asarray(next(self._left))[None]
