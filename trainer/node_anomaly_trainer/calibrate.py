"""From raw member scores on normal data to a manifest whose 1.0 is the false-alarm budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import MemberScale, Tail, combine, fit_member, fit_tail
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.manifest import Manifest
from node_anomaly_trainer.candidate import Candidate, Parts, raw_scores
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.replay import replay_fresh, stretches

FRESH_TICKS = 1_200
FRESH_STRETCHES = 16

Array = NDArray[np.float64]
Raw = Mapping[str, Array]

PLACEHOLDER_SCALE = MemberScale(0.0, 1.0)
PLACEHOLDER_TAIL = Tail((0.0, 1.0), (0.0, -1.0), -1.0)
"""Stand in for a calibration while the raw scores that it is made of are being measured."""


def calibrate(parts: Parts, candidate: Candidate, config: TrainConfig, progress: Progress) -> Manifest:
    """1.0 = the budget, on normal data that no member was fitted on.

    A simulated fleet has no node of yours, so its bundle is calibrated as it will be used: by scorers that
    have never seen the node. History of your own nodes is calibrated with the baselines that the bundle
    carries for them.
    """
    if parts.clean.origin.get("source") == "synthetic":
        with progress.phase("calibrate on fresh nodes") as report:
            late = parts.clean.between(parts.fit.stop / parts.clean.ticks, 1.0)
            pieces = stretches(late, FRESH_TICKS, FRESH_STRETCHES, config.training.seed)
            return calibrated(candidate.manifest, replay_fresh(candidate.bundle(), late, pieces, report))
    with progress.phase("calibrate") as report:
        raw = raw_scores(candidate, candidate.clean, parts.clean.interval_s, parts.calibration, report)
    normal = parts.normal[parts.calibration]
    series = [
        {
            name: np.where(normal[:, node], scores[parts.calibration, node], np.nan)
            for name, scores in raw.items()
        }
        for node in range(len(parts.clean.nodes))
    ]
    return calibrated(candidate.manifest, series)


def calibrated(manifest: Manifest, series: Sequence[Raw]) -> Manifest:
    """The manifest with every member and their combination calibrated on normal raw scores.

    `series` holds, per node or stretch, the raw score (t,) of each member; NaN where unknown or not normal.
    Raises TrainingError if there is too little normal data.
    """
    models = []
    evidence: list[list[Array]] = [[] for _ in series]
    for model in manifest.models:
        scale = fit_member(_known(series, model.name))
        own = [scale.evidence(raw[model.name]) for raw in series]
        for collected, values in zip(evidence, own, strict=True):
            collected.append(values)
        models.append(replace(model, scale=scale, tail=_tail(own, manifest)))
    combined = [combine(members) for members in evidence]
    return replace(manifest, models=tuple(models), tail=_tail(combined, manifest))


def _tail(series: Sequence[Array], manifest: Manifest) -> Tail:
    try:
        return fit_tail(series, manifest.interval_s, manifest.budget_per_week)
    except ValueError as error:
        raise TrainingError(f"calibration: {error}", "give it a longer history") from error


def _known(series: Sequence[Raw], name: str) -> Array:
    scores = np.concatenate([raw[name] for raw in series])
    if np.isfinite(scores).sum() < 200:
        raise TrainingError(
            f"calibration: {name} has {int(np.isfinite(scores).sum())} scores on normal data, 200 are needed",
            "give it a longer history",
        )
    return scores
