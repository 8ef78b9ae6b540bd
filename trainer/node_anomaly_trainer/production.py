"""The bundle in production on the same history: what a candidate has to be better than."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle import resolve_current, verify_bundle
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.errors import BundleError
from node_anomaly_core.members import Models, judge
from node_anomaly_core.residuals import longest_window
from node_anomaly_trainer.arrays import Empty, in_memory
from node_anomaly_trainer.calibrate import calibrate_known
from node_anomaly_trainer.candidate import LEAD_IN_TICKS, Candidate, Parts, raw_scores, scores_of
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.equal_alarms import alarms_in, equalised
from node_anomaly_trainer.replay import replay_residuals

NAME = "production"
LEAST_SHARE = 0.5
"""Of the nodes that it must know by name: on fewer a comparison says little about the fleet."""

Array = NDArray[np.float64]
Report = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Rival:
    """Scores (t, m) on the same ticks and nodes as the candidate's; NaN where it was not asked."""

    clean: Array
    faulted: Array
    evidence: Array
    """(t, m) on the clean history that counts for an alarm, peaks held, before any threshold."""
    whole: Array
    """All of it, for which an alarm stands once it was raised."""
    bundle: Bundle
    nodes: tuple[str, ...]
    """Those that it knows; a fault on another node is not compared."""


def in_production(root: Path, interval_s: float, note: Callable[[str], None]) -> Bundle | None:
    """The published bundle, or None with a note where there is none that a candidate can be compared with."""
    try:
        current = resolve_current(root) if root.is_dir() else None
        if current is None:
            note(f"nothing is published in {root}: there is no bundle in production to compare with")
            return None
        bundle = verify_bundle(current)
    except BundleError as error:
        note(f"the bundle in production cannot be compared with: {error.message}")
        return None
    if abs(bundle.manifest.interval_s - interval_s) > 1e-6 * interval_s:
        note(
            f"the bundle in production ({bundle.version}) has a tick of {bundle.manifest.interval_s:g} s and "
            f"cannot be compared with one of {interval_s:g} s"
        )
        return None
    return bundle


def rival(
    bundle: Bundle,
    parts: Parts,
    budget: float,
    report: Report,
    note: Callable[[str], None],
    empty: Empty = in_memory,
) -> Rival | None:
    """Replay both histories through the bundle and calibrate it on the same part for the same budget.

    None, with a note, where it does not know enough of the nodes or none of the features.
    """
    known = [node for node in parts.clean.nodes if node in bundle.manifest.nodes]
    names = {feature.name for feature in bundle.manifest.features}
    if len(known) < LEAST_SHARE * len(parts.clean.nodes) or not names.intersection(parts.clean.feature_names):
        note(
            f"the bundle in production ({bundle.version}) knows {len(known)} of "
            f"{len(parts.clean.nodes)} nodes: not compared"
        )
        return None
    start = max(0, parts.late.start - longest_window(parts.clean.interval_s) - LEAD_IN_TICKS)
    late = slice(parts.late.start - start, parts.late.stop - start)
    clean, faulted = (
        _as_it_sees(history, bundle, known, start, empty) for history in (parts.clean, parts.faulted)
    )
    cohort = Models(bundle).cohort
    at = [bundle.manifest.nodes.index(node) for node in known]
    cohort = replace(
        cohort,
        node_centre=cohort.node_centre[at],
        node_scale=cohort.node_scale[at],
        node_residual_centre=cohort.node_residual_centre[at],
        node_residual=cohort.node_residual[at],
    )
    quiet = replay_residuals(clean, cohort, lambda done, words: report(0.45 * done, words), empty=empty)
    loud = replay_residuals(
        faulted,
        cohort,
        lambda done, words: report(0.45 + 0.45 * done, words),
        learn_faults=False,
        empty=empty,
    )
    theirs = Candidate(
        {}, cohort, quiet, loud, replace(bundle.manifest, budget_per_week=budget), bundle.files
    )
    raw = [raw_scores(theirs, replayed, clean.interval_s, late, _ignore) for replayed in (quiet, loud)]
    seen = Parts(clean, faulted, [], slice(0, late.start), late, slice(late.stop, late.stop))
    heard = judge(bundle.manifest, raw[0])
    equal = replace(theirs, manifest=calibrate_known(seen, raw[0], theirs.manifest, late))
    return Rival(
        clean=_widened(scores_of(equal, raw[0])["combined"], parts, known, start),
        faulted=_widened(scores_of(equal, raw[1])["combined"], parts, known, start),
        evidence=_widened(heard.held, parts, known, start),
        whole=_widened(heard.held_whole, parts, known, start),
        bundle=bundle,
        nodes=tuple(known),
    )


def at_equal_alarms(
    old: Rival, parts: Parts, ours: tuple[Array, Array], normal: NDArray[np.bool_], per_week: float
) -> tuple[Array, Array, Array]:
    """Our faulted scores (t, m), its clean and its faulted ones, at equal alarms where both are asked.

    `ours` are clean and faulted. Alarms are counted on the `normal` ticks (t, m) of the nodes that it knows:
    it raises none on the others, and must not have their share here.
    """
    there = normal & np.isin(parts.clean.nodes, old.nodes)
    clean, faulted = equalised(
        {"ours": ours[0], NAME: old.clean},
        {"ours": ours[1], NAME: old.faulted},
        there,
        alarms_in(per_week, there, parts.clean.interval_s),
    )
    return faulted["ours"], clean[NAME], faulted[NAME]


def _as_it_sees(history: History, bundle: Bundle, nodes: list[str], start: int, empty: Empty) -> History:
    """The late history with the bundle's features in its order, missing where the history has none."""
    late = history.between(start / history.ticks, 1.0).select_nodes(nodes)
    features = bundle.manifest.features
    values = empty((late.ticks, len(nodes), len(features)), np.float64)
    values[...] = np.nan
    have = {name: column for column, name in enumerate(history.feature_names)}
    for column, feature in enumerate(features):
        if feature.name in have:
            values[:, :, column] = late.values[:, :, have[feature.name]]
    return replace(late, features=features, values=values)


def _widened(scores: Array, parts: Parts, nodes: list[str], start: int) -> Array:
    wide = np.full((parts.clean.ticks, len(parts.clean.nodes)), np.nan)
    wide[start:, [parts.clean.nodes.index(node) for node in nodes]] = scores
    return wide


def _ignore(_done: float, _words: str) -> None:
    """The forecaster and the windows take a few seconds here, the replay before them most of the time."""
