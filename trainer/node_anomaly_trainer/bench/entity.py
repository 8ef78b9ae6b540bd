"""One entity from beginning to end: train, export, write, verify, live, score, judge, record."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle import Bundle, verify_bundle, write_bundle
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.members import Models
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.windows import ticks_in
from node_anomaly_trainer.bench.baselines import DETECTORS, baseline_scores
from node_anomaly_trainer.bench.data import Entry, Series, load
from node_anomaly_trainer.bench.files import SCORE_BYTES, require_room, scores_csv, scores_path, sha256
from node_anomaly_trainer.bench.lenders import borrow
from node_anomaly_trainer.bench.metrics import judge
from node_anomaly_trainer.bench.plan import history_of, planned, values_of
from node_anomaly_trainer.bench.record import OURS, Record, forget, write_record
from node_anomaly_trainer.bench.yardsticks import LARGEST_Z, largest_z
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.fitting import LabelledRows
from node_anomaly_trainer.pipeline import prepare
from node_anomaly_trainer.progress import Report
from node_anomaly_trainer.whole_file import write_whole

LEAD_IN_S = 4 * 86_400.0
"""Of the end of `train` that the node relives before the first row of `test`, as after a hot reload."""

NO_INCIDENT = "no other entity lends an incident: trained as without labels"

_REPORT_EVERY = 200
_PHASES = 10  # about as many steps has a training run

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """Our scores of a series, and what they cost."""

    score: Array  # (t,) of every tick of the test; NaN = unknown
    refused: str
    refused_hint: str
    notes: tuple[str, ...]
    train_seconds: float
    score_seconds: float
    tick_ms: float | None
    bundle_bytes: int | None


def bench_entity(
    entry: Entry, out: Path, config: TrainConfig, fingerprint: str, lenders: tuple[Path, ...], report: Report
) -> None:
    """Do one entity and leave its scores, those of the baselines, and its record under `out`.

    Its label is read when all scores are written.
    """
    forget(out, entry.dataset, entry.entity)
    series, _ = load(entry)
    require_room(out, SCORE_BYTES * (1 + len(DETECTORS)) * series.rows_in_file)
    borrowed = borrow(lenders) if lenders else None
    ours = score_series(series, config, borrowed, report)
    begun = time.monotonic()
    report(0.95, "baselines")
    others, notes = score_baselines(series, config)
    if lenders and borrowed is None:
        notes = (NO_INCIDENT, *notes)
    digests = {}
    for name, score in {**others, OURS: ours.score}.items():
        content = scores_csv(series.in_file(series.judged(score)))
        path = scores_path(out, entry.dataset, entry.entity, "" if name == OURS else name)
        write_whole(path, content)
        digests[name] = sha256(content)
    largest = largest_z(series.train, series.test)
    _, label = load(entry)
    figures = {
        name: judge(label, series.judged(score), series.interval_s)
        for name, score in {OURS: ours.score, **others, LARGEST_Z: largest}.items()
    }
    record = Record(
        fingerprint=fingerprint,
        scores=digests,
        figures=figures,
        lenders=len(lenders) if borrowed is not None and not ours.refused else 0,
        refused=ours.refused,
        refused_hint=ours.refused_hint,
        notes=(*ours.notes, *notes),
        seconds={
            "train": round(ours.train_seconds, 3),
            "score": round(ours.score_seconds, 3),
            "baselines": round(time.monotonic() - begun, 3),
        },
        tick_ms=ours.tick_ms,
        bundle_bytes=ours.bundle_bytes,
    )
    write_record(out, entry.dataset, entry.entity, record)


def score_series(
    series: Series, config: TrainConfig, borrowed: LabelledRows | None, report: Report
) -> Scored:
    """Train on `train`, write the bundle, read it back as an agent would, and score `test` with it.

    Where the trainer refuses, nothing has a score, `refused` says why and `refused_hint` what to do.
    """
    begun = time.monotonic()
    unknown = np.full(len(series.test), np.nan)
    notes: tuple[str, ...] = ()
    try:
        plan = planned(config, series.train, series.interval_s, lent=borrowed is not None)
        notes, told = plan.notes, _Steps(report)
        history = history_of(series, series.train)
        candidate = prepare(history, plan.config, told, borrowed, plan.least_scores)
        notes += tuple(told.notes)
    except TrainingError as error:
        took = time.monotonic() - begun
        return Scored(unknown, error.message, error.hint, notes, took, 0.0, None, None)
    size = sum(len(content) for content in candidate.files.values())
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as scratch:
        bundle = verify_bundle(write_bundle(Path(scratch), candidate.manifest, candidate.files))
    del candidate  # the files say it all, and the replays are large
    trained = time.monotonic()
    score, tick_ms = lived(bundle, series, report)
    return Scored(score, "", "", notes, trained - begun, time.monotonic() - trained, tick_ms, size)


def lived(bundle: Bundle, series: Series, report: Report) -> tuple[Array, float]:
    """Scores (t,) of the test's ticks by a node that lived the end of train first; CPU ms of a tick."""
    scorer = NodeScorer(bundle, series.interval_s, series.entry.name, Models(bundle))
    lead_in = min(len(series.train), ticks_in(LEAD_IN_S, series.interval_s))
    ticks = len(series.train) + np.arange(-lead_in, len(series.test))
    rows = np.concatenate([values_of(series.train[len(series.train) - lead_in :]), values_of(series.test)])
    score = np.empty(len(rows))
    begun = time.process_time()
    for at, (tick, row) in enumerate(zip(ticks.tolist(), rows, strict=True)):
        score[at] = scorer.step(series.start_s + tick * series.interval_s, row).score
        if at % _REPORT_EVERY == 0:
            report(0.5 + 0.45 * at / len(rows), "score")
    return score[lead_in:], 1e3 * (time.process_time() - begun) / len(rows)


def score_baselines(series: Series, config: TrainConfig) -> tuple[Mapping[str, Array], tuple[str, ...]]:
    """Scores (t,) of the test's ticks by each baseline, all NaN where one refuses, and why it did."""
    train, test = values_of(series.train), values_of(series.test)
    with suppress(TrainingError):  # a baseline may know what to do with fewer ticks than we need
        config = planned(config, train, series.interval_s).config
    fit_ticks = int(len(train) * config.training.fit_fraction)
    scores, notes = {}, []
    for name, detector in DETECTORS.items():
        try:
            scores[name] = baseline_scores(
                detector,
                train,
                test,
                fit_ticks,
                series.interval_s,
                config.budget.false_alarms_per_node_week,
                config.training.seed,
            )
        except TrainingError as error:
            scores[name] = np.full(len(test), np.nan)
            notes.append(f"{name} has no scores: {error.message}")
    return scores, tuple(notes)


class _Steps:
    """Tells the first half of an entity's progress by the steps of its training; keeps what is noted."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._begun = 0
        self.notes: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[Report]:
        """See Progress.phase."""
        at = min(self._begun, _PHASES - 1)
        self._begun += 1

        def report(done: float, _: str) -> None:
            self._report(0.5 * (at + min(max(done, 0.0), 1.0)) / _PHASES, name)

        report(0.0, "")
        yield report

    def note(self, line: str) -> None:
        """See Progress.note."""
        self.notes.append(line)
