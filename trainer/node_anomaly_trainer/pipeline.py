"""A training run as one page: fetch -> fit -> export -> judge through core -> gate -> publish."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from node_anomaly_core import __version__
from node_anomaly_core.bundle import GOLDEN_FILE, golden_scores
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.evidence import FORECAST_CLIP, Cohort
from node_anomaly_core.manifest import Manifest, ModelEntry
from node_anomaly_core.scoring import COHORT_FILE, Models, judge
from node_anomaly_core.tensors import write_tensors
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer import evaluate, gate
from node_anomaly_trainer.calibrate import PLACEHOLDER_SCALE, PLACEHOLDER_TAIL, calibrated
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, UNKNOWN, History, require_trainable
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.faults import Fault, inject_faults
from node_anomaly_trainer.labels import apply_incidents, guard_band, read_incidents
from node_anomaly_trainer.models import MODELS, Model, TrainingSet
from node_anomaly_trainer.models.baselines import BASELINES
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.publish import publish
from node_anomaly_trainer.replay import (
    Replayed,
    fit_cohort,
    replay_forecasts,
    replay_fresh,
    replay_residuals,
    stretches,
    with_summary,
)
from node_anomaly_trainer.sources import fetch

MINIMUM_TICKS = 1_000
BURN_IN_TICKS = 120  # windows that are still filling say nothing about normal
MOST_FOREST_ROWS = 40_000
MOST_BASELINE_TICKS = 20_000

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """How a run ended: `outcome` is accepted or rejected, `reasons` say why not, `path` is the published bundle."""

    outcome: str
    reasons: tuple[str, ...]
    evaluation: Evaluation
    path: Path | None
    version: str
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Parts:
    """History twice, as it was and with faults in it, and where its parts end (in ticks)."""

    clean: History
    faulted: History
    faults: list[Fault]
    fit: slice
    calibration: slice
    judged: slice


@dataclass(frozen=True, slots=True)
class Fitted:
    """The members, what they were fed, and the bundle they make before calibration."""

    models: dict[str, Model]
    cohort: Cohort
    clean: Replayed
    faulted: Replayed
    manifest: Manifest
    files: dict[str, bytes]

    def bundle(self, manifest: Manifest | None = None) -> Bundle:
        """In memory, as an agent would have read it from disk."""
        return Bundle(Path("candidate"), "candidate", manifest or self.manifest, self.files)


def train(config: TrainConfig, progress: Progress) -> TrainingReport:
    """Run once. Raises TrainingError, SourceError or ConfigError; a rejected candidate is a result, not an error."""
    begun = time.monotonic()
    with progress.phase("history") as report:
        history = _labelled(fetch(config, report, progress.note), config, progress)
    coverage = require_trainable(history, MINIMUM_TICKS)
    for line in coverage.lines():
        progress.note(line)
    parts = split(history, config)
    fitted = fit(parts, config, progress)
    fitted = replace(fitted, manifest=calibrate(parts, fitted, config, progress))
    fitted = with_golden(fitted, parts)
    with progress.phase("judge") as report:
        evaluation = assess(parts, fitted, config, report)
    reasons = gate.judge(evaluation, config.gate.limits)
    path = None
    if not reasons:
        with progress.phase("publish"):
            path = publish(Path(config.publish.directory), fitted.manifest, fitted.files, config.publish.keep)
    return TrainingReport(
        outcome="rejected" if reasons else "accepted",
        reasons=reasons,
        evaluation=evaluation,
        path=path,
        version=path.name if path else "",
        notes=coverage.lines(),
        seconds=time.monotonic() - begun,
    )


def _labelled(history: History, config: TrainConfig, progress: Progress) -> History:
    if config.labels.incidents:
        incidents = read_incidents(Path(config.labels.incidents))
        return apply_incidents(history, incidents, config.labels.guard, progress.note)
    if not (history.labels == UNKNOWN).all():
        return history
    return replace(history, labels=np.full_like(history.labels, NORMAL))


def split(history: History, config: TrainConfig) -> Parts:
    """Time-ordered: fit first, then calibrate, then judge on the latest; faults go into a copy of all three."""
    faulted, faults = inject_faults(history, config.training.faults_per_node_day, config.training.seed)
    fit_end = int(history.ticks * config.training.fit_fraction)
    calibration_end = fit_end + (history.ticks - fit_end) // 2
    return Parts(
        history,
        faulted,
        faults,
        slice(0, fit_end),
        slice(fit_end, calibration_end),
        slice(calibration_end, history.ticks),
    )


def fit(parts: Parts, config: TrainConfig, progress: Progress) -> Fitted:
    """Baselines, the summary's scale and every member, from the fit part alone."""
    early = parts.clean.between(0.0, parts.fit.stop / parts.clean.ticks)
    with progress.phase("baselines") as report:
        cohort = fit_cohort(early, report)
    with progress.phase("replay history") as report:
        clean, cohort = with_summary(
            replay_residuals(parts.clean, cohort, report), cohort, parts.fit.stop, parts.clean.interval_s
        )
    with progress.phase("replay faults") as report:
        faulted = replay_residuals(parts.faulted, cohort, report)
    data = training_set(parts, clean, faulted, config.training.seed)
    models: dict[str, Model] = {}
    for name in config.models.enabled:
        models[name] = MODELS[name](config.models)
        with progress.phase(f"fit {name}") as report:
            models[name].fit(data, config.training.seed, report)
    files = {model.filename: model.export() for model in models.values()}
    manifest = Manifest(
        features=parts.clean.features,
        interval_s=parts.clean.interval_s,
        models=tuple(
            ModelEntry(model.name, model.type, model.filename, model.input, PLACEHOLDER_SCALE, PLACEHOLDER_TAIL)
            for model in models.values()
        ),
        tail=PLACEHOLDER_TAIL,
        budget_per_week=config.budget.false_alarms_per_node_week,
        trained_at=float(int(time.time())),
        origin="trained",
        nodes=parts.clean.nodes,
        provenance=provenance(parts.clean, config),
        files={},
    )
    fitted = Fitted(models, cohort, clean, faulted, manifest, files)
    scale = forecast_scale(fitted, parts)
    cohort = replace(cohort, forecast_scale=scale)
    return replace(fitted, cohort=cohort, files={**files, COHORT_FILE: write_tensors(cohort.tensors())})


