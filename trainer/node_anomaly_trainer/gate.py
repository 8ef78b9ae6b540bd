"""Whether a freshly trained bundle may replace the one in production, and if not, why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from node_anomaly_trainer.few import few

if TYPE_CHECKING:  # the configuration reads the limits here, and must not bring numpy and scikit-learn
    from node_anomaly_trainer.evaluate import Duel, RegressionSet
    from node_anomaly_trainer.held_back import NodeAlarms
    from node_anomaly_trainer.incident_figures import IncidentFigures

SIGNIFICANCE = 0.05
DISTURBED_SHARE = 0.2
"""Of the nodes may have lived through something in their held-back part that nobody has labelled."""

MOST_NAMED = 3
BASELINES = ("pca", "plain_kmeans")
PRODUCTION = "production"


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
    def false_alarms_on_noise(self) -> float:
        """The most per node-week that the threshold in force raises at this budget where nothing happens."""

    @property
    def by_node(self) -> tuple[NodeAlarms, ...]:
        """False alarms and held-back normal data of each node, most alarms first; empty where unknown."""

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

    @property
    def duels(self) -> Mapping[str, Duel]:
        """The combined score against each baseline and the bundle in production, fault by fault."""

    @property
    def incidents(self) -> IncidentFigures | None:
        """On real incidents; None without any."""

    @property
    def production(self) -> IncidentFigures | None:
        """The same of the bundle in production."""

    @property
    def regression(self) -> RegressionSet | None:
        """On labelled false alarms; None without any."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What a bundle must keep to be published."""

    min_recall: float = 0.3
    parity_forest: float = 1e-9
    parity_lstm: float = 0.1  # of values within -5..5, the largest of some 100,000; int8 costs no recall
    tick_cpu_seconds: float = 0.004
    beat_baselines: bool = True
    beat_production: bool = True
    labelled: Mapping[str, float] = field(default_factory=dict)
    """Least accuracy, precision and recall on real incidents; what is absent is not asked for."""
    primary_metric: str = "f1_score"
    """On real incidents, that in which the bundle in production must not be better."""


NO_FAULT = (
    "recall of the combined score was not measured: no fault fell into the part that judges; read a longer "
    "range or more nodes, or raise training.faults_per_node_day"
)


def judge(report: Evaluation, limits: GateLimits) -> tuple[str, ...]:
    """Reasons to refuse, one readable line each; empty means accepted."""
    reasons = (
        _false_alarms(report),
        *_recall(report, limits),
        _parity("forests", report.parity_forest_max, limits.parity_forest),
        _parity("LSTM", report.parity_lstm_max, limits.parity_lstm),
        _cost(report, limits),
        *_incidents(report, limits),
        *_regression(report),
    )
    return tuple(reason for reason in reasons if reason)


def allowances(report: Evaluation, limits: GateLimits) -> tuple[str, ...]:
    """What was let pass because it is no fault of the bundle or this data cannot tell, one line each."""
    lines = []
    if report.node_weeks > 0 and not _false_alarms(report):
        lines += _let_pass(report)
    for name in _rivals(report, limits):
        duel = report.duels.get(name)
        if duel is not None and duel.lost > duel.won and by_chance(duel) >= SIGNIFICANCE:
            lines.append(
                f"{_words(name)} found {duel.lost} faults that the combined score missed, which found "
                f"{duel.won} that it missed: {duel.faults} faults cannot tell them apart "
                f"(p = {by_chance(duel):.2f})"
            )
    if report.regression is not None and report.regression.untested:
        lines.append(
            f"{report.regression.untested} labelled false alarms are not in this history and were not tested"
        )
    return tuple(lines)


def _let_pass(report: Evaluation) -> list[str]:
    """Why false alarms above the budget are no reason."""
    lines = []
    counted = _counted(report)
    if counted.disturbed:
        lines.append(
            f"false alarms: {report.false_alarms_per_node_week:.2f} per node-week, the most on "
            f"{_named(counted.disturbed)}, where more happened than threshold and chance explain: look at "
            "these in the report, and write what was wrong there into labels.incidents. The other nodes had "
            f"{counted.alarms} in {counted.weeks:.2f} node-weeks"
        )
    if counted.alarms > report.budget * counted.weeks:
        above = f"false alarms: {counted.alarms} in {counted.weeks:.2f} node-weeks are above the budget of "
        if counted.alarms <= poisson_limit(report.budget * counted.weeks):
            lines.append(
                f"{above}{report.budget:g} a week, and no more than chance explains on so little data"
            )
        else:
            lines.append(
                f"{above}{report.budget:g} a week (that is {counted.alarms / counted.weeks:.2f}), but a "
                f"node's own threshold raises up to {report.false_alarms_on_noise:.2f} a week at this budget "
                f"where nothing happens, whatever the models (with chance {counted.allowed} in all)"
            )
    return lines


@dataclass(frozen=True, slots=True)
class _Count:
    """What is held against the budget: of all nodes, or of all but a few that are `disturbed`."""

    alarms: int
    weeks: float
    allowed: int
    disturbed: tuple[NodeAlarms, ...] = ()


