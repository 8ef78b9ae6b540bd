"""The gate: every rule refuses alone, with one readable line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest

from node_anomaly_trainer.evaluate import Duel, RegressionSet
from node_anomaly_trainer.gate import GateLimits, allowances, judge, poisson_limit
from node_anomaly_trainer.held_back import NodeAlarms
from node_anomaly_trainer.incident_figures import IncidentFigures


@dataclass(frozen=True)
class Report:
    false_alarms_per_node_week: float = 0.5
    node_weeks: float = 8.0
    budget: float = 1.0
    false_alarms_on_noise: float = 1.0
    fault_recall: dict = field(default_factory=lambda: {"combined": 0.8, "pca": 0.5, "plain_kmeans": 0.6})
    parity_forest_max: float = 1e-15
    parity_lstm_max: float = 0.01
    tick_cpu_seconds: float = 0.002
    ticks: int = 400
    faults: int = 200
    duels: dict = field(default_factory=lambda: {"pca": Duel(70, 10, 200), "plain_kmeans": Duel(50, 10, 200)})
    incidents: IncidentFigures | None = None
    production: IncidentFigures | None = None
    regression: RegressionSet | None = None
    by_node: tuple = ()


def recalls(**values):
    """A report in which each of these recalls was counted on the same 200 faults, every one decided."""
    found = {"combined": 0.8, "pca": 0.5, "plain_kmeans": 0.6} | values
    duels = {name: against(found["combined"], recall) for name, recall in found.items() if name != "combined"}
    return replace(Report(), fault_recall=found, duels=duels)


def against(ours, theirs, faults=200):
    """Two detectors of which the better one finds all that the other does."""
    ahead = 0 if math.isnan(ours) or math.isnan(theirs) else round((ours - theirs) * faults)
    return Duel(max(ahead, 0), max(-ahead, 0), faults)


def test_a_good_report_is_accepted():
    assert judge(Report(), GateLimits()) == ()


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (replace(Report(), false_alarms_per_node_week=3.0), "false alarms: 3.00 per node-week"),
        (replace(Report(), node_weeks=0.0), "false alarms were not measured"),
        (replace(Report(), false_alarms_per_node_week=math.nan), "false alarms were not measured"),
        (recalls(combined=math.nan), "was not measured"),
        (recalls(combined=0.2, pca=0.1, plain_kmeans=0.1), "recall of the combined score is 0.20"),
        (recalls(pca=0.9), "below the baseline pca"),
        (recalls(plain_kmeans=0.9), "below the baseline plain_kmeans"),
        (recalls(pca=math.nan), "the baseline pca was not measured"),
        (replace(Report(), parity_forest_max=1e-6), "the exported forests differ"),
        (replace(Report(), parity_lstm_max=0.2), "the exported LSTM differ"),
        (replace(Report(), parity_lstm_max=math.nan), "was not measured"),
        (replace(Report(), tick_cpu_seconds=0.009), "9.0 ms CPU"),
        (replace(Report(), ticks=0), "cost of a tick on the node was not measured"),
    ],
)
def test_each_fault_of_a_report_is_one_reason(report, said):
    (reason,) = judge(report, GateLimits())
    assert said in reason
    assert "\n" not in reason


def test_reasons_add_up():
    bad = replace(Report(), tick_cpu_seconds=1.0, parity_forest_max=1.0, false_alarms_per_node_week=9.0)
    assert len(judge(bad, GateLimits())) == 3


def test_on_little_data_chance_is_allowed_for_and_said():
    """Three alarms in 0.86 node-weeks are no proof against one a week, four are."""
    few = replace(Report(), node_weeks=0.86, false_alarms_per_node_week=3 / 0.86)
    assert judge(few, GateLimits()) == ()
    (reason,) = judge(replace(few, false_alarms_per_node_week=4 / 0.86), GateLimits())
    assert "chance alone explain up to 3" in reason


def test_what_the_threshold_makes_of_noise_is_let_pass_and_said():
    """On 200 node-weeks 2.6 a week are no chance against one, and none of the bundle's doing either."""
    calm = replace(Report(), node_weeks=200.0, false_alarms_per_node_week=2.6)
    (reason,) = judge(calm, GateLimits())
    assert "threshold and chance alone explain up to 224" in reason
    known = replace(calm, false_alarms_on_noise=3.16)
    assert judge(known, GateLimits()) == ()
    (line,) = allowances(known, GateLimits())
    assert "above the budget of 1 a week (that is 2.60)" in line
    assert "raises up to 3.16 a week" in line
    (reason,) = judge(replace(known, false_alarms_per_node_week=6.0), GateLimits())
    assert "6.00 per node-week on held-back normal data, the budget is 1 " in reason


