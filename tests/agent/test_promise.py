"""A bundle is left for many more alarms than it promises, and not for chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from node_anomaly_agent.promise import PROBATION_S, Promise, Verdict, poisson_tail
from node_anomaly_core.threshold import raised_on_noise

TICK = 15.0
HOUR = 3600.0


def life(promise: Promise, scores: list[float], start: float = 0.0) -> list[Verdict]:
    found = [promise.tick(start + tick * TICK, score) for tick, score in enumerate(scores)]
    return [verdict for verdict in found if verdict is not None]


def alarms(count: int, gap_ticks: int = 40) -> list[float]:
    return ([0.2] * gap_ticks + [1.5] * 3) * count


@pytest.mark.parametrize("expected", [1e-6, 0.01, 0.3, 1.0, 5.0, 80.0])
def test_the_tail_is_scipys(expected):
    from scipy.stats import poisson  # two seconds, which every worker would wait while collecting

    for count in range(40):
        assert poisson_tail(count, expected) == pytest.approx(poisson.sf(count - 1, expected), rel=1e-9)
    assert poisson_tail(1, 0.0) == 0.0
    assert poisson_tail(0, 0.0) == 1.0


def test_a_handful_of_alarms_in_the_first_hour_is_no_chance():
    found = life(Promise(1.0, 0.0), alarms(4))
    assert found
    assert found[0].alarms == 3
    assert found[0].expected < 0.01


def test_one_alarm_is_always_forgiven_after_a_minute_and_the_promised_number_later():
    assert life(Promise(1.0, 0.0), alarms(1)) == []
    day = int(24 * HOUR / TICK)
    assert life(Promise(1.0, 0.0), ([0.2] * (day - 3) + [1.5] * 3) * 3) == []


@pytest.mark.parametrize(
    ("hours", "forgiven"),
    [
        (1, 2),
        (3, 2),
        (5, 3),
        (10, 3),
        (11, 4),
        (20, 4),
        (21, 5),
        (32, 5),
        (34, 6),
        (47, 6),
        (64, 7),
        (72, 8),
    ],
)
def test_how_many_alarms_are_forgiven_at_one_a_week_is_as_the_docs_say(hours, forgiven):
    for count, verdicts in ((forgiven, 0), (forgiven + 1, 1)):
        promise = Promise(raised_on_noise(1.0), 0.0)
        first = hours * HOUR - count * 60.0
        found = life(promise, [1.5, 1.5, 1.5, 0.1] * count, start=first)
        assert len(found) == verdicts


def test_less_than_three_ticks_in_a_row_are_no_alarm():
    assert life(Promise(1.0, 0.0), [0.2, 1.5, 1.5] * 2000) == []
    assert life(Promise(1.0, 0.0), [1.5, 1.5, math.nan] * 2000) == []


def test_an_alarm_that_does_not_end_counts_on():
    hours = int(8 * HOUR / TICK)
    found = life(Promise(1.0, 0.0), [1.5] * hours)
    assert found
    assert found[0].hours < 6


def test_what_has_proven_itself_is_left_to_the_operator():
    assert life(Promise(1.0, 0.0), alarms(50), start=PROBATION_S + 1) == []
    assert life(Promise(1.0, 1e9), alarms(50)) == []  # a clock that was set back


def test_of_a_thousand_bundles_that_keep_their_promise_hardly_one_is_left():
    """Simulated: alarms come at the promised rate, each of three ticks, for the whole probation."""
    rng = np.random.default_rng(6)
    left = 0
    for _ in range(1000):
        promise = Promise(1.0, 0.0)
        times = np.sort(rng.uniform(0, PROBATION_S, rng.poisson(PROBATION_S / (7 * 86400))))
        for at in times:
            verdicts = [promise.tick(float(at) + tick * TICK, 1.5) for tick in range(3)]
            promise.tick(float(at) + 60, 0.1)
            if any(verdicts):
                left += 1
                break
    assert left <= 2