def _counted(report: Evaluation) -> _Count:
    """All alarms, as long as there are not too many of them.

    Else those of all nodes but the worst few, at most DISTURBED_SHARE of them, and only such as raise more
    than threshold and chance explain on one node: history that nobody has labelled holds incidents, and a
    node whose bundle does not suit it goes back to the one before by itself.
    """
    rate = max(report.budget, report.false_alarms_on_noise)
    weeks = report.node_weeks
    whole = _Count(round(report.false_alarms_per_node_week * weeks), weeks, poisson_limit(rate * weeks))
    if whole.alarms <= whole.allowed:
        return whole
    odd = tuple(one for one in report.by_node if one.alarms > poisson_limit(rate * one.weeks))
    odd = odd[: int(DISTURBED_SHARE * len(report.by_node))]
    alarms = whole.alarms - sum(one.alarms for one in odd)
    weeks -= sum(one.weeks for one in odd)
    return _Count(alarms, weeks, poisson_limit(rate * weeks), odd)


def _named(nodes: tuple[NodeAlarms, ...]) -> str:
    return few([f"{one.node} ({one.alarms})" for one in nodes], MOST_NAMED)


def poisson_limit(expected: float, significance: float = SIGNIFICANCE) -> int:
    """The largest count that a Poisson process with mean `expected` still explains.

    A count above it has a probability below `significance`.
    """
    log_probability = -expected  # e to this power is 0 from some 745 on, and the sum would never end
    cumulative, count = math.exp(log_probability), 0
    while cumulative < 1.0 - significance:
        count += 1
        log_probability += math.log(expected / count)
        cumulative += math.exp(log_probability)
    return count


def by_chance(duel: Duel) -> float:
    """Probability that chance alone gives the other one a lead as large as this, were both equally good.

    A one-sided sign test on the faults that only one of the two found (McNemar's, exact).
    """
    decided = duel.won + duel.lost
    ways: int = sum(math.comb(decided, count) for count in range(duel.lost, decided + 1))
    return float(ways / 2**decided)


def _false_alarms(report: Evaluation) -> str:
    rate, weeks = report.false_alarms_per_node_week, report.node_weeks
    if not weeks > 0 or math.isnan(rate):
        return "false alarms were not measured: there was no held-back normal data"
    counted = _counted(report)
    if counted.alarms <= counted.allowed:
        return ""
    without = f"without {_named(counted.disturbed)}: " if counted.disturbed else ""
    worst = tuple(one for one in report.by_node if one.alarms)
    where = (
        f"; most on {_named(worst)}, and the report has them one by one: what was wrong there belongs into "
        "labels.incidents, what is normal and new needs a longer range"
        if worst
        else ""
    )
    return (
        f"false alarms: {rate:.2f} per node-week on held-back normal data, the budget is {report.budget:g} "
        f"({without}{counted.alarms} in {counted.weeks:.2f} node-weeks; threshold and chance alone explain "
        f"up to {counted.allowed}{where})"
    )


def _recall(report: Evaluation, limits: GateLimits) -> tuple[str, ...]:
    combined = report.fault_recall.get("combined", math.nan)
    if math.isnan(combined):
        return (NO_FAULT,)
    reasons = []
    if combined < limits.min_recall:
        reasons.append(
            f"recall of the combined score is {combined:.2f}, the minimum is {limits.min_recall:g}"
        )
    for name in _rivals(report, limits):
        other, duel = report.fault_recall.get(name, math.nan), report.duels.get(name)
        if math.isnan(other) or duel is None:
            reasons.append(f"{_words(name)} was not measured")
        elif duel.lost > duel.won and by_chance(duel) < SIGNIFICANCE:
            reasons.append(
                f"recall {combined:.2f} is below {_words(name)} ({other:.2f}) at the same realised false "
                f"alarms: it found {duel.lost} of {duel.faults} faults that were missed, and missed "
                f"{duel.won} (p = {by_chance(duel):.3f})"
            )
    return tuple(reasons)


def _rivals(report: Evaluation, limits: GateLimits) -> tuple[str, ...]:
    old = (PRODUCTION,) if limits.beat_production and PRODUCTION in report.fault_recall else ()
    return (*(BASELINES if limits.beat_baselines else ()), *old)


def _words(name: str) -> str:
    return "the bundle in production" if name == PRODUCTION else f"the baseline {name}"


def _incidents(report: Evaluation, limits: GateLimits) -> tuple[str, ...]:
    ours, old = report.incidents, report.production
    if ours is None:
        return ()
    reasons = []
    for name, least in limits.labelled.items():
        value = ours.metric(name)
        if least > 0 and not value >= least:
            shown = "unknown" if math.isnan(value) else f"{value:.2f}"
            reasons.append(
                f"{name} on {ours.incidents} labelled incidents is {shown}, "
                f"evaluation.min_{name} asks for {least:g}"
            )
    if old is not None and limits.beat_production:
        one, other = ours.metric(limits.primary_metric), old.metric(limits.primary_metric)
        # an incident more or less is what so few can tell
        if other - one > 1.0 / ours.incidents:
            reasons.append(
                f"{limits.primary_metric} on {ours.incidents} labelled incidents is {one:.2f}, "
                f"the bundle in production has {other:.2f}"
            )
    return tuple(reasons)


def _regression(report: Evaluation) -> tuple[str, ...]:
    if report.regression is None:
        return ()
    return tuple(
        f"it alarms again where you said there was nothing: {one}" for one in report.regression.alarmed
    )


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
        f"a tick costs {report.tick_cpu_seconds * 1e3:.1f} ms CPU on this host (the cheapest of "
        f"{report.ticks}; other work makes that more), the limit is {limits.tick_cpu_seconds * 1e3:g} ms"
    )