def test_where_a_baseline_finds_everything_an_equal_is_enough():
    assert judge(recalls(combined=1.0, pca=1.0), GateLimits()) == ()


def test_a_lead_that_the_number_of_faults_cannot_resolve_is_let_pass_and_said():
    """Six against three of nine that only one found is chance, sixty against thirty of ninety is not."""
    few = replace(recalls(pca=0.83), duels={**Report().duels, "pca": Duel(3, 6, 200)})
    assert judge(few, GateLimits()) == ()
    (line,) = allowances(few, GateLimits())
    assert "the baseline pca found 6 faults that the combined score missed" in line
    assert "(p = 0.25)" in line
    many = replace(few, duels={**few.duels, "pca": Duel(30, 60, 2_000)})
    (reason,) = judge(many, GateLimits())
    assert "found 60 of 2000 faults that were missed, and missed 30 (p = 0.001)" in reason
    assert allowances(many, GateLimits()) == ()


def test_a_lead_of_ours_needs_no_allowance():
    assert allowances(Report(), GateLimits()) == ()


def test_the_bundle_in_production_must_not_be_better():
    worse = recalls(production=0.9)
    (reason,) = judge(worse, GateLimits())
    assert "below the bundle in production (0.90)" in reason
    assert judge(worse, GateLimits(beat_production=False)) == ()
    assert judge(recalls(production=0.7), GateLimits()) == ()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            {"accuracy": 0.99},
            "accuracy on 10 labelled incidents is 0.95, evaluation.min_accuracy asks for 0.99",
        ),
        ({"precision": 0.75}, "precision on 10 labelled incidents is 0.50"),
        ({"recall": 0.75}, "recall on 10 labelled incidents is 0.60"),
    ],
)
def test_minima_hold_on_labelled_incidents(limits, said):
    report = replace(Report(), incidents=IncidentFigures(10, 12, 0.95, 0.5, 0.6))
    assert judge(report, GateLimits()) == ()
    (reason,) = judge(report, GateLimits(labelled=limits))
    assert said in reason
    assert judge(Report(), GateLimits(labelled=limits)) == (), "without an incident there is nothing to hold"


def test_a_minimum_for_what_is_unknown_refuses():
    silent = replace(Report(), incidents=IncidentFigures(10, 0, 0.95, math.nan, 0.0))
    (reason,) = judge(silent, GateLimits(labelled={"precision": 0.75}))
    assert "precision on 10 labelled incidents is unknown" in reason


def test_the_primary_metric_on_incidents_is_held_against_production_by_more_than_one_incident():
    ours, old = IncidentFigures(10, 10, 0.9, 0.6, 0.6), IncidentFigures(10, 10, 0.9, 0.9, 0.9)
    (reason,) = judge(replace(Report(), incidents=ours, production=old), GateLimits())
    assert "f1_score on 10 labelled incidents is 0.60, the bundle in production has 0.90" in reason
    near = replace(old, precision=0.65, recall=0.65)
    assert judge(replace(Report(), incidents=ours, production=near), GateLimits()) == ()
    by_recall = replace(old, precision=0.9, recall=0.6)
    metric = GateLimits(primary_metric="recall")
    assert judge(replace(Report(), incidents=ours, production=by_recall), metric) == ()


