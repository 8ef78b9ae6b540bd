"""A fleet to which nothing happens is no reason to refuse a bundle, and one that is often disturbed is."""

from __future__ import annotations

import numpy as np
import pytest

from bench_programs import program
from node_anomaly_core.threshold import raised_on_noise, rolling_scores
from node_anomaly_trainer.evaluate import false_alarm_rate, known_weeks
from node_anomaly_trainer.gate import poisson_limit

with pytest.MonkeyPatch.context() as loading:
    noise_of = program("threshold_noise", loading)
INTERVAL_S, WEEK, HEAVY = noise_of.INTERVAL_S, noise_of.WEEK, "AR(1) of 0.9, cubed"

NODES = 30


@pytest.fixture(scope="module")
def calm():
    """Scores (t,) of each node's last week, by a threshold for one alarm a week."""
    tail = noise_of.promised(HEAVY, 1.0)
    return lived(tail, [noise_of.evidence(HEAVY, 2 * WEEK, node) for node in range(NODES)])


def lived(tail, series):
    return [rolling_scores(tail, one, 1.0, INTERVAL_S)[WEEK:] for one in series]


@pytest.mark.parametrize("noise", noise_of.NOISES)
@pytest.mark.parametrize("budget", [1.0, 7.0])
def test_no_noise_raises_more_than_the_gate_expects_and_none_far_less(noise, budget):
    """Thirty node-weeks of each; bench/results/noise.md has the figures of more."""
    found = noise_of.multiple(noise, budget, nodes=10, weeks=3)
    assert 0.6 < found * budget / raised_on_noise(budget) < 1.15


def test_a_calm_fleet_that_was_refused_for_ever_is_accepted_and_told_why(calm):
    rate, weeks = false_alarm_rate(calm, INTERVAL_S), known_weeks(calm, INTERVAL_S)
    assert rate * weeks > poisson_limit(1.0 * weeks), "the budget alone would refuse it"
    reasons, (line,) = noise_of.verdict(calm, 1.0)
    assert reasons == ()
    assert f"raises up to {raised_on_noise(1.0):.2f} a week" in line


def test_a_fleet_that_is_disturbed_six_times_a_week_is_refused():
    """For five minutes each time, at moments that nobody could know beforehand."""
    tail = noise_of.promised("white", 1.0)
    rng = np.random.default_rng(0)
    series = []
    for node in range(NODES):
        one = noise_of.evidence("white", 2 * WEEK, node)
        for at in WEEK + rng.choice(WEEK // 60 - 1, 6, replace=False) * 60:
            one[at : at + 5] = 50.0
        series.append(one)
    scores = lived(tail, series)
    assert 5.0 < false_alarm_rate(scores, INTERVAL_S) < 9.0
    (reason,), allowed = noise_of.verdict(scores, 1.0)
    assert "the budget is 1 " in reason
    assert allowed == ()
