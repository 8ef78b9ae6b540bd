"""Judge a candidate on history it has not seen, through core and from its exported files.

Beside two baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.calibration import fit_tail
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.members import judge
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import raised_on_noise, rolling_scores
from node_anomaly_trainer import evaluate
from node_anomaly_trainer.arrays import Empty, in_memory
from node_anomaly_trainer.calibrate import calibrate_fresh, calibrate_known, comparison_budget, within
from node_anomaly_trainer.candidate import Candidate, Parts, part_of, raw_scores, scores_of
from node_anomaly_trainer.dataset import ANOMALOUS, UNKNOWN
from node_anomaly_trainer.equal_alarms import alarms_in, equalised
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.faults import Fault
from node_anomaly_trainer.feedback import Verdict
from node_anomaly_trainer.held_back import HeldBackAlarm, NodeAlarms, by_node, held_back_alarms
from node_anomaly_trainer.incident_figures import incident_figures
from node_anomaly_trainer.models.baselines import BASELINES, Baseline
from node_anomaly_trainer.parity import forest_parity, lstm_parity
from node_anomaly_trainer.production import NAME as PRODUCTION
from node_anomaly_trainer.production import at_equal_alarms, rival
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.regression import replay_false_alarms
from node_anomaly_trainer.weights import weighted

MOST_BASELINE_TICKS = 20_000
COMBINED = "combined"

Array = NDArray[np.float64]
Report = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Questions:
    """What a candidate is asked beside the exam that every one sits."""

    production: Bundle | None = None
    """The bundle in production, to be better than."""
    false_alarms: tuple[Verdict, ...] = ()
    """Where it must be silent."""


@dataclass(frozen=True, eq=False, slots=True)
class Assessed:
    """A judged candidate, and the scores (t, m) that the figures were counted on; NaN where not judged."""

    parts: Parts
    candidate: Candidate
    evaluation: Evaluation
    clean: Mapping[str, Array]
    """Per detector on the history as it was, at the thresholds of the comparison."""
    faulted: Mapping[str, Array]
    """The same with faults in it."""
    lived: tuple[Array, ...]
    """Per node or stretch (t,): the combined score of held-back normal data as a node would show it."""


def assess(
    parts: Parts,
    candidate: Candidate,
    seed: int,
    report: Report,
    questions: Questions | None = None,
    note: Note = lambda _line: None,
    empty: Empty = in_memory,
) -> Assessed:
    """Calibrate the candidate and answer everything the gate asks.

    Detectors are compared on the judged part with thresholds at which they raise equally many false alarms;
    the false alarms are those of the bundle as it will be published.
    """
    questions = questions or Questions()
    interval, budget = parts.clean.interval_s, candidate.manifest.budget_per_week
    report(0.0, "normal data")
    raw = raw_scores(candidate, candidate.clean, interval, parts.late, within(report, 0.0, 0.1))
    compared = comparison_budget(parts, budget)
    report(0.1, "injected faults")
    disturbed = raw_scores(candidate, candidate.faulted, interval, parts.late, within(report, 0.1, 0.1))
    candidate = replace(candidate, manifest=weighted(parts, candidate.manifest, raw, disturbed, 2 * compared))
    equal = replace(
        candidate,
        manifest=calibrate_known(
            parts, raw, replace(candidate.manifest, budget_per_week=compared), parts.late
        ),
    )
    clean = scores_of(equal, raw)
    faulted = scores_of(equal, disturbed)
    for number, make in enumerate(BASELINES):
        baseline = make()
        report(0.2 + 0.1 * number, baseline.name)
        clean[baseline.name], faulted[baseline.name] = _baseline(baseline, parts, candidate, compared, seed)
    old = None
    if questions.production is not None:
        old = rival(questions.production, parts, compared, within(report, 0.4, 0.1), note, empty)
    late = _late(parts)
    clean, faulted = equalised(clean, faulted, late, alarms_in(compared, late, interval))
    held_to_old = faulted[COMBINED]
    if old is not None:
        held_to_old, clean[PRODUCTION], faulted[PRODUCTION] = at_equal_alarms(
            old, parts, (clean[COMBINED], held_to_old), late, compared
        )
    if parts.clean.origin.get("source") == "synthetic":
        manifest, judged = calibrate_fresh(parts, candidate, seed, within(report, 0.5, 0.4))
        heard = judge(manifest, raw)
        shown = _shown(manifest, heard.held, parts, heard.held_whole)
        on_noise = budget  # its stretches are too short for a threshold of their own
    else:
        manifest = calibrate_known(parts, raw, candidate.manifest, parts.calibration)
        heard = judge(manifest, raw)
        shown = _shown(manifest, heard.held, parts, heard.held_whole)
        normal = parts.normal[parts.judged]
        judged = [np.where(normal[:, node], scores, np.nan) for node, scores in enumerate(shown)]
        on_noise = raised_on_noise(budget)
    final = replace(candidate, manifest=manifest)
    report(0.9, "labelled incidents and false alarms")
    labels = list(parts.clean.labels[parts.judged].T)
    regression = None
    if questions.false_alarms:
        regression = replay_false_alarms(
            final.bundle(), parts.clean, questions.false_alarms, within(report, 0.9, 0.05)
        )
    report(0.95, "parity and cost")
    faults = [fault for fault in parts.faults if fault.start >= parts.judged.start]
    hits = {name: _hits(scores, parts, faults) for name, scores in faulted.items()}
    known = [old is None or fault.node in old.nodes for fault in faults]
    if old is not None:
        hits[PRODUCTION] = [hit for hit, is_known in zip(hits[PRODUCTION], known, strict=True) if is_known]
    ours = [hit for hit, is_known in zip(_hits(held_to_old, parts, faults), known, strict=True) if is_known]
    cost, ticks = evaluate.measure_cost(final.bundle(), parts.clean)
    evaluation = Evaluation(
        false_alarms_per_node_week=evaluate.false_alarm_rate(judged, interval),
        node_weeks=evaluate.known_weeks(judged, interval),
        budget=budget,
        false_alarms_on_noise=on_noise,
        comparison_budget=compared,
        fault_recall={name: evaluate.recall(found) for name, found in hits.items()},
        false_alarms={
            name: evaluate.false_alarm_rate(
                list(np.where(parts.normal, scores, np.nan)[parts.late].T), interval
            )
            for name, scores in clean.items()
        },
        recall_by_kind=_by_kind(hits[COMBINED], faults),
        faults=len(faults),
        parity_forest_max=forest_parity(candidate),
        parity_lstm_max=lstm_parity(candidate),
        tick_cpu_seconds=cost,
        ticks=ticks,
        weights={model.name: model.weight for model in final.manifest.models},
        bundle_bytes=sum(len(data) for data in candidate.files.values()),
        duels={
            name: evaluate.duel(ours if name == PRODUCTION else hits[COMBINED], hits[name])
            for name in (*(make.name for make in BASELINES), *([PRODUCTION] if old else []))
        },
        accuracy=_accuracy(faulted[COMBINED], parts),
        incidents=incident_figures(shown, labels, interval),
        production=None
        if old is None
        else incident_figures(_shown(old.bundle.manifest, old.evidence, parts, old.whole), labels, interval),
        regression=regression,
        **_alarms(parts, candidate, judged),
    )
    return Assessed(parts, final, evaluation, clean, faulted, tuple(judged))


def _alarms(parts: Parts, candidate: Candidate, judged: Sequence[Array]) -> _Alarms:
    """What there is to see of the false alarms; nothing for stretches of a simulated fleet."""
    if parts.clean.origin.get("source") == "synthetic":
        return {"by_node": (), "held_back": ()}
    late, compressed = part_of(parts, parts.judged), candidate.clean.compressed[parts.judged]
    return {
        "by_node": by_node(late.nodes, judged, late.interval_s),
        "held_back": held_back_alarms(late, judged, compressed),
    }


class _Alarms(TypedDict):
    by_node: tuple[NodeAlarms, ...]
    held_back: tuple[HeldBackAlarm, ...]


def _late(parts: Parts) -> NDArray[np.bool_]:
    """Normal ticks (t, m) of the part that nothing was fitted on."""
    late = np.zeros_like(parts.normal)
    late[parts.late] = parts.normal[parts.late]
    return late


def _shown(manifest: Manifest, counted: Array, parts: Parts, whole: Array | None = None) -> list[Array]:
    """Per node the scores (t,) of the judged part by its own threshold, which starts on the part before."""
    skip = parts.judged.start - parts.late.start
    budget, interval = manifest.budget_per_week, parts.clean.interval_s
    pairs = zip(counted[parts.late].T, (counted if whole is None else whole)[parts.late].T, strict=True)
    return [
        rolling_scores(manifest.tail, decisive, budget, interval, whole=shown)[skip:]
        for decisive, shown in pairs
    ]


def _hits(scores: Array, parts: Parts, faults: Sequence[Fault]) -> list[bool]:
    return evaluate.caught(dict(zip(parts.clean.nodes, scores.T, strict=True)), faults)


def _accuracy(scores: Array, parts: Parts) -> float:
    """Share of the judged ticks, faults injected, that are in alarm and faulty, or neither."""
    right = known = 0
    for score, label in zip(scores[parts.judged].T, parts.faulted.labels[parts.judged].T, strict=True):
        counted = np.isfinite(score) & (label != UNKNOWN)
        in_alarm = evaluate.standing(score)
        right += int((in_alarm == (label == ANOMALOUS))[counted].sum())
        known += int(counted.sum())
    return right / known if known else float("nan")


def _by_kind(hits: Sequence[bool], faults: Sequence[Fault]) -> dict[str, float]:
    """Recall per kind of fault."""
    return {
        kind: evaluate.recall([hit for hit, fault in zip(hits, faults, strict=True) if fault.kind == kind])
        for kind in sorted({fault.kind for fault in faults})
    }


def _baseline(
    baseline: Baseline, parts: Parts, candidate: Candidate, budget: float, seed: int
) -> tuple[Array, Array]:
    """A baseline's scores (t, m) on clean and faulted history.

    Fitted and calibrated on the same parts as ours, peaks held like ours.
    """
    early = candidate.clean.compressed[parts.fit][-MOST_BASELINE_TICKS:]
    normal = parts.normal[parts.fit][-MOST_BASELINE_TICKS:]
    baseline.fit(early, np.isfinite(early) & normal[:, :, None], seed)
    clean, faulted = (
        peak_held(_late_scores(baseline, replayed.compressed, parts.late))
        for replayed in (candidate.clean, candidate.faulted)
    )
    normal = np.where(parts.normal, clean, np.nan)[parts.late]
    tail = fit_tail(list(normal.T), parts.clean.interval_s, budget)
    return tail.score(clean), tail.score(faulted)


def _late_scores(baseline: Baseline, compressed: NDArray[np.float32], late: slice) -> Array:
    scores = np.full(compressed.shape[:2], np.nan)
    rows = compressed[late]
    scores[late] = baseline.score(rows, np.isfinite(rows))
    return scores
