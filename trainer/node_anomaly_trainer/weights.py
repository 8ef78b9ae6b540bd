"""How much each member counts: equal, unless faults that nobody was fitted on say clearly otherwise.

The weights are few (sixths, none below one) and are chosen on the calibration part only, so they cannot be
fitted to the part that is judged, and a member that this fleet's faults do not need still has a say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import combine, fit_member, fit_tail
from node_anomaly_core.manifest import Manifest
from node_anomaly_trainer import evaluate
from node_anomaly_trainer.candidate import Parts

PARTS_PER_MEMBER = 2
"""Weights are multiples of 1 / (members x this)."""

LEAST_FAULTS = 20

Array = NDArray[np.float64]


def candidates(members: int) -> Iterator[tuple[int, ...]]:
    """Every division of members x PARTS_PER_MEMBER parts in which each member gets at least one."""
    whole = members * PARTS_PER_MEMBER
    yield from (parts for parts in product(range(1, whole), repeat=members) if sum(parts) == whole)


def weighted(
    parts: Parts,
    manifest: Manifest,
    clean: Mapping[str, Array],
    faulted: Mapping[str, Array],
    budget_per_week: float,
) -> Manifest:
    """The manifest with the members' weights, from raw scores (t, m) with and without injected faults.

    Another division than the equal one is taken only if it finds more faults of the calibration part, at the
    same realised false alarms, by more than the standard error of the equal one's recall.
    """
    faults = [fault for fault in parts.faults if parts.calibration.start <= fault.start < parts.judged.start]
    if len(faults) < LEAST_FAULTS or len(manifest.models) < 2:
        return manifest
    names = [model.name for model in manifest.models]
    normal = parts.normal[parts.calibration]
    scale = {name: fit_member(np.where(normal, clean[name][parts.calibration], np.nan)) for name in names}
    quiet = [scale[name].evidence(clean[name][parts.calibration]) for name in names]
    loud = [scale[name].evidence(faulted[name][parts.calibration]) for name in names]

    def found(weights: Sequence[int]) -> float:
        series = np.where(normal, combine(quiet, weights), np.nan)
        tail = fit_tail(list(series.T), parts.clean.interval_s, budget_per_week)
        scores = tail.score(combine(loud, weights))
        by_node = dict(zip(parts.clean.nodes, scores.T, strict=True))
        return evaluate.recall(evaluate.caught(by_node, faults, first=parts.calibration.start))

    equal = (PARTS_PER_MEMBER,) * len(names)
    base = found(equal)
    best = max(candidates(len(names)), key=lambda weights: (found(weights), -np.var(weights)))
    if found(best) <= base + float(np.sqrt(base * (1 - base) / len(faults))):
        best = equal
    return replace(
        manifest,
        models=tuple(
            replace(model, weight=share / PARTS_PER_MEMBER)
            for model, share in zip(manifest.models, best, strict=True)
        ),
    )
