"""Whether a freshly trained bundle may replace the one in production, and if not, why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

SIGNIFICANCE = 0.05
_ONE_SIDED = 1.645  # standard errors that a normal variable exceeds with that probability
BASELINES = ("pca", "plain_kmeans")


class Evaluation(Protocol):
    """The figures the gate reads; all of the *exported* bundle, replayed through the scoring of the node."""

    @property
    def false_alarms_per_node_week(self) -> float:
        """Of the combined score on held-back normal data."""

    @property
    def node_weeks(self) -> float:
        """How much held-back normal data that was; 0 if there was none."""

    @property
    def budget(self) -> float:
        """False alarms per node-week that were asked for."""

    @property
    def fault_recall(self) -> Mapping[str, float]:
        """Per detector (combined, each member, pca, kmeans), all at the same false-alarm budget."""

    @property
    def faults(self) -> int:
        """How many faults the recall was counted on."""

    @property
    def parity_forest_max(self) -> float:
        """Largest difference between an exported forest and scikit-learn; 0 if no forest was trained."""

    @property
    def parity_lstm_max(self) -> float:
        """Largest difference between the exported LSTM and Keras; 0 if none was trained."""

    @property
    def tick_cpu_seconds(self) -> float:
        """CPU time of scoring one tick on the node, median over `ticks`."""

    @property
    def ticks(self) -> int:
        """How many ticks that was measured on."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What a bundle must keep to be published."""

    min_recall: float = 0.3
    parity_forest: float = 1e-9
    parity_lstm: float = 0.05
    tick_cpu_seconds: float = 0.004
    beat_baselines: bool = True


def judge(report: Evaluation, limits: GateLimits) -> tuple[str, ...]:
    """Reasons to refuse, one readable line each; empty means accepted."""
    reasons = (
        _false_alarms(report),
        *_recall(report, limits),
        _parity("forests", report.parity_forest_max, limits.parity_forest),
        _parity("LSTM", report.parity_lstm_max, limits.parity_lstm),
        _cost(report, limits),
    )
    return tuple(reason for reason in reasons if reason)


def poisson_limit(expected: float, significance: float = SIGNIFICANCE) -> int:
    """The largest count that a Poisson process with mean `expected` still explains.

    A count above it has a probability below `significance`.
    """
    probability = cumulative = math.exp(-expected)
    count = 0
    while cumulative < 1.0 - significance:
        count += 1
        probability *= expected / count
        cumulative += probability
    return count


def standard_error(share: float, count: int) -> float:
    """Of a share that was counted on `count` events; infinite without any."""
    return math.sqrt(share * (1.0 - share) / count) if count > 0 else math.inf


def chance_between(one: float, other: float, count: int) -> float:
    """The difference of two shares, each counted on `count` events, that chance exceeds once in twenty."""
    return _ONE_SIDED * math.hypot(standard_error(one, count), standard_error(other, count))


def _false_alarms(report: Evaluation) -> str:
    rate, weeks = report.false_alarms_per_node_week, report.node_weeks
    if not weeks > 0 or math.isnan(rate):
        return "false alarms were not measured: there was no held-back normal data"
    count = round(rate * weeks)
    allowed = poisson_limit(report.budget * weeks)
    if count <= allowed:
        return ""
    return (
        f"false alarms: {rate:.2f} per node-week on held-back normal data, the budget is {report.budget:g} "
        f"({count} in {weeks:.2f} node-weeks; chance alone explains up to {allowed})"
    )


def _recall(report: Evaluation, limits: GateLimits) -> tuple[str, ...]:
    combined = report.fault_recall.get("combined", math.nan)
    if math.isnan(combined):
        return ("recall of the combined score was not measured",)
    reasons = []
    if combined < limits.min_recall:
        reasons.append(
            f"recall of the combined score is {combined:.2f}, the minimum is {limits.min_recall:g}"
        )
    for baseline in BASELINES if limits.beat_baselines else ():
        other = report.fault_recall.get(baseline, math.nan)
        if math.isnan(other):
            reasons.append(f"the baseline {baseline} was not measured")
        elif other - combined > (chance := chance_between(combined, other, report.faults)):
            reasons.append(
                f"recall {combined:.2f} is below the baseline {baseline} ({other:.2f}) at the same realised "
                f"false alarms, by more than chance ({chance:.2f} on {report.faults} faults)"
            )
    return tuple(reasons)


def _parity(what: str, difference: float, limit: float) -> str:
    if math.isnan(difference):
        return f"whether the exported {what} equal the trained ones was not measured"
    if difference <= limit:
        return ""
    return f"the exported {what} differ from the trained ones by {difference:.2g}, the limit is {limit:g}"


def _cost(report: Evaluation, limits: GateLimits) -> str:
    if report.ticks <= 0 or math.isnan(report.tick_cpu_seconds):
        return "the cost of a tick on the node was not measured"
    if report.tick_cpu_seconds <= limits.tick_cpu_seconds:
        return ""
    return (
        f"a tick costs {report.tick_cpu_seconds * 1e3:.1f} ms CPU on the node "
        f"(median of {report.ticks}), the limit is {limits.tick_cpu_seconds * 1e3:g} ms"
    )
