"""Rows in, one score for each of them out: what an agent with this bundle would have said.

Every node of the rows gets a scorer of its own (core, tick by tick, in time order), so interleaved nodes do
not disturb each other; the answers come back in the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.calibration import HOLD_TICKS, held
from node_anomaly_core.errors import ConfigError, SourceError
from node_anomaly_core.members import Models
from node_anomaly_core.score import Score
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer.config import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S
from node_anomaly_trainer.few import few
from node_anomaly_trainer.progress import Report, ignore_report
from node_anomaly_trainer.settings import nearest
from node_anomaly_trainer.sources.file import LABEL, NODE, TIMESTAMP, nodes_of, numbers_of, timestamps_of

COMBINED = "combined"
_REPORT_EVERY = 500
MOST_NAMED = 8
"""Features without a column, in a note."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in a score; observed and expected are in the feature's unit, NaN = unknown."""

    feature: str
    share: float
    observed: float
    expected: float


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """What is to be scored: n rows of several nodes in any order."""

    times: Array  # (n,) unix seconds
    nodes: tuple[str, ...]
    node_of_row: NDArray[np.intp]  # (n,)
    values: NDArray[np.float64]  # (n, f) in the bundle's feature order, NaN = missing
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Predictions:
    """Row by row, in the order of the rows."""

    score: Array
    """(n,) 1.0 is the alarm threshold; NaN while the node is not known well enough."""
    alarm: NDArray[np.bool_]
    """(n,) the score was at least 1.0 for as many ticks as the shipped rule asks for."""
    members: dict[str, Array]
    """(n,) each member's own score on the same scale."""
    reasons: tuple[tuple[Reason, ...], ...]
    """Per row, the largest first; empty where not asked for or where nothing stands out."""
    notes: tuple[str, ...]


def rows_of(frame: pd.DataFrame, bundle: Bundle, where: Path, default_node: str = "node") -> Rows:
    """The rows of a frame with timestamp, node and feature columns, as the bundle takes them.

    Columns that the bundle does not know are left out, features that the frame lacks are missing; the notes
    say which. Raises SourceError, with row and column, for a cell that is no number or no time.
    """
    if TIMESTAMP not in frame.columns:
        raise SourceError(f"{where}: no column {TIMESTAMP!r}", "name the column with the times timestamp")
    if not len(frame):
        raise SourceError(f"{where}: no row to score", "write at least one sample")
    names = [feature.name for feature in bundle.manifest.features]
    present = {str(name) for name in frame.columns}
    if not present.intersection(names):
        raise SourceError(
            f"{where}: not one of the bundle's {len(names)} features is a column",
            f"name columns as `anomaly-agent features` does, for example {names[0]}",
        )
    values = np.full((len(frame), len(names)), np.nan)
    for column, name in enumerate(names):
        if name in present:
            values[:, column] = numbers_of(frame, name, where)
    nodes, node_of_row = nodes_of(frame, default_node)
    unknown = sorted(present - set(names) - {TIMESTAMP, NODE, LABEL})
    missing = [name for name in names if name not in present]
    notes = []
    if unknown:
        notes.append(f"columns that the bundle does not know were ignored: {', '.join(unknown)}")
    if missing:
        notes.append(f"{len(missing)} features without a column count as missing: {few(missing, MOST_NAMED)}")
    return Rows(timestamps_of(frame, where), nodes, node_of_row, values, tuple(notes))


def predict_rows(
    bundle: Bundle, rows: Rows, report: Report = ignore_report, reasons: int = 0, model: str = COMBINED
) -> Predictions:
    """Score every row, with up to `reasons` features behind each.

    `model` names the member whose score is wanted instead of all together. Raises ConfigError for a member
    that the bundle does not have.
    """
    members = [entry.name for entry in bundle.manifest.models]
    if model not in (COMBINED, *members):
        raise ConfigError(
            f"--model {model}: the bundle has no such member{nearest(model, (COMBINED, *members))}",
            f"one of {', '.join((COMBINED, *members))}",
        )
    count = len(rows.times)
    table = {name: np.full(count, np.nan) for name in (COMBINED, *members)}
    alarm = np.zeros(count, dtype=bool)
    found: list[tuple[Reason, ...]] = [()] * count
    notes = [*rows.notes]
    models = Models(bundle)
    done = 0
    for at, node in enumerate(rows.nodes):
        own = np.flatnonzero(rows.node_of_row == at)
        order = own[np.argsort(rows.times[own], kind="stable")]
        interval_s = _interval(rows.times[order], bundle.manifest.interval_s)
        scorer = NodeScorer(bundle, interval_s, node, models)
        if not scorer.known:
            notes.append(f"{node}: not a node of the bundle, learnt from its rows")
        for row in order:
            score = scorer.step(float(rows.times[row]), rows.values[row])
            table[COMBINED][row] = score.score
            for name, value in score.model_scores.items():
                table[name][row] = value
            if reasons:
                found[row] = reasons_of(score, scorer.features, reasons)
            done += 1
            if done % _REPORT_EVERY == 0:
                report(done / count, f"{node}, row {done:,} of {count:,}")
        alarm[order] = held(table[model][order], HOLD_TICKS) >= 1.0
        if silent := int(np.isnan(table[model][order]).sum()):
            notes.append(f"{node}: no score for {silent} of {len(order)} rows, too little was known by then")
    chosen = table.pop(COMBINED)
    return Predictions(table.get(model, chosen), alarm, table, tuple(found), tuple(notes))


def reasons_of(score: Score, features: tuple[str, ...], most: int) -> tuple[Reason, ...]:
    """The `most` features that a score credits most, the largest first."""
    share = np.nan_to_num(score.contributions)
    order = np.argsort(-share, kind="stable")[:most]
    return tuple(
        Reason(features[at], float(share[at]), float(score.observed[at]), float(score.expected[at]))
        for at in order
        if share[at] > 0
    )


def _interval(times: Array, otherwise: float) -> float:
    """How far apart a node's rows usually are; the bundle's tick where the rows cannot say."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    usual = float(np.median(steps)) if len(steps) else otherwise
    return usual if SHORTEST_INTERVAL_S <= usual <= LONGEST_INTERVAL_S else otherwise


def as_frame(frame: pd.DataFrame, found: Predictions, *, alarm: bool, reasons: bool) -> pd.DataFrame:
    """The frame's timestamp and node columns as they were, and `score`; its index stays too."""
    kept = [name for name in (TIMESTAMP, NODE) if name in frame.columns]
    result = frame[kept].copy()
    result["score"] = found.score
    if alarm:
        result["alarm"] = found.alarm.astype(int)
    if reasons:
        result["reasons"] = [
            "; ".join(f"{reason.feature} {reason.share:.0%}" for reason in row) for row in found.reasons
        ]
    return result
