"""How much each member counts: what was measured on real servers, unless faults say clearly otherwise.

A member's weight may be halved or doubled, one step each, when that finds more of the injected faults of the
calibration part at the same realised false alarms, by more than chance. So nothing is fitted to the part that
is judged, and a member that this fleet's faults do not need still has a say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import combine, fit_tail
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.steady import peak_held
from node_anomaly_core.witnesses import witnessed
from node_anomaly_trainer import evaluate
from node_anomaly_trainer.calibrate import member_scale
from node_anomaly_trainer.candidate import Parts

STEPS = (0.5, 2.0)

LEAST_FAULTS = 20

Array = NDArray[np.float64]


def weighted(
    parts: Parts,
    manifest: Manifest,
    clean: Mapping[str, Array],
    faulted: Mapping[str, Array],
    budget_per_week: float,
) -> Manifest:
    """The manifest with the members' weights, from raw scores (t, m) with and without injected faults.

    Other weights than those in the manifest are taken only if they find more faults of the calibration part,
    at the same realised false alarms, by more than twice the standard error of what these find.
    """
    faults = [fault for fault in parts.faults if parts.calibration.start <= fault.start < parts.judged.start]
    if len(faults) < LEAST_FAULTS or len(manifest.models) < 2:
        return manifest
    names = [model.name for model in manifest.models]
    normal = parts.normal[parts.calibration]
    scale = {
        model.name: member_scale(model, np.where(normal, clean[model.name][parts.calibration], np.nan))
        for model in manifest.models
    }
    quiet = {name: scale[name].evidence(clean[name][parts.calibration]) for name in names}
    loud = {name: scale[name].evidence(faulted[name][parts.calibration]) for name in names}

    def counted(evidence: Mapping[str, Array], weights: Sequence[float]) -> Array:
        whole = combine(list(evidence.values()), weights)
        return peak_held(witnessed(whole, evidence, manifest.witnesses))

    def found(weights: Sequence[float]) -> float:
        series = np.where(normal, counted(quiet, weights), np.nan)
        tail = fit_tail(list(series.T), parts.clean.interval_s, budget_per_week)
        scores = tail.score(counted(loud, weights))
        by_node = dict(zip(parts.clean.nodes, scores.T, strict=True))
        return evaluate.recall(evaluate.caught(by_node, faults, first=parts.calibration.start))

    prior = [model.weight for model in manifest.models]
    base = found(prior)
    best, reached = prior, base
    for member in range(len(names)):
        tried = [[*best[:member], best[member] * step, *best[member + 1 :]] for step in STEPS]
        for weights in tried:
            if (recall := found(weights)) > reached:
                best, reached = weights, recall
    # twice the standard error: the best of many tries is better than one by chance alone
    if reached <= base + 2 * float(np.sqrt(max(base * (1 - base), 1 / len(faults)) / len(faults))):
        return manifest
    return replace(
        manifest,
        models=tuple(
            replace(model, weight=weight) for model, weight in zip(manifest.models, best, strict=True)
        ),
    )
