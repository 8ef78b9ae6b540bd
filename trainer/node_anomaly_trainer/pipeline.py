"""A training run as one page: fetch, fit, calibrate, judge through core, gate, record, publish."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from node_anomaly_core.calibration import ENOUGH_TICKS
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer import gate, registry
from node_anomaly_trainer.arrays import Empty, in_memory
from node_anomaly_trainer.assess import Assessed, Questions, assess
from node_anomaly_trainer.blas import one_blas_thread
from node_anomaly_trainer.calibrate import calibrate_known
from node_anomaly_trainer.candidate import Candidate, Parts, golden_vectors, raw_scores, split
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import MINIMUM_TICKS, History, require_trainable
from node_anomaly_trainer.delivery import publish_candidate, require, seal
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.faults import Fault
from node_anomaly_trainer.fitting import LabelledRows, fit
from node_anomaly_trainer.forecast_figures import ForecastFigures, forecast_figures
from node_anomaly_trainer.forecast_skill import with_forecast
from node_anomaly_trainer.labelling import Labelled, label
from node_anomaly_trainer.moment import moment
from node_anomaly_trainer.production import in_production
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.report.run import Artifacts, write_run
from node_anomaly_trainer.run_metrics import TimedProgress, tell, told_when_it_fails
from node_anomaly_trainer.sources import disturbed, fetch
from node_anomaly_trainer.workspace import Workspace


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """How a run ended: `outcome` is accepted or rejected, `reasons` say why not.

    `path` is the published bundle.
    """

    outcome: str
    reasons: tuple[str, ...]
    evaluation: Evaluation
    path: Path | None
    version: str
    notes: tuple[str, ...]
    excluded: Mapping[str, float]
    """Node-hours that neither trained, nor calibrated, nor judged, by reason."""
    events: Mapping[str, int]
    """Real incidents that the Random Forest could learn from, by where they are known from."""
    seconds: float
    allowances: tuple[str, ...] = ()
    """What was let pass, and why; see gate.allowances."""
    artifacts: Artifacts | None = None
    """The run's HTML report, the same as JSON, and the model card."""
    samples: int = 0
    """Values of the history that are no gaps."""
    trained_at: float = 0.0
    """Unix seconds, of the candidate."""
    forecast: tuple[ForecastFigures, ...] = ()
    """How well the LSTM foresees, by horizon."""
    recorded: registry.Recorded | None = None
    """Where MLflow has the run."""


def train(config: TrainConfig, progress: Progress, *, deploy: bool = True) -> TrainingReport:
    """Run once, and publish what is accepted unless told not to.

    Raises TrainingError, SourceError or ConfigError. A rejected candidate is a result, not an error.
    """
    timed = TimedProgress(progress)
    with told_when_it_fails(config.metrics, timed):
        done = _run(config, timed, deploy=deploy)
    tell(config.metrics, timed, done)
    return done


def _run(config: TrainConfig, progress: Progress, *, deploy: bool) -> TrainingReport:
    begun = time.monotonic()
    require(config)
    production = in_production(Path(config.publish.directory), config.interval, progress.note)
    workspace = Workspace(config.training, progress.note, rival=production is not None)
    with progress.phase("history") as report:
        history = fetch(config, report, progress.note, workspace.admit)
    notes = require_trainable(history, MINIMUM_TICKS).lines()
    labelled = labelled_history(history, config, progress)
    samples = int(np.isfinite(history.values).sum())
    del history  # what is left of it may be a copy, and two would not fit where one does
    notes += labelled.lines
    for line in notes:
        progress.note(line)
    staged = disturbed(config, config.training.faults_per_node_day / 2)
    questions = Questions(production, labelled.false_alarms)
    assessed = build(labelled.history, config, progress, staged, questions, workspace.empty)
    reasons = gate.judge(assessed.evaluation, config.limits)
    sealed = seal(config, assessed)
    done = TrainingReport(
        outcome="rejected" if reasons else "accepted",
        reasons=reasons,
        evaluation=assessed.evaluation,
        path=None,
        version=sealed.archived.version if deploy and not reasons else "",
        notes=notes,
        excluded=labelled.excluded,
        events=labelled.events,
        seconds=time.monotonic() - begun,
        allowances=gate.allowances(assessed.evaluation, config.limits),
        samples=samples,
        trained_at=sealed.archived.trained_at,
        forecast=forecast_figures(assessed.candidate.manifest),
    )
    with progress.phase("report"):
        done = replace(done, artifacts=write_run(config.report, done, assessed, production))
    with progress.phase("record"):
        record = registry.record(config, done, sealed.archived, sealed.losses, progress.note)
    if deploy and not reasons:
        with progress.phase("publish"):
            done = replace(done, path=publish_candidate(config, assessed, progress.note))
    return replace(done, recorded=record, seconds=time.monotonic() - begun)


