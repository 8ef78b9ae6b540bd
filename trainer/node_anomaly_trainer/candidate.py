"""A candidate bundle on its way: the history it is made of, its members, and what an agent would read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle import GOLDEN_FILE, golden_scores
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.cohort import Cohort
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.members import Models, judge
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.steady import half_smoothed
from node_anomaly_core.tensors import write_tensors
from node_anomaly_trainer.arrays import Empty, in_memory
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import NORMAL, History
from node_anomaly_trainer.faults import Fault, inject_faults
from node_anomaly_trainer.models import Model
from node_anomaly_trainer.replay import Replayed, replay_forecasts, replay_windows

Array = NDArray[np.float64]
Report = Callable[[float, str], None]

GOLDEN_TAIL_TICKS = 24
GOLDEN_MOST_TICKS = 256  # an agent refuses more, see core/bundle.py
FOREST_ROWS = 8_192  # that forests score at once: each takes a few kB while they descend the trees
LEAD_IN_TICKS = 240  # ticks before the scored part in which the forecaster finds its feet


@dataclass(frozen=True, slots=True)
class Parts:
    """History twice, as it was and with faults in it, and where its parts end (in ticks)."""

    clean: History
    faulted: History
    faults: list[Fault]
    fit: slice
    calibration: slice
    judged: slice

    @property
    def late(self) -> slice:
        """Everything that no member was fitted on."""
        return slice(self.calibration.start, self.judged.stop)

    @property
    def normal(self) -> NDArray[np.bool_]:
        """Ticks and nodes (t, m) that are normal: not anomalous, excluded, or close to an incident."""
        return np.asarray(self.clean.labels == NORMAL)


def split(
    history: History,
    config: TrainConfig,
    staged: tuple[History, list[Fault]] | None = None,
    empty: Empty = in_memory,
) -> Parts:
    """Time-ordered: fit first, then calibrate, then judge on the latest; faults go into a copy of all three.

    `staged` is the same history with incidents in it, where somebody can stage such a thing: then half of the
    faults are its incidents and half are injected into it.
    """
    rate, seed = config.training.faults_per_node_day, config.training.seed
    if staged is None:
        faulted, faults = inject_faults(history, rate, seed, empty)
    else:
        faulted, faults = inject_faults(staged[0], rate / 2, seed, empty)
        faults = sorted([*staged[1], *faults], key=lambda fault: (fault.node, fault.start))
    fit_end = int(history.ticks * config.training.fit_fraction)
    calibration_end = fit_end + (history.ticks - fit_end) // 2
    return Parts(
        history,
        faulted,
        faults,
        slice(0, fit_end),
        slice(fit_end, calibration_end),
        slice(calibration_end, history.ticks),
    )


def part_of(parts: Parts, part: slice) -> History:
    """The clean history of one part."""
    return parts.clean.between(part.start / parts.clean.ticks, part.stop / parts.clean.ticks)


@dataclass(frozen=True, slots=True)
class Candidate:
    """Fitted members, what they were fed, and the files of the bundle they make."""

    models: Mapping[str, Model]
    cohort: Cohort
    clean: Replayed
    faulted: Replayed
    manifest: Manifest
    files: Mapping[str, bytes]

    def bundle(self) -> Bundle:
        """In memory, as an agent would have read it from disk."""
        return Bundle(Path("candidate"), "candidate", self.manifest, self.files)


def raw_scores(
    candidate: Candidate, replayed: Replayed, interval_s: float, part: slice, report: Report
) -> dict[str, Array]:
    """Raw score of every exported member over a part of a replay.

    Arrays as long as the replay, NaN outside the part.
    """
    models = Models(candidate.bundle())
    ticks, nodes, width = replayed.summary.shape
    raw = {name: np.full((ticks, nodes), np.nan) for name in models.forests}
    step = max(1, FOREST_ROWS // nodes)
    for first in range(part.start, part.stop, step):
        at = slice(first, min(first + step, part.stop))
        rows, normalised = (
            table[at].reshape(-1, width).astype(np.float64)
            for table in (replayed.summary, replayed.normalised)
        )
        for name, scores in models.forest_scores(rows, normalised).items():
            raw[name][at] = scores.reshape(-1, nodes)
    for name in models.forests:
        raw[name][part] = half_smoothed(raw[name][part], interval_s)
    path = models.forecast_path(nodes, interval_s)
    if path is not None and models.forecaster is not None:
        begin = max(0, part.start - LEAD_IN_TICKS)
        scores = replay_forecasts(path, replayed.compressed[begin : part.stop], _within(report, 0.0, 0.8))
        raw[models.forecaster] = np.full((ticks, nodes), np.nan)
        raw[models.forecaster][part] = scores[part.start - begin :]
    windows = models.window_path(nodes, interval_s)
    if windows is not None and models.clusterer is not None:
        begin = max(0, part.start - windows.ticks)
        scores = replay_windows(windows, replayed.compressed[begin : part.stop], _within(report, 0.8, 0.2))
        raw[models.clusterer] = np.full((ticks, nodes), np.nan)
        raw[models.clusterer][part] = scores[part.start - begin :]
    heard = ((models.autoregression, replayed.unpredicted), (models.log_errors, replayed.errors))
    for member, said in heard:
        if member is not None:
            raw[member] = np.full((ticks, nodes), np.nan)
            raw[member][part] = said[part]
    return raw


def _within(report: Report, start: float, share: float) -> Report:
    return lambda done, note: report(start + share * done, note)


def scores_of(candidate: Candidate, raw: Mapping[str, Array]) -> dict[str, Array]:
    """`anomaly_score` as "combined", and every member's own, from raw scores (t, ...) tick after tick."""
    judged = judge(candidate.manifest, raw)
    return {"combined": candidate.manifest.tail.score(judged.held), **judged.members}


def golden_vectors(candidate: Candidate, history: History) -> dict[str, bytes]:
    """The golden file: a short history with a fault at its end, of where most is known.

    And the scores it gets from this candidate.
    """
    warmup = NodeScorer(candidate.bundle(), history.interval_s).warmup_ticks
    windows = Models(candidate.bundle()).window_path(1, history.interval_s)
    if windows is not None:  # the slowest to speak; at a tick of under 5 s it stays silent here
        warmup = max(warmup, windows.least_ticks)
    ticks = min(warmup + GOLDEN_TAIL_TICKS, GOLDEN_MOST_TICKS)
    rows = np.array(_most_known(history.values, ticks))
    rows[-4:] *= 3.0
    values = rows.astype(np.float32)
    scores = golden_scores(candidate.bundle(), values.astype(np.float64))
    return {GOLDEN_FILE: write_tensors({"values": values, "scores": scores})}


def _most_known(values: Array, ticks: int) -> Array:
    """The first of all stretches (ticks, f) of one node that has the most rows with a value.

    Whoever joined late has nothing at the start, and of nothing there are no scores: agents refuse those.
    """
    most, node, start = -1, 0, 0
    for index in range(values.shape[1]):
        known = np.isfinite(values[:, index]).any(axis=1)
        until = np.concatenate([[0], np.cumsum(known)])
        within = until[ticks:] - until[: len(until) - ticks] if len(values) > ticks else until[-1:]
        best = int(within.argmax())
        if within[best] > most:
            most, node, start = int(within[best]), index, best
        if most == ticks:
            break  # nobody has more
    return values[start : start + ticks, node]