def training_set(parts: Parts, clean: Replayed, faulted: Replayed, seed: int) -> TrainingSet:
    """Rows of the fit part: normal ones for the unsupervised members, labelled ones for the Random Forest."""
    rng = np.random.default_rng(seed)
    rows = slice(BURN_IN_TICKS, parts.fit.stop)
    normal = np.flatnonzero((parts.clean.labels[rows] != ANOMALOUS).ravel())
    normal = np.sort(rng.choice(normal, min(MOST_FOREST_ROWS, len(normal)), replace=False))
    width = clean.summary.shape[-1]
    labels = guard_band(parts.faulted.labels, 30)[rows].ravel()
    compressed = clean.compressed[parts.fit]
    return TrainingSet(
        summary=clean.summary[rows].reshape(-1, width)[normal],
        normalised=clean.normalised[rows].reshape(-1, width)[normal],
        fault_summary=faulted.summary[rows].reshape(-1, width),
        fault_normalised=faulted.normalised[rows].reshape(-1, width),
        fault_labels=labels,
        compressed=compressed,
        mask=np.isfinite(compressed),
    )


def forecast_scale(fitted: Fitted, parts: Parts) -> Array:
    """Usual size (f,) of the forecaster's error on the fit part, all nodes pooled; 1 where there is none."""
    from node_anomaly_core.baseline import residual_scale

    features = len(parts.clean.features)
    cohort = replace(fitted.cohort, forecast_scale=np.ones(features))
    bundle = replace(fitted, files={**fitted.files, COHORT_FILE: write_tensors(cohort.tensors())}).bundle()
    path = Models(bundle).forecast_path(len(parts.clean.nodes), parts.clean.interval_s)
    if path is None:
        return np.ones(features)
    errors = []
    for values in fitted.clean.compressed[parts.fit][-4_000:]:
        bounded = np.clip(values.astype(np.float64), -FORECAST_CLIP, FORECAST_CLIP)
        errors.append(bounded - path.step(bounded).forecast)
    scale = residual_scale(np.concatenate(errors[1:])[:, None])[0]
    return np.where(np.isfinite(scale), scale, 1.0)


