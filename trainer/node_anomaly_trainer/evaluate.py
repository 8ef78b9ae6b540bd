"""What a candidate is worth: alarms on normal data, recall on faults, both at the same false-alarm budget.

An alarm is judged as the shipped rule raises it: HOLD_TICKS consecutive ticks at or above the threshold,
episodes closer than MERGE_TICKS are one, raised once. A fault is caught by an alarm raised inside it (or
MERGE_TICKS before); an alarm that already stands catches nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.calibration import HOLD_TICKS, MERGE_TICKS, WEEK, held
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.faults import Fault
from node_anomaly_trainer.incident_figures import IncidentFigures

if TYPE_CHECKING:
    from node_anomaly_trainer.held_back import HeldBackAlarm, NodeAlarms

COST_GROUP = 25
"""Consecutive ticks of which a cost is the median."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RegressionSet:
    """How a candidate did on the labelled false alarms; see regression."""

    tested: int
    alarmed: tuple[str, ...]
    """Where it raised an alarm again, one line each."""
    untested: int
    """Outside this history, on a node that it does not hold, or beyond the latest that are replayed."""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two detectors on the same faults at the same realised false alarms."""

    won: int
    """Faults that only the combined score found."""
    lost: int
    """Faults that only the other one found."""
    faults: int
    """How many both were asked about."""


def duel(ours: Sequence[bool], theirs: Sequence[bool]) -> Duel:
    """Count fault by fault."""
    pairs = list(zip(ours, theirs, strict=True))
    won = sum(one and not other for one, other in pairs)
    lost = sum(other and not one for one, other in pairs)
    return Duel(won, lost, len(pairs))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures that the gate reads and the report shows; see gate.Evaluation for each."""

    false_alarms_per_node_week: float
    node_weeks: float
    budget: float
    false_alarms_on_noise: float
    comparison_budget: float
    """False alarms per node-week at which `fault_recall` and `false_alarms` compare the detectors."""
    fault_recall: Mapping[str, float]
    false_alarms: Mapping[str, float]
    """Per detector, per node-week, realised with the thresholds of the comparison."""
    recall_by_kind: Mapping[str, float]
    """Of the combined score, per kind of fault."""
    faults: int
    parity_forest_max: float
    parity_lstm_max: float
    tick_cpu_seconds: float
    ticks: int
    weights: Mapping[str, float]
    """Per member, 1.0 on average."""
    bundle_bytes: int
    duels: Mapping[str, Duel] = field(default_factory=dict)
    """The combined score against each baseline, and against `production`, fault by fault."""
    accuracy: float = float("nan")
    """Share of held-back ticks, faults injected, that were in alarm and faulty, or neither."""
    incidents: IncidentFigures | None = None
    """On real incidents of the judged part; None without any."""
    production: IncidentFigures | None = None
    """The same of the bundle in production."""
    regression: RegressionSet | None = None
    """On the labelled false alarms; None without any."""
    by_node: tuple[NodeAlarms, ...] = ()
    """False alarms of each node on held-back normal data; empty for a fleet that is simulated."""
    held_back: tuple[HeldBackAlarm, ...] = ()
    """The highest of them, one by one."""


def raised(score: Array) -> NDArray[np.intp]:
    """Ticks at which an alarm is raised by scores (t,) with threshold 1.0."""
    above = np.flatnonzero(held(score, HOLD_TICKS) >= 1.0)
    if not len(above):
        return above
    # a held tick begins HOLD_TICKS - 1 ticks earlier, so the gap between episodes is shorter by that much
    gaps = np.diff(above, prepend=above[0] - MERGE_TICKS - HOLD_TICKS - 1)
    return above[gaps > MERGE_TICKS + HOLD_TICKS - 1]


def standing(score: Array) -> NDArray[np.bool_]:
    """Ticks (t,) that are part of an alarm: those at or above 1.0 that were held, from the first on."""
    end = held(score, HOLD_TICKS) >= 1.0
    inside = end.copy()
    for back in range(1, HOLD_TICKS):
        inside[:-back] |= end[back:]
    return inside


def false_alarm_rate(scores: Sequence[Array], interval_s: float) -> float:
    """Alarms per node-week over normal scores (t,), one array per node; NaN if there is no known tick."""
    weeks = known_weeks(scores, interval_s)
    return sum(len(raised(score)) for score in scores) / weeks if weeks > 0 else float("nan")


def known_weeks(scores: Sequence[Array], interval_s: float) -> float:
    """Node-weeks in which the detector knew something."""
    return float(sum(np.isfinite(score).sum() for score in scores)) * interval_s / WEEK


def caught(scores: Mapping[str, Array], faults: Sequence[Fault], first: int = 0) -> list[bool]:
    """Whether each fault raised an alarm, from scores (t,) per node whose first tick is number `first`."""
    alarms = {node: raised(score) + first for node, score in scores.items()}
    return [
        bool(((alarms[fault.node] >= fault.start - MERGE_TICKS) & (alarms[fault.node] < fault.stop)).any())
        for fault in faults
    ]


def recall(hits: Sequence[bool]) -> float:
    """Share of faults that were caught, NaN without any."""
    return float(np.mean(hits)) if hits else float("nan")


def measure_cost(bundle: Bundle, history: History, ticks: int = 400) -> tuple[float, int]:
    """CPU seconds of one tick of a warm scorer, and over how many ticks that was.

    The median of the cheapest COST_GROUP consecutive ticks: a tick takes what it takes, and whatever else the
    host does meanwhile (shared cores and caches, a slower clock) only adds to it.
    """
    scorer = NodeScorer(bundle, history.interval_s)
    costs = []
    for tick in range(min(ticks, history.ticks)):
        begun = time.process_time()
        score = scorer.step(float(history.timestamps[tick]), history.values[tick, 0])
        if score.warm:
            costs.append(time.process_time() - begun)
    groups = [costs[at : at + COST_GROUP] for at in range(0, max(1, len(costs) - COST_GROUP + 1), COST_GROUP)]
    return (min(float(np.median(group)) for group in groups), len(costs)) if costs else (float("nan"), 0)
