"""From raw member scores on normal data to a manifest whose 1.0 is the false-alarm budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import (
    ENOUGH_TICKS,
    WEEK,
    MemberScale,
    Tail,
    combine,
    fit_member,
    fit_tail,
)
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.forest import RANDOM_FOREST
from node_anomaly_core.log_errors import LEAST_SPREAD, LOG_ERRORS
from node_anomaly_core.manifest import BOTH_SUMMARIES, Manifest, ModelEntry
from node_anomaly_core.members import judge
from node_anomaly_core.steady import peak_held
from node_anomaly_trainer.candidate import Candidate, Parts, part_of
from node_anomaly_trainer.dataset import NORMAL
from node_anomaly_trainer.progress import Report
from node_anomaly_trainer.replay import replay_fresh, stretches

FRESH_TICKS = 960
FRESH_STRETCHES = 14
FRESH_JUDGED = 8
COUNTED_EPISODES = 20

INCIDENT_SPREAD = 1.5
"""Log-odds above its median that are 1 in units of a member; chosen with its weight (docs/adr/0030)."""

Array = NDArray[np.float64]
Raw = Mapping[str, Array]

PLACEHOLDER_SCALE = MemberScale(0.0, 1.0)
PLACEHOLDER_TAIL = Tail((0.0, 1.0), (0.0, -1.0), -1.0)
"""Stand in for a calibration while the raw scores that it is made of are being measured."""


def comparison_budget(parts: Parts, budget_per_week: float) -> float:
    """False alarms per node-week at which detectors are compared: the budget, or what the data can resolve.

    A threshold for one alarm a week, set on two node-days, is a guess about the largest value; twenty
    episodes on held-back data set it by counting, to about a fifth.
    """
    weeks = float(parts.normal[parts.late].sum()) * parts.clean.interval_s / WEEK
    return max(budget_per_week, COUNTED_EPISODES / weeks) if weeks > 0 else budget_per_week


def calibrate_known(
    parts: Parts, raw: Raw, manifest: Manifest, part: slice, least: int = ENOUGH_TICKS
) -> Manifest:
    """Calibrate on one part of raw scores (t, m) of nodes whose baselines the bundle carries."""
    normal = parts.normal[part]
    series = [
        {name: np.where(normal[:, node], scores[part, node], np.nan) for name, scores in raw.items()}
        for node in range(len(parts.clean.nodes))
    ]
    return calibrated(manifest, series, least)


def calibrate_fresh(
    parts: Parts, candidate: Candidate, seed: int, report: Report
) -> tuple[Manifest, list[Array]]:
    """Calibrate for nodes that the bundle has never seen; also the combined scores on the judged part.

    A simulated fleet has no node of yours, so its bundle is calibrated as it will be used: by scorers that
    start from nothing on stretches of the history, learn the node and judge it at the same time.
    """
    part = [part_of(parts, where) for where in (parts.calibration, parts.judged)]
    series = []
    for share, (history, count) in enumerate(zip(part, (FRESH_STRETCHES, FRESH_JUDGED), strict=True)):
        pieces = stretches(history, FRESH_TICKS, count, seed + share)
        raw = replay_fresh(candidate.bundle(), history, pieces, within(report, share / 2, 0.5))
        normal = [history.labels[piece.start : piece.stop, piece.node] == NORMAL for piece in pieces]
        series.append(
            [
                {name: np.where(known, scores, np.nan) for name, scores in one.items()}
                for one, known in zip(raw, normal, strict=True)
            ]
        )
    manifest = calibrated(candidate.manifest, series[0])
    return manifest, [manifest.tail.score(judge(manifest, raw).held) for raw in series[1]]


def within(report: Report, start: float, share: float) -> Report:
    """A report for a part of a phase."""
    return lambda done, note: report(start + share * done, note)


def calibrated(manifest: Manifest, series: Sequence[Raw], least: int = ENOUGH_TICKS) -> Manifest:
    """The manifest with every member and their combination calibrated on normal raw scores.

    `series` holds, per node or stretch, the raw score (t,) of each member; NaN where unknown or not normal.
    Raises TrainingError where a member has fewer than `least` scores on normal data.
    """
    models = []
    evidence: list[list[Array]] = [[] for _ in series]
    for model in manifest.models:
        scale = member_scale(model, _known(series, model.name, least))
        own = [scale.evidence(raw[model.name]) for raw in series]
        for collected, values in zip(evidence, own, strict=True):
            collected.append(values)
        models.append(replace(model, scale=scale, tail=_tail(own, manifest, least)))
    combined = [peak_held(combine(members, [model.weight for model in models])) for members in evidence]
    return replace(manifest, models=tuple(models), tail=_tail(combined, manifest, least))


def member_scale(model: ModelEntry, scores: Array) -> MemberScale:
    """`fit_member` as this member needs it.

    A forest that real incidents taught says how much more likely one is, which means the same on every
    server: what is added to its median does not depend on how seldom this one looks like an incident.
    """
    if model.type == RANDOM_FOREST and model.input == BOTH_SUMMARIES:
        median = float(np.median(scores[np.isfinite(scores)]))
        return MemberScale(median, median + INCIDENT_SPREAD)
    return fit_member(scores, LEAST_SPREAD if model.type == LOG_ERRORS else 0.0)


def _tail(series: Sequence[Array], manifest: Manifest, least: int) -> Tail:
    try:
        return fit_tail(series, manifest.interval_s, manifest.budget_per_week, least)
    except ValueError as error:
        raise TrainingError(f"calibration: {error}", "give it a longer history") from error


def _known(series: Sequence[Raw], name: str, least: int) -> Array:
    scores = np.concatenate([raw[name] for raw in series])
    known = int(np.isfinite(scores).sum())
    if known < least:
        raise TrainingError(
            f"calibration: {name} has {known} scores on normal data, {least} are needed",
            "give it a longer history",
        )
    return scores