def raw_scores(fitted: Fitted, replayed: Replayed, interval_s: float) -> dict[str, Array]:
    """Raw score (t, m) of every member of the exported bundle over a replay."""
    models = Models(fitted.bundle())
    ticks, nodes, width = replayed.summary.shape
    forests = models.forest_scores(
        replayed.summary.reshape(-1, width).astype(np.float64), replayed.normalised.reshape(-1, width).astype(np.float64)
    )
    raw = {name: score.reshape(ticks, nodes) for name, score in forests.items()}
    path = models.forecast_path(nodes, interval_s)
    if path is not None and models.forecaster is not None:
        raw[models.forecaster] = replay_forecasts(path, replayed.compressed, lambda *_: None)
    return raw


def calibrate(parts: Parts, fitted: Fitted, config: TrainConfig, progress: Progress) -> Manifest:
    """1.0 = the budget, on normal data that no member was fitted on.

    A simulated fleet has no node of yours, so its bundle is calibrated as it will be used: by scorers that have never
    seen the node. History of your own nodes is calibrated with the baselines that the bundle carries for them.
    """
    interval = parts.clean.interval_s
    if parts.clean.origin.get("source") == "synthetic":
        with progress.phase("calibrate on fresh nodes") as report:
            late = parts.clean.between(parts.fit.stop / parts.clean.ticks, 1.0)
            pieces = stretches(late, FRESH_TICKS, FRESH_STRETCHES, config.training.seed)
            series = replay_fresh(fitted.bundle(), late, pieces, report)
        return calibrated(fitted.manifest, series)
    with progress.phase("calibrate"):
        raw = raw_scores(fitted, fitted.clean, interval)
        normal = parts.clean.labels != ANOMALOUS
        series = [
            {
                name: np.where(normal[parts.calibration, node], scores[parts.calibration, node], np.nan)
                for name, scores in raw.items()
            }
            for node in range(len(parts.clean.nodes))
        ]
    return calibrated(fitted.manifest, series)


FRESH_TICKS = 1_200
FRESH_STRETCHES = 16


def with_golden(fitted: Fitted, parts: Parts) -> Fitted:
    """Add the golden vectors: a short history with a fault at its end, and the scores it gets here."""
    from node_anomaly_core.scoring import NodeScorer

    warmup = NodeScorer(fitted.bundle(), parts.clean.interval_s).warmup_ticks
    rows = np.array(parts.clean.values[: warmup + 24, 0])
    rows[-4:] *= 3.0
    values = rows.astype(np.float32)
    scores = golden_scores(fitted.bundle(), values.astype(np.float64))
    golden = write_tensors({"values": values, "scores": scores})
    return replace(fitted, files={**fitted.files, GOLDEN_FILE: golden})


