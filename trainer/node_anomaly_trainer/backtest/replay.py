"""What every node's agent would have exposed: core's scorer over the history, tick by tick, node by node."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle import verify_bundle
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.members import Models
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.predict import Reason, reasons_of

REASONS = 3
EXPLAINED_FROM = 0.95
"""Scores below it are never asked why."""

Array = NDArray[np.float64]
Report = Callable[[float, str], None]


@dataclass(frozen=True, eq=False, slots=True)
class Lived:
    """One node's ticks."""

    node: str
    scores: Array
    """(t,) NaN while the node was not known well enough."""
    reasons: dict[int, tuple[Reason, ...]]
    """By tick, where the score was high."""
    threshold_ratio: Array
    """(t,)"""
    known: bool
    """Whether the bundle carries a baseline of this node."""


def replay(bundle: Path, history: History, jobs: int, report: Report) -> list[Lived]:
    """Every node of the history, in its order. Raises BundleError."""
    checked = verify_bundle(bundle)
    columns = _columns(checked, history)
    tasks = [
        (node, history.timestamps, columns(history.values[:, at])) for at, node in enumerate(history.nodes)
    ]
    if jobs == 1 or len(tasks) == 1:
        models, found = Models(checked), []
        for done, task in enumerate(tasks):
            found.append(_live(checked, models, history.interval_s, *task))
            report((done + 1) / len(tasks), task[0])
        return found
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), context, initializer=_begin, initargs=(bundle, history.interval_s)
    ) as pool:
        waiting = {pool.submit(_work, task): at for at, task in enumerate(tasks)}
        lived: list[Lived | None] = [None] * len(tasks)
        for done, future in enumerate(as_completed(waiting), 1):
            one = future.result()
            lived[waiting[future]] = one
            report(done / len(tasks), one.node)
    return [one for one in lived if one is not None]


def _columns(bundle: Bundle, history: History) -> Callable[[Array], Array]:
    have = {name: at for at, name in enumerate(history.feature_names)}
    wanted = [have.get(feature.name, -1) for feature in bundle.manifest.features]

    def pick(values: Array) -> Array:
        rows = np.full((len(values), len(wanted)), np.nan)
        for at, column in enumerate(wanted):
            if column >= 0:
                rows[:, at] = values[:, column]
        return rows

    return pick


_worker: list[tuple[Bundle, Models, float]] = []


def _begin(path: Path, interval_s: float) -> None:
    bundle = verify_bundle(path)
    _worker.append((bundle, Models(bundle), interval_s))


def _work(task: tuple[str, Array, Array]) -> Lived:
    bundle, models, interval_s = _worker[0]
    return _live(bundle, models, interval_s, *task)


def _live(bundle: Bundle, models: Models, interval_s: float, node: str, times: Array, rows: Array) -> Lived:
    scorer = NodeScorer(bundle, interval_s, node, models)
    scores, ratios = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    reasons: dict[int, tuple[Reason, ...]] = {}
    for tick, row in enumerate(rows):
        if np.isnan(row).all():
            continue  # nothing was sampled: there was no agent, or no scrape
        said = scorer.step(float(times[tick]), row)
        scores[tick], ratios[tick] = said.score, said.threshold_ratio
        if said.score >= EXPLAINED_FROM:
            reasons[tick] = reasons_of(said, scorer.features, REASONS)
    return Lived(node, scores, reasons, ratios, scorer.known)