def test_an_alarm_where_a_person_said_there_was_nothing_refuses():
    report = replace(Report(), regression=RegressionSet(3, ("false-alarm on db-1, ...",), 2))
    (reason,) = judge(report, GateLimits())
    assert reason == "it alarms again where you said there was nothing: false-alarm on db-1, ..."
    quiet = replace(report, regression=RegressionSet(3, (), 2))
    assert judge(quiet, GateLimits()) == ()
    (line,) = allowances(quiet, GateLimits())
    assert line == "2 labelled false alarms are not in this history and were not tested"


def test_baselines_may_be_left_out_of_the_verdict():
    assert judge(recalls(pca=0.9), GateLimits(beat_baselines=False)) == ()


@pytest.mark.parametrize(("expected", "limit"), [(0.0, 0), (0.05, 0), (1.0, 3), (10.0, 15), (1_400.0, 1_462)])
def test_the_poisson_limit_is_the_95th_percentile(expected, limit):
    assert poisson_limit(expected) == limit


def test_a_recall_of_just_the_minimum_is_enough():
    assert judge(recalls(combined=0.3, pca=0.1, plain_kmeans=0.1), GateLimits(min_recall=0.3)) == ()


def test_two_incidents_behind_production_refuse_unless_that_is_switched_off():
    ours, old = IncidentFigures(10, 10, 0.9, 0.6, 0.6), IncidentFigures(10, 10, 0.9, 0.75, 0.75)
    report = replace(Report(), incidents=ours, production=old)
    assert len(judge(report, GateLimits())) == 1
    assert judge(report, GateLimits(beat_production=False)) == ()


def fleet(*alarms, weeks=0.3):
    """A report of so many alarms on nodes n0, n1, ..., one a week asked for."""
    nodes = [NodeAlarms(f"n{at}", count, weeks) for at, count in enumerate(alarms)]
    return replace(
        Report(),
        false_alarms_per_node_week=sum(alarms) / (weeks * len(alarms)),
        node_weeks=weeks * len(alarms),
        false_alarms_on_noise=3.6,
        by_node=tuple(sorted(nodes, key=lambda one: -one.alarms)),
    )


def test_a_fifth_of_the_nodes_may_have_lived_through_what_nobody_labelled():
    """Machines of SMD: 26 alarms in two days of ten nodes, half of them on two."""
    report = fleet(8, 5, 4, 3, 2, 2, 1, 1, 0, 0)
    assert judge(report, GateLimits()) == ()
    disturbed, rest = allowances(report, GateLimits())
    assert disturbed.startswith("false alarms: 8.67 per node-week, the most on n0 (8), n1 (5), where more")
    assert disturbed.endswith("The other nodes had 13 in 2.40 node-weeks")
    assert rest.startswith("false alarms: 13 in 2.40 node-weeks are above the budget of 1 a week")


def test_a_fleet_that_alarms_everywhere_is_refused_with_the_worst_nodes_named():
    (reason,) = judge(fleet(8, 6, 5, 4, 4, 4, 4, 3, 3, 3), GateLimits())
    assert "(without n0 (8), n1 (6): 30 in 2.40 node-weeks; threshold and chance alone explain up" in reason
    assert "most on n0 (8), n1 (6), n2 (5) and 7 more, and the report has them one by one" in reason


def test_nodes_that_chance_explains_are_not_left_out():
    (reason,) = judge(fleet(*[3] * 10), GateLimits())
    assert "without" not in reason


@pytest.mark.parametrize("nodes", [1, 4])
def test_of_fewer_than_five_nodes_none_is_left_out(nodes):
    assert len(judge(fleet(9, *[0] * (nodes - 1), weeks=0.3), GateLimits())) == 1
