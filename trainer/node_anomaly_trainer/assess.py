"""Judge a candidate on history it has not seen, through core and from its exported files.

Beside two baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import fit_tail
from node_anomaly_core.evidence import FORECAST_CLIP
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.members import Models, judge
from node_anomaly_core.threshold import rolling_scores
from node_anomaly_trainer import evaluate
from node_anomaly_trainer.calibrate import calibrate_fresh, calibrate_known, comparison_budget, within
from node_anomaly_trainer.candidate import Candidate, Parts, raw_scores, scores_of
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.faults import Fault
from node_anomaly_trainer.models.baselines import BASELINES, Baseline
from node_anomaly_trainer.weights import weighted

MOST_BASELINE_TICKS = 20_000
PARITY_ROWS = 2_000
PARITY_TICKS = 200

Array = NDArray[np.float64]
Report = Callable[[float, str], None]


def assess(parts: Parts, candidate: Candidate, seed: int, report: Report) -> tuple[Candidate, Evaluation]:
    """Calibrate the candidate and answer everything the gate asks.

    Detectors are compared on the judged part with thresholds set on the calibration part for the same budget;
    the false alarms are those of the bundle as it will be published.
    """
    interval, budget = parts.clean.interval_s, candidate.manifest.budget_per_week
    report(0.0, "normal data")
    raw = raw_scores(candidate, candidate.clean, interval, parts.late, within(report, 0.0, 0.1))
    compared = comparison_budget(parts, budget)
    report(0.1, "injected faults")
    disturbed = raw_scores(candidate, candidate.faulted, interval, parts.late, within(report, 0.1, 0.1))
    candidate = replace(candidate, manifest=weighted(parts, candidate.manifest, raw, disturbed, 2 * compared))
    rival = replace(
        candidate,
        manifest=calibrate_known(
            parts, raw, replace(candidate.manifest, budget_per_week=compared), parts.late
        ),
    )
    clean = scores_of(rival, raw)
    faulted = scores_of(rival, disturbed)
    for number, make in enumerate(BASELINES):
        baseline = make()
        report(0.2 + 0.1 * number, baseline.name)
        clean[baseline.name], faulted[baseline.name] = _baseline(baseline, parts, candidate, compared, seed)
    if parts.clean.origin.get("source") == "synthetic":
        manifest, judged = calibrate_fresh(parts, candidate, seed, within(report, 0.45, 0.5))
    else:
        manifest = calibrate_known(parts, raw, candidate.manifest, parts.calibration)
        evidence = judge(manifest, raw).combined
        judged = [
            np.where(
                parts.normal[parts.judged, node],
                rolling_scores(manifest.tail, evidence[parts.late, node], budget, interval)[
                    parts.judged.start - parts.late.start :
                ],
                np.nan,
            )
            for node in range(evidence.shape[1])
        ]
    final = replace(candidate, manifest=manifest)
    report(0.95, "parity and cost")
    faults = [fault for fault in parts.faults if fault.start >= parts.judged.start]
    hits = {
        name: evaluate.caught(dict(zip(parts.clean.nodes, scores.T, strict=True)), faults)
        for name, scores in faulted.items()
    }
    cost, ticks = evaluate.measure_cost(final.bundle(), parts.clean)
    return final, Evaluation(
        false_alarms_per_node_week=evaluate.false_alarm_rate(judged, interval),
        node_weeks=evaluate.known_weeks(judged, interval),
        budget=budget,
        comparison_budget=compared,
        fault_recall={name: evaluate.recall(found) for name, found in hits.items()},
        false_alarms={
            name: evaluate.false_alarm_rate(
                list(np.where(parts.normal, scores, np.nan)[parts.late].T), interval
            )
            for name, scores in clean.items()
        },
        recall_by_kind=_by_kind(hits["combined"], faults),
        faults=len(faults),
        parity_forest_max=forest_parity(candidate),
        parity_lstm_max=lstm_parity(candidate),
        tick_cpu_seconds=cost,
        ticks=ticks,
        weights={model.name: model.weight for model in final.manifest.models},
        bundle_bytes=sum(len(data) for data in candidate.files.values()),
    )


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

    Fitted and calibrated on the same parts as ours.
    """
    early = candidate.clean.compressed[parts.fit][-MOST_BASELINE_TICKS:]
    normal = parts.normal[parts.fit][-MOST_BASELINE_TICKS:]
    baseline.fit(early, np.isfinite(early) & normal[:, :, None], seed)
    clean, faulted = (
        _late_scores(baseline, replayed.compressed, parts.late)
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


def forest_parity(candidate: Candidate) -> float:
    """Largest difference between the exported forests and scikit-learn over rows of faulted history.

    0 without any.
    """
    width = candidate.faulted.summary.shape[-1]
    rows = candidate.faulted.summary.reshape(-1, width)[-PARITY_ROWS:]
    normalised = candidate.faulted.normalised.reshape(-1, width)[-PARITY_ROWS:]
    known = np.isfinite(rows).any(axis=1)
    scores = Models(candidate.bundle()).forest_scores(rows.astype(np.float64), normalised.astype(np.float64))
    differences = [0.0]
    for name, score in scores.items():
        model = candidate.models[name]
        reference = model.reference_score(normalised if model.input == "summary_normalised" else rows)
        differences.append(float(np.abs(score - reference)[known].max(initial=0.0)))
    return max(differences)


def lstm_parity(candidate: Candidate) -> float:
    """Largest difference between the exported step and Keras from a fresh start; 0 without an LSTM."""
    model = next((model for model in candidate.models.values() if model.type == "lstm"), None)
    if model is None:
        return 0.0
    ticks = np.clip(candidate.clean.compressed[:PARITY_TICKS], -FORECAST_CLIP, FORECAST_CLIP)
    rows = np.where(np.isfinite(ticks), ticks, np.float32(0.0))
    step = StepLSTM(candidate.files[model.filename], rows.shape[2], rows.shape[1])
    exported = np.stack([step.step(row) for row in rows])
    return float(np.abs(exported - model.reference_score(rows)).max())
