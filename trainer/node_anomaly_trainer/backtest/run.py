"""A backtest from beginning to end: history, replay, rules, outcome."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.backtest import promtool as tool
from node_anomaly_trainer.backtest.outcome import (
    Alert,
    Incident,
    Rate,
    alerts_of,
    by_feature,
    by_hour,
    by_node,
    incidents_of,
    nodes_weeks,
    rates_of,
)
from node_anomaly_trainer.backtest.replay import Lived, replay
from node_anomaly_trainer.backtest.rules import SCORE, VALUE, Rules
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.progress import Progress, Report

PIECE_S = 6 * 3_600.0
LEAD_IN_S = 3_600.0
"""Of every piece but the first: what rules look back on, and what an alert needs to be already firing."""

LEAST_TICKS = 100


@dataclass(frozen=True, slots=True)
class Backtest:
    """What a bundle and the rules would have said. Times in unix seconds."""

    bundle: str
    trained_at: float
    start: float
    stop: float
    interval_s: float
    nodes: tuple[str, ...]
    unknown_nodes: tuple[str, ...]
    """Those of which the bundle has no baseline; learnt during the backtest."""
    node_weeks: float
    """With a score."""
    seen_share: float
    """Of the range, what lies before the bundle was trained and may have been learnt from."""
    budget_per_week: float
    rates: tuple[Rate, ...]
    alerts: tuple[Alert, ...]
    incidents: tuple[Incident, ...]
    hours: tuple[int, ...]
    by_node: dict[str, int]
    by_feature: dict[str, float]
    notes: tuple[str, ...]

    @property
    def caught(self) -> int:
        """Incidents at which an alert fired."""
        return sum(bool(one.first_alert) for one in self.incidents)


def backtest(
    bundle: Bundle, history: History, rules: Rules, promtool: str, jobs: int, progress: Progress
) -> tuple[Backtest, list[Lived]]:
    """Replay, let Prometheus' rules judge, compare. Raises TrainingError or BundleError."""
    if history.ticks < LEAST_TICKS:
        raise TrainingError(
            f"the history has {history.ticks} ticks, a backtest needs {LEAST_TICKS}", "use a longer --since"
        )
    jobs = jobs or os.cpu_count() or 1
    with progress.phase("replay") as report:
        lived = replay(bundle.path, history, jobs, report)
    with progress.phase("rules") as report:
        firings = _firings(history, lived, rules, promtool, jobs, report)
    alerts = alerts_of(firings, history, lived, rules.alerts)
    weeks = nodes_weeks(history, lived)
    manifest = bundle.manifest
    begin, end = float(history.timestamps[0]), float(history.timestamps[-1])
    seen = float(np.clip((manifest.trained_at - begin) / max(end - begin, 1.0), 0.0, 1.0))
    return Backtest(
        bundle=bundle.version,
        trained_at=manifest.trained_at,
        start=begin,
        stop=end,
        interval_s=history.interval_s,
        nodes=history.nodes,
        unknown_nodes=tuple(one.node for one in lived if not one.known),
        node_weeks=weeks,
        seen_share=seen,
        budget_per_week=manifest.budget_per_week,
        rates=tuple(rates_of(alerts, rules.alerts, weeks)),
        alerts=tuple(alerts),
        incidents=tuple(incidents_of(history, alerts)),
        hours=tuple(by_hour(alerts)),
        by_node=by_node(alerts, history.nodes),
        by_feature=by_feature(alerts),
        notes=tuple(_notes(bundle, history, rules, seen)),
    ), lived


def _firings(
    history: History, lived: Sequence[Lived], rules: Rules, promtool: str, jobs: int, report: Report
) -> list[tool.Firing]:
    """Piece by piece, so that a month needs no more memory than a day; over a seam an alert is one."""
    ticks = max(1, round(PIECE_S / history.interval_s))
    lead_in = round(LEAD_IN_S / history.interval_s)
    starts = list(range(0, history.ticks, ticks))

    def judge(start: int) -> list[tuple[float, str, tuple[tuple[str, str], ...]]]:
        begin = max(0, start - lead_in)
        piece = slice(begin, min(history.ticks, start + ticks))
        lines = _lines(history, lived, rules, piece)
        offset = begin * history.interval_s
        asked_after = start - begin
        found = tool.fired(promtool, rules, lines, history.interval_s, piece.stop - piece.start, asked_after)
        return [(offset + at, alert, labels) for at, alert, labels in found]

    samples = []
    with ThreadPoolExecutor(jobs) as pool:  # each waits for a process
        for done, found in enumerate(pool.map(judge, starts), 1):
            samples += found
            report(done / len(starts), f"piece {done} of {len(starts)}")
    return tool.merged(samples, 1.5 * tool.ASKED_EVERY_S + history.interval_s)


def _lines(history: History, lived: Sequence[Lived], rules: Rules, piece: slice) -> list[tool.Line]:
    lines = []
    columns = [(name, at) for at, name in enumerate(history.feature_names) if name in rules.features]
    for at, one in enumerate(lived):
        labels = {"job": rules.job, "instance": one.node}
        sampled = np.isfinite(history.values[piece, at]).any(axis=1)
        lines.append(tool.Line("up", labels, np.where(sampled, 1.0, np.nan)))
        lines.append(tool.Line(SCORE, labels, one.scores[piece]))
        for name, column in columns:
            values = history.values[piece, at, column]
            if np.isfinite(values).any():
                lines.append(tool.Line(VALUE, labels | {"feature": name}, values))
    return lines


def _notes(bundle: Bundle, history: History, rules: Rules, seen: float) -> list[str]:
    notes = []
    manifest = bundle.manifest
    if seen > 0:
        trained = datetime.fromtimestamp(manifest.trained_at, UTC)
        notes.append(
            f"{seen:.0%} of the range lies before the bundle was trained ({trained:%Y-%m-%d %H:%M}Z) and may "
            f"have been learnt from: what lies after it is the better witness"
        )
    if abs(manifest.interval_s - history.interval_s) > 1e-6 * history.interval_s:
        notes.append(
            f"the history has a tick of {history.interval_s:g} s, the bundle was trained at "
            f"{manifest.interval_s:g} s"
        )
    missing = [feature.name for feature in manifest.features if feature.name not in history.feature_names]
    if missing:
        notes.append(
            f"{len(missing)} features of the bundle are not in the history: {', '.join(missing[:8])}"
        )
    if rules.unknown:
        notes.append(
            f"the rules also ask for {', '.join(sorted(rules.unknown))}, which a backtest does not have"
        )
    return notes