def assess(parts: Parts, fitted: Fitted, config: TrainConfig, report: evaluate.Report) -> Evaluation:
    """Everything the gate asks, on the judged part, from the exported bundle."""
    interval, budget = parts.clean.interval_s, fitted.manifest.budget_per_week
    normal = parts.clean.labels != ANOMALOUS
    judged = [fault for fault in parts.faults if fault.start >= parts.judged.start]
    report(0.05, "normal data")
    clean = _scores(fitted, raw_scores(fitted, fitted.clean, interval))
    report(0.3, "injected faults")
    faulted = _scores(fitted, raw_scores(fitted, fitted.faulted, interval))
    for number, make in enumerate(BASELINES):
        baseline = make()
        report(0.5 + 0.2 * number, baseline.name)
        part = fitted.clean.compressed[parts.fit][-MOST_BASELINE_TICKS:]
        baseline.fit(part, np.isfinite(part), config.training.seed)
        late = slice(parts.calibration.start, None)
        for scores, source in ((clean, fitted.clean), (faulted, fitted.faulted)):
            rows = source.compressed[late]
            raw = np.full(source.compressed.shape[:2], np.nan)
            raw[late] = baseline.score(rows, np.isfinite(rows))
            if source is fitted.clean:
                calibration = raw
            series = [
                np.where(normal[parts.calibration, node], calibration[parts.calibration, node], np.nan)
                for node in range(raw.shape[1])
            ]
            scores[baseline.name] = evaluate.fit_tail(series, interval, budget).score(raw)
    hits = {name: _hits(parts, scores, judged) for name, scores in faulted.items()}
    alarms = {
        name: evaluate.false_alarm_rate(_columns(np.where(normal, scores, np.nan)[parts.judged]), interval)
        for name, scores in clean.items()
    }
    kinds = sorted({fault.kind for fault in judged})
    cost, ticks = evaluate.measure_cost(fitted.bundle(), parts.clean)
    report(0.95, "parity")
    return Evaluation(
        false_alarms_per_node_week=alarms["combined"],
        node_weeks=evaluate.known_weeks(_columns(clean["combined"][parts.judged]), interval),
        budget=budget,
        fault_recall={name: evaluate.recall(found) for name, found in hits.items()},
        false_alarms=alarms,
        recall_by_kind={
            kind: evaluate.recall([h for h, fault in zip(hits["combined"], judged, strict=True) if fault.kind == kind])
            for kind in kinds
        },
        faults=len(judged),
        parity_forest_max=forest_parity(fitted),
        parity_lstm_max=lstm_parity(fitted),
        tick_cpu_seconds=cost,
        ticks=ticks,
        bundle_bytes=sum(len(data) for data in fitted.files.values()),
    )


def _scores(fitted: Fitted, raw: Mapping[str, Array]) -> dict[str, Array]:
    combined, members, _ = judge(fitted.manifest, raw)
    return {"combined": combined, **members}


def _columns(scores: Array) -> list[Array]:
    return [scores[:, node] for node in range(scores.shape[1])]


def _hits(parts: Parts, scores: Array, faults: list[Fault]) -> list[bool]:
    by_node = dict(zip(parts.clean.nodes, _columns(scores), strict=True))
    return evaluate.caught(by_node, faults)


def forest_parity(fitted: Fitted) -> float:
    """Largest difference between the exported forests and scikit-learn over 2,000 rows of faulted history."""
    width = fitted.faulted.summary.shape[-1]
    rows = fitted.faulted.summary.reshape(-1, width)[-2_000:]
    normalised = fitted.faulted.normalised.reshape(-1, width)[-2_000:]
    scores = Models(fitted.bundle()).forest_scores(rows.astype(np.float64), normalised.astype(np.float64))
    known = ~np.isnan(rows).all(axis=1)
    differences = [0.0]
    for name, score in scores.items():
        model = fitted.models[name]
        reference = model.reference_score(normalised if model.input == "summary_normalised" else rows)
        differences.append(float(np.abs(score - reference)[known].max()))
    return max(differences)


def lstm_parity(fitted: Fitted) -> float:
    """Largest difference between the exported step and Keras over 200 ticks from a fresh start; 0 without an LSTM."""
    from node_anomaly_core.lstm import StepLSTM

    model = next((model for model in fitted.models.values() if model.type == "lstm"), None)
    if model is None:
        return 0.0
    rows = np.nan_to_num(np.clip(fitted.clean.compressed[:200], -FORECAST_CLIP, FORECAST_CLIP)).astype(np.float32)
    step = StepLSTM(fitted.files[model.filename], rows.shape[2], rows.shape[1])
    exported = np.stack([step.step(row) for row in rows])
    return float(np.abs(exported - model.reference_score(rows)).max())


def provenance(history: History, config: TrainConfig) -> dict[str, str | float]:
    """Where the bundle comes from, for `bundle show` and the page of the agent."""
    if not history.nodes:
        raise TrainingError("the history holds no node", "check the source")
    return {
        **dict(history.origin),
        "nodes": float(len(history.nodes)),
        "from": float(history.timestamps[0]),
        "to": float(history.timestamps[-1]),
        "seed": float(config.training.seed),
        "trainer": __version__,
        "scikit_learn": version("scikit-learn"),
    }
