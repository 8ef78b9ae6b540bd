"""The gate: every rule refuses alone, with one readable line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import pytest

from node_anomaly_trainer.gate import GateLimits, judge, poisson_limit


@dataclass(frozen=True)
class Report:
    false_alarms_per_node_week: float = 0.5
    node_weeks: float = 8.0
    budget: float = 1.0
    fault_recall: dict = field(default_factory=lambda: {"combined": 0.8, "pca": 0.5, "plain_kmeans": 0.6})
    parity_forest_max: float = 1e-15
    parity_lstm_max: float = 0.01
    tick_cpu_seconds: float = 0.002
    ticks: int = 400
    faults: int = 200


def recalls(**values):
    return replace(Report(), fault_recall={"combined": 0.8, "pca": 0.5, "plain_kmeans": 0.6} | values)


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
    assert "chance alone explains up to 3" in reason


def test_where_a_baseline_finds_everything_an_equal_is_enough():
    assert judge(recalls(combined=1.0, pca=1.0), GateLimits()) == ()


def test_a_baseline_that_is_ahead_by_chance_alone_is_no_reason():
    """0.83 against 0.80 on 200 faults is what chance gives once in six times, on 2,000 once in a hundred."""
    assert judge(recalls(pca=0.83), GateLimits()) == ()
    (reason,) = judge(replace(recalls(pca=0.83), faults=2_000), GateLimits())
    assert "by more than chance (0.02 on 2000 faults)" in reason


def test_baselines_may_be_left_out_of_the_verdict():
    assert judge(recalls(pca=0.9), GateLimits(beat_baselines=False)) == ()


@pytest.mark.parametrize(("expected", "limit"), [(0.0, 0), (0.05, 0), (1.0, 3), (10.0, 15)])
def test_the_poisson_limit_is_the_95th_percentile(expected, limit):
    assert poisson_limit(expected) == limit
