"""The JSON of /api/v1: what the last snapshot says, for programs. Fields are only ever added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from node_anomaly_agent.episode import Episode, document
from node_anomaly_agent.snapshot import Reason, Snapshot, reasons
from node_anomaly_core.forecast import horizon_label
from node_anomaly_core.score import Score
from node_anomaly_core.witnesses import Witness


def score_document(snapshot: Snapshot) -> dict[str, object]:
    """The score, its models and where it comes from; what is not known yet is NaN or None."""
    score = snapshot.score
    return {
        "ready": not snapshot.not_ready(),
        "reason": snapshot.not_ready(),
        "warm": snapshot.warm,
        "warmup": {"done": snapshot.warmup_done, "ticks": snapshot.warmup_ticks},
        "interval_seconds": snapshot.interval_s,
        "bundle": bundle_document(snapshot),
        **scored(score),
        "threshold_ratio": None if score is None else score.threshold_ratio,
        "threshold_learned_ratio": None if score is None else score.threshold_learnt,
        "forecast": forecast_document(snapshot),
    }


def forecast_document(snapshot: Snapshot) -> dict[str, object] | None:
    """What is expected; None where the bundle cannot tell, or not yet."""
    forecast = snapshot.forecast.forecast
    if forecast is None:
        return None
    return {
        "made_at": forecast.made_at,
        "scores": {horizon_label(seconds): score for seconds, score in forecast.scores.items()},
        "leaving": [
            {
                "feature": one.feature.name,
                "seconds": one.seconds,
                "expected": one.expected,
                "edge": one.edge,
                "unit": one.feature.unit,
            }
            for one in forecast.leaving
        ],
    }


def explain_document(snapshot: Snapshot) -> dict[str, object]:
    """Why: every feature by its share in the score, largest first, and what each model alone blames."""
    return {
        **scored(snapshot.score),
        "warm": snapshot.warm,
        "bundle": bundle_document(snapshot),
        "features": [reason_document(reason, whole=True) for reason in reasons(snapshot)],
        "features_by_model": _by_model(snapshot),
    }


def _by_model(snapshot: Snapshot) -> dict[str, dict[str, float]]:
    """Of each model that says something, its features by their share in what it alone says, largest first."""
    score, bundle = snapshot.score, snapshot.bundle
    if score is None or bundle is None:
        return {}
    names = [feature.name for feature in bundle.features]
    return {
        model: {names[at]: float(shares[at]) for at in np.argsort(-shares, kind="stable") if shares[at] > 0}
        for model, shares in score.member_contributions.items()
    }


def episodes_document(snapshot: Snapshot) -> dict[str, object]:
    """The alarms of the last hours and what was recorded of the latest, newest first, in unix seconds."""
    history = snapshot.history
    return {
        "since": history.start,
        "episodes": [
            {"start": span.start, "end": span.end, "ongoing": span.end >= history.end, "peak": span.peak}
            for span in reversed(list(history.spans()))
        ],
        "recorded": [recorded_document(one) for one in reversed(snapshot.episodes.recent)],
    }


def recorded_document(episode: Episode) -> dict[str, object]:
    """One recorded episode: its processes by name alone, and no flight record."""
    names = list(dict.fromkeys(process.name for process in episode.processes))
    return {**document(episode), "processes": names}


def scored(score: Score | None) -> dict[str, object]:
    """One evaluation: when, how unusual, and what each model says alone."""
    if score is None:
        nothing: dict[str, object] = {"models": {}, "held_back_by": [], "outgrown": None}
        return {"timestamp": None, "score": None, "anomalous": None, **nothing}
    known: Mapping[str, float] = score.model_scores
    return {
        "timestamp": score.timestamp,
        "score": score.score,
        "anomalous": bool(score.score >= 1) if score.warm else None,
        "models": dict(known),
        "held_back_by": witness_documents(score.held_back_by),
        "outgrown": score.outgrown if score.warm else None,
    }


def witness_documents(witnesses: Sequence[Witness]) -> list[dict[str, object]]:
    """Groups of models of which one must bring a share of the evidence, as a bundle names them."""
    return [{"models": list(witness.models), "share": witness.share} for witness in witnesses]


def reason_document(reason: Reason, *, whole: bool = False) -> dict[str, object]:
    """One feature's part, in the feature's own unit; `direction` is how it differs from what was expected."""
    direction = None
    if reason.observed > reason.expected:
        direction = "above"
    elif reason.observed < reason.expected:
        direction = "below"
    document: dict[str, object] = {
        "feature": reason.feature.name,
        "share": reason.share,
        "direction": direction,
        "observed": reason.observed,
        "expected": reason.expected,
        "unit": reason.feature.unit,
    }
    if whole:
        document |= {"state": reason.state, "help": reason.feature.help}
    return document


def bundle_document(snapshot: Snapshot) -> dict[str, object] | None:
    """Which bundle scores."""
    bundle = snapshot.bundle
    if bundle is None:
        return None
    return {"version": bundle.version, "origin": bundle.origin, "trained_at": bundle.trained_at}
