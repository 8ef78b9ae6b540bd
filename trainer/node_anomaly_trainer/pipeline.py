"""A training run as one page: fetch -> fit -> calibrate -> judge through core -> gate -> publish."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from node_anomaly_trainer import gate
from node_anomaly_trainer.assess import assess
from node_anomaly_trainer.candidate import Candidate, golden_vectors, split
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import NORMAL, UNKNOWN, History, require_trainable
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.fitting import fit
from node_anomaly_trainer.labels import apply_incidents, read_incidents
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.publish import publish
from node_anomaly_trainer.sources import fetch

MINIMUM_TICKS = 1_000


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
    seconds: float


def train(config: TrainConfig, progress: Progress) -> TrainingReport:
    """Run once. Raises TrainingError, SourceError or ConfigError.

    A rejected candidate is a result, not an error.
    """
    begun = time.monotonic()
    with progress.phase("history") as report:
        history = labelled(fetch(config, report, progress.note), config, progress)
    notes = require_trainable(history, MINIMUM_TICKS).lines()
    for line in notes:
        progress.note(line)
    candidate, evaluation = build(history, config, progress)
    reasons = gate.judge(evaluation, config.gate.limits)
    path = None
    if not reasons:
        with progress.phase("publish"):
            root = Path(config.publish.directory)
            path = publish(root, candidate.manifest, candidate.files, config.publish.keep)
    return TrainingReport(
        outcome="rejected" if reasons else "accepted",
        reasons=reasons,
        evaluation=evaluation,
        path=path,
        version=path.name if path else "",
        notes=notes,
        seconds=time.monotonic() - begun,
    )


def build(history: History, config: TrainConfig, progress: Progress) -> tuple[Candidate, Evaluation]:
    """Fit, calibrate and judge a candidate on one history; publishes nothing."""
    parts = split(history, config)
    candidate = fit(parts, config, progress)
    with progress.phase("calibrate and judge") as report:
        candidate, evaluation = assess(parts, candidate, config.training.seed, report)
    golden = golden_vectors(candidate, history)
    return replace(candidate, files={**candidate.files, **golden}), evaluation


def labelled(history: History, config: TrainConfig, progress: Progress) -> History:
    """With the user's incidents; a history that nobody has labelled is taken as normal."""
    if config.labels.incidents:
        incidents = read_incidents(Path(config.labels.incidents))
        return apply_incidents(history, incidents, config.labels.guard, progress.note)
    if (history.labels == UNKNOWN).all():
        return replace(history, labels=np.full_like(history.labels, NORMAL))
    return history
