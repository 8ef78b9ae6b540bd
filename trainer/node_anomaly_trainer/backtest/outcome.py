"""What the alerts of a backtest were worth: against the incidents that are known of the same time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from node_anomaly_core.calibration import WEEK
from node_anomaly_trainer.backtest.promtool import Firing
from node_anomaly_trainer.backtest.replay import Lived
from node_anomaly_trainer.dataset import ANOMALOUS, UNKNOWN, History
from node_anomaly_trainer.labels import runs
from node_anomaly_trainer.predict import Reason

EARLY_S = 900.0
"""An alert that begins so long before an incident is still about it."""

HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert that would have fired. Times in unix seconds."""

    name: str
    severity: str
    node: str
    """"" for one about several."""
    labels: Mapping[str, str]
    start: float
    stop: float
    peak: float
    """The highest score of its node while it fired; NaN for one about several."""
    reasons: tuple[Reason, ...]
    incident: bool
    """Whether it fired at, or shortly before, a known incident of its node (of any node without one)."""
    judged: bool
    """False where its time was excluded from judging: neither normal nor an incident."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One stretch that is known as anomalous, of one node. Times in unix seconds."""

    node: str
    start: float
    stop: float
    first_alert: str
    """The alert that fired first at it; "" where it was missed."""
    after_s: float
    """From its beginning to that alert, negative where the alert was earlier; NaN where it was missed."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One alert of the rules over the whole range."""

    name: str
    severity: str
    alerts: int
    per_node_week: float
    """NaN for alerts about several nodes."""
    false: int
    """At no known incident, in time that was judged."""
    nodes: int


def nodes_weeks(history: History, lived: Sequence[Lived]) -> float:
    """Node-weeks in which there was a score."""
    return sum(float(np.isfinite(one.scores).sum()) for one in lived) * history.interval_s / WEEK


def alerts_of(
    firings: Sequence[Firing], history: History, lived: Sequence[Lived], severities: Mapping[str, str]
) -> list[Alert]:
    """Firings, whose times are seconds since the first tick, with what is known about them."""
    begin = float(history.timestamps[0])
    by_node = {one.node: at for at, one in enumerate(lived)}
    found = []
    for firing in firings:
        at = by_node.get(firing.instance)
        first, last = _ticks(history, firing.start - EARLY_S, firing.stop)
        near = history.labels[first:last] if at is None else history.labels[first:last, [at]]
        own_first, own_last = _ticks(history, firing.start, firing.stop)
        peak, reasons = (np.nan, ()) if at is None else _why(lived[at], own_first, own_last)
        own = near[own_first - first :]
        found.append(
            Alert(
                name=firing.alert,
                severity=severities.get(firing.alert, ""),
                node=firing.instance,
                labels=dict(firing.labels),
                start=begin + firing.start,
                stop=begin + firing.stop,
                peak=peak,
                reasons=reasons,
                incident=bool((near == ANOMALOUS).any()),
                judged=bool((own != UNKNOWN).any()),
            )
        )
    return found


def _ticks(history: History, start: float, stop: float) -> tuple[int, int]:
    """Ticks of an interval in seconds since the first; at least one."""
    first = min(max(0, int(start // history.interval_s)), history.ticks - 1)
    return first, min(history.ticks, max(first + 1, int(-(-stop // history.interval_s))))


def _why(lived: Lived, first: int, last: int) -> tuple[float, tuple[Reason, ...]]:
    scores = lived.scores[max(0, first - 3) : last]
    if not np.isfinite(scores).any():
        return float("nan"), ()
    at = max(0, first - 3) + int(np.nanargmax(scores))
    return float(lived.scores[at]), lived.reasons.get(at, ())


def incidents_of(history: History, alerts: Sequence[Alert]) -> list[Incident]:
    """Every known incident, and which alert of its node, or about several nodes, was the first at it."""
    found = []
    for at, node in enumerate(history.nodes):
        for first, last in runs(history.labels[:, at] == ANOMALOUS):
            start = float(history.timestamps[first])
            stop = float(history.timestamps[last - 1]) + history.interval_s
            at_it = [
                one
                for one in alerts
                if one.node in (node, "") and one.start < stop and one.stop > start - EARLY_S
            ]
            earliest = min(at_it, key=lambda one: one.start, default=None)
            found.append(
                Incident(
                    node=node,
                    start=start,
                    stop=stop,
                    first_alert=earliest.name if earliest else "",
                    after_s=earliest.start - start if earliest else float("nan"),
                )
            )
    return sorted(found, key=lambda one: (one.start, one.node))


def rates_of(alerts: Sequence[Alert], names: Mapping[str, str], weeks: float) -> list[Rate]:
    """One row for every alert of the rules, those that never fired included."""
    rows = []
    for name, severity in names.items():
        own = [one for one in alerts if one.name == name]
        about_nodes = any(one.node for one in own) or not own
        rows.append(
            Rate(
                name=name,
                severity=severity,
                alerts=len(own),
                per_node_week=len(own) / weeks if about_nodes and weeks > 0 else float("nan"),
                false=sum(not one.incident and one.judged for one in own),
                nodes=len({one.node for one in own if one.node}),
            )
        )
    return rows


def by_hour(alerts: Sequence[Alert]) -> list[int]:
    """How many alerts began in each hour of the day, UTC (24,)."""
    counted = Counter(int(one.start % (24 * HOUR_S) // HOUR_S) for one in alerts)
    return [counted[hour] for hour in range(24)]


def by_node(alerts: Sequence[Alert], nodes: Sequence[str]) -> dict[str, int]:
    """How many alerts each node had, the most first; nodes without one too."""
    counted = Counter(one.node for one in alerts if one.node)
    return dict(sorted(((node, counted[node]) for node in nodes), key=lambda pair: (-pair[1], pair[0])))


def by_feature(alerts: Sequence[Alert]) -> dict[str, float]:
    """How many alerts each feature made: its share in each, summed; the most first."""
    total: dict[str, float] = {}
    for one in alerts:
        for reason in one.reasons:
            total[reason.feature] = total.get(reason.feature, 0.0) + reason.share
    return dict(sorted(total.items(), key=lambda pair: -pair[1]))