@one_blas_thread()
def prepare(
    history: History,
    config: TrainConfig,
    progress: Progress,
    borrowed: LabelledRows | None = None,
    least: int = ENOUGH_TICKS,
) -> Candidate:
    """Fit on the first part and calibrate on all of the rest; nothing is judged and nothing published.

    Raises TrainingError, also where a member has fewer than `least` scores on the rest.
    """
    parts = split(history, config)
    parts = replace(
        parts,
        calibration=slice(parts.fit.stop, history.ticks),
        judged=slice(history.ticks, history.ticks),
    )
    candidate = fit(parts, config, progress, borrowed)
    with progress.phase("calibrate") as report:
        raw = raw_scores(candidate, candidate.clean, history.interval_s, parts.late, report)
        manifest = calibrate_known(parts, raw, candidate.manifest, parts.calibration, least)
    candidate = replace(candidate, manifest=manifest)
    return replace(candidate, files={**candidate.files, **golden_vectors(candidate, history)})


@one_blas_thread()
def build(
    history: History,
    config: TrainConfig,
    progress: Progress,
    staged: tuple[History, list[Fault]] | None = None,
    questions: Questions | None = None,
    empty: Empty = in_memory,
) -> Assessed:
    """Fit, calibrate and judge a candidate on one history; publishes nothing.

    `empty` makes the arrays that grow with the history.
    """
    parts = split(history, config, staged, empty)
    _require_calibration(parts)
    candidate = fit(parts, config, progress, empty=empty)
    with progress.phase("calibrate and judge") as report:
        assessed = assess(parts, candidate, config.training.seed, report, questions, progress.note, empty)
    with progress.phase("forecast") as report:
        final = with_forecast(parts, assessed.candidate, config.forecast, report, progress.note)
    golden = golden_vectors(final, history)
    return replace(assessed, candidate=replace(final, files={**final.files, **golden}))


def _require_calibration(parts: Parts) -> None:
    """Raises TrainingError, before minutes of fitting, where too little is held back to calibrate on."""
    if parts.clean.origin.get("source") == "synthetic":
        return  # it is calibrated on stretches of all of it
    part = parts.calibration
    known = parts.normal[part] & np.isfinite(parts.clean.values[part]).any(axis=2)
    if int(known.sum()) >= ENOUGH_TICKS:
        return
    begin, end = (moment(parts.clean.timestamps[at]) for at in (part.start, part.stop - 1))
    raise TrainingError(
        f"calibration: from {begin} to {end} all nodes together have {int(known.sum())} normal ticks, "
        f"{ENOUGH_TICKS} are needed",
        "a longer history, more nodes, or a range whose last quarter has no gap; "
        "or lower training.fit_fraction",
    )


def labelled_history(history: History, config: TrainConfig, progress: Progress) -> Labelled:
    """What is normal, what was an incident, and what is left out; see labelling."""
    with progress.phase("labels and exclusions"):
        return label(history, config, progress.note)
