"""A node's own threshold starts where training promised, follows the node, and keeps the budget."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS, MERGE_TICKS, Tail, episode_rate, fit_tail, held
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import (
    LONG_WINDOW_S,
    OPEN_S,
    UPDATE_S,
    WINDOW_S,
    RollingThreshold,
    around,
    around_one,
    rolling_scores,
)

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = 60.0
DAY = 1_440  # ticks
A_DAY, A_WEEK = 7.0, 1.0
"""False alarms per week."""
TO_UPDATE = round(UPDATE_S / INTERVAL_S)
WINDOW, LONG_WINDOW = round(WINDOW_S / INTERVAL_S), round(LONG_WINDOW_S / INTERVAL_S)


def noise(seed: int, ticks: int) -> Array:
    """Evidence of a normal node: many small values, few large ones."""
    return np.random.default_rng(seed).exponential(size=ticks)


@pytest.fixture(scope="module")
def tail() -> Tail:
    """What training promises for one false alarm a day on such evidence."""
    return fit_tail([noise(1_000 + node, 30 * DAY) for node in range(6)], INTERVAL_S, A_DAY)


@pytest.fixture(scope="module")
def peaks() -> Tail:
    """The same with peaks held, as a node holds them: so often as a level is reached, an alarm would be."""
    return of_peaks(A_WEEK)


def of_peaks(budget: float) -> Tail:
    return fit_tail([peak_held(noise(1_000 + node, 30 * DAY)) for node in range(6)], INTERVAL_S, budget)


def promise(level: float) -> Tail:
    """An alarm at this level, and ten times as many at three quarters of it."""
    return Tail((min(0.0, level - 1.0), level), (0.0, -4.0), -4.0)


def threshold(
    promised: float | Tail = 2.0, budget: float = A_DAY, interval_s: float = INTERVAL_S
) -> RollingThreshold:
    tail = promised if isinstance(promised, Tail) else promise(promised)
    return RollingThreshold(tail, budget, interval_s)


def levels(part: RollingThreshold, evidence: Array) -> Array:
    """What each tick was judged against (t,)."""
    return np.array([part.step(float(value)) for value in evidence])


def alarms(scores: Array) -> float:
    """Episodes per week."""
    return episode_rate([held(scores)], 1.0, INTERVAL_S)


# ------------------------------------------------------------------------------------- where it starts, moves


def test_it_starts_at_the_promised_level_and_stays_there_until_the_first_update() -> None:
    part = threshold(2.0)
    assert part.ratio == 1.0
    judged = levels(part, 0.1 * noise(0, TO_UPDATE))
    assert (judged == 2.0).all()
    assert part.step(0.1) < 2.0


def test_a_promised_level_of_nothing_is_not_believed() -> None:
    """Evidence of 0 is the median of normal operation: no threshold lies there."""
    assert threshold(0.0).level == threshold(-3.0).level > 0.0
    quiet = threshold(2.0)
    levels(quiet, np.full(4 * DAY, -5.0))
    assert quiet.level > 0.0


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_it_finds_the_level_of_a_quieter_and_of_a_noisier_node(tail: Tail, factor: float) -> None:
    """Mean over twenty days of two nodes, the first two days left out."""
    found = []
    for seed in range(2):
        judged = levels(threshold(tail), factor * noise(seed, 20 * DAY))
        found.append(judged[2 * DAY :].mean() / tail.alarm_level())
    assert np.mean(found) == pytest.approx(factor, rel=0.1)


def test_what_is_known_of_a_calm_node_counts_as_much_as_is_known_of_it() -> None:
    """Half a window in, it is half way between the promised level and the node's own."""
    part, evidence = threshold(8.0), np.full(WINDOW, 2.0)
    assert part.learnt == 0.0
    levels(part, evidence[: WINDOW // 2])
    assert (part.level, part.learnt) == (pytest.approx(4.0), 0.5)
    levels(part, evidence[WINDOW // 2 :])
    assert (part.level, part.learnt) == (pytest.approx(2.0), 1.0)


def test_a_noisier_node_is_held_against_what_training_saw_in_half_a_window_under_any_budget() -> None:
    """Whichever level is higher: the half way between both would be too low for it."""
    part = threshold(8.0)
    levels(part, np.full(WINDOW // 2, 16.0))
    twice_as_often = 8.0 * (1 - math.log10(2) / 4)
    assert part.level == pytest.approx(8.0 * (16.0 / twice_as_often) ** 0.5 ** (1 / 3))
    assert part.level > 8.0 * 2.0**0.5


def test_under_a_tight_budget_half_a_window_is_held_against_what_training_saw_in_half_a_window() -> None:
    """And believed by the cube root of a half, as a factor of what was promised."""
    part, evidence = threshold(8.0, A_WEEK), np.full(LONG_WINDOW, 2.0)
    levels(part, evidence[: LONG_WINDOW // 2])
    twice_as_often = 8.0 * (1 - math.log10(2) / 4)
    assert part.learnt == 0.5
    assert part.level == pytest.approx(8.0 * (2.0 / twice_as_often) ** 0.5 ** (1 / 3))
    levels(part, evidence[LONG_WINDOW // 2 :])
    assert (part.level, part.learnt) == (pytest.approx(2.0), 1.0)


def test_what_is_older_than_the_window_is_forgotten(tail: Tail) -> None:
    wild, calm = (threshold(tail) for _ in range(2))
    levels(wild, 10 * noise(1, DAY))
    window = noise(2, WINDOW + TO_UPDATE)
    levels(wild, window)
    levels(calm, window)
    assert wild.level == calm.level


# ------------------------------------------------------------------------------------------------ the budget


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_budget_is_kept_on_forty_days_of_noise_even_on_one_that_training_never_saw(
    tail: Tail, factor: float
) -> None:
    """Mean over four nodes; a static threshold raises two hundred times as much on the noisier ones."""
    realised = [
        alarms(rolling_scores(tail, factor * noise(seed, 40 * DAY), A_DAY, INTERVAL_S)[3 * DAY :])
        for seed in range(4)
    ]
    assert 0.5 * A_DAY < np.mean(realised) < 1.5 * A_DAY
    if factor > 1:
        assert alarms(tail.score(factor * noise(0, 40 * DAY))) > 20 * A_DAY


def test_a_looser_budget_means_a_lower_threshold() -> None:
    strict, loose = threshold(budget=1.0), threshold(budget=50.0)
    for part in (strict, loose):
        levels(part, noise(3, 4 * DAY))
    assert loose.level < strict.level


def test_drift_stops_to_raise_alarms_where_a_fixed_threshold_would_stand_in_alarm(tail: Tail) -> None:
    evidence = noise(4, 20 * DAY) + np.linspace(0.0, 8.0, 20 * DAY)
    rolling, static = rolling_scores(tail, evidence, A_DAY, INTERVAL_S), tail.score(evidence)
    assert (held(static)[10 * DAY :] >= 1.0).mean() > 0.5
    assert (held(rolling)[10 * DAY :] >= 1.0).mean() < 0.02


# ------------------------------------------------------------------------------------------------- incidents


def incident(tail: Tail, hours: float, budget: float = A_DAY) -> tuple[Array, RollingThreshold]:
    """Whether each tick of an incident on day five was an alarm (t,), and the threshold two hours later."""
    part, evidence = threshold(tail, budget), noise(5, 6 * DAY)
    begin, end = 4 * DAY, 4 * DAY + round(hours * 3_600.0 / INTERVAL_S)
    evidence[begin:end] += 20.0
    judged = levels(part, evidence[: end + 2 * 60])
    return evidence[begin:end] >= judged[begin:end], part


@pytest.mark.parametrize("budget", [1.0, A_DAY])
def test_an_incident_of_two_hours_does_not_silence_itself(tail: Tail, budget: float) -> None:
    above, _ = incident(tail, 2.0, budget)
    assert above.all()


def test_at_one_alarm_a_day_a_single_incident_hardly_moves_the_threshold(tail: Tail) -> None:
    _, without = incident(tail, 0.0)
    _, after = incident(tail, 2.0)
    assert after.ratio == pytest.approx(without.ratio, rel=0.2)


def test_an_incident_counts_at_last_but_not_before_it_is_six_hours_old(tail: Tail) -> None:
    above, part = incident(tail, 24.0, budget=1.0)
    old = round(OPEN_S / INTERVAL_S)
    assert above[:old].all()
    assert above[-60:].mean() < 0.5
    assert part.ratio > 3.0


def test_an_incident_does_not_hide_the_next_one(tail: Tail) -> None:
    """At one alarm a week three days do not allow one episode, and the first of two was ten times as high."""
    part, evidence = threshold(tail, budget=1.0), noise(7, 6 * DAY)
    first, second = slice(4 * DAY, 4 * DAY + 60), slice(5 * DAY, 5 * DAY + 60)
    evidence[first] += 100.0
    before = levels(part, evidence[: second.start])[first.start]
    evidence[second] += 3.0 * before
    assert (evidence[second] >= levels(part, evidence[second])).all()
    blind = RollingThreshold(tail, 1.0, INTERVAL_S, most_rise=np.inf)
    assert (evidence[second] < levels(blind, evidence[: second.stop])[second]).all()


def test_a_node_that_became_three_times_as_noisy_is_quiet_again_after_some_days(tail: Tail) -> None:
    """Step by step: every episode counts as little more than the threshold that it crossed."""
    evidence = noise(8, 20 * DAY)
    evidence[5 * DAY :] *= 3.0
    scores = rolling_scores(tail, evidence, A_DAY, INTERVAL_S)
    assert alarms(scores[10 * DAY :]) < 2.0 * A_DAY


@pytest.mark.parametrize("budget", [1.0, A_DAY])
def test_a_level_that_stays_is_the_new_normal_after_two_days(tail: Tail, budget: float) -> None:
    evidence = noise(12, 10 * DAY)
    evidence[5 * DAY :] += 10.0
    scores = rolling_scores(tail, evidence, budget, INTERVAL_S)
    assert (held(scores)[7 * DAY :] >= 1.0).mean() < 0.02


# --------------------------------------------------------------------------------------------- the unknown


def test_unknown_evidence_is_not_held_and_not_zero() -> None:
    """A third tick that is always missing leaves nothing to learn from: not a level of 0, none."""
    part, evidence = threshold(2.0), noise(6, 4 * DAY)
    evidence[::HOLD_TICKS] = NAN
    assert (levels(part, evidence) == 2.0).all()


def test_days_without_evidence_lead_back_to_what_was_promised_and_never_to_zero() -> None:
    part = threshold(2.0)
    levels(part, np.full(WINDOW + DAY, 0.5))
    assert part.level == pytest.approx(0.5)
    levels(part, np.full(WINDOW // 2, NAN))
    assert part.level == pytest.approx(1.0, rel=0.1)  # half of the window is known
    assert part.learnt == pytest.approx(0.5, abs=0.01)
    levels(part, np.full(WINDOW, NAN))
    assert 1.0 < part.level <= 2.0


@pytest.mark.parametrize("factor", [0.3, 0.6, 1.0])
def test_half_of_how_much_calmer_a_node_is_is_known_after_a_tenth_of_the_window(
    peaks: Tail, factor: float
) -> None:
    found = []
    for seed in range(12):
        part = threshold(peaks, A_WEEK)
        levels(part, factor * peak_held(noise(40 + seed, LONG_WINDOW // 10)))
        found.append(part.ratio)
    assert np.median(found) == pytest.approx(factor**0.1 ** (1 / 3), rel=0.08)


@pytest.mark.parametrize(("budget", "window", "most"), [(A_WEEK, LONG_WINDOW, 2.5), (A_DAY, WINDOW, 1.3)])
def test_a_fresh_node_that_is_as_promised_raises_no_more_than_one_whose_window_is_full(
    budget: float, window: int, most: float
) -> None:
    """The largest episode of an hour is no threshold for days: it is held against others of an hour."""
    promised = of_peaks(budget)
    raised = []
    for seed in range(40):
        part = threshold(promised, budget)
        evidence = peak_held(noise(80 + seed, window))
        raised.append(alarms((evidence >= levels(part, evidence)).astype(float)))
    assert np.mean(raised) < most * budget  # more than that is raised by a full window of days


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float64, st.integers(0, 600), elements=st.floats(-1e6, 1e6) | st.just(NAN)))
def test_no_evidence_makes_a_threshold_that_is_no_number(evidence: Array) -> None:
    part = threshold(2.0, interval_s=300.0)
    judged = levels(part, evidence)
    assert np.isfinite(judged).all()
    assert (judged > 0).all()
    assert np.isfinite(part.ratio)


def test_memory_is_bounded_however_short_the_ticks() -> None:
    part = threshold(interval_s=1.0)
    most = round(WINDOW_S / MERGE_TICKS)
    for value in noise(8, most * MERGE_TICKS // 100):
        part.step(float(value))
    part.restore({"blocks": np.ones(3 * most), "level": np.array([2.0, 0.0, 0.0, 0.0])})
    assert len(part.state()["blocks"]) == most
    levels(part, noise(9, 2 * round(UPDATE_S)))
    assert sum(array.nbytes for array in part.state().values()) <= 8 * (most + 15)


def test_at_the_longest_interval_the_window_is_that_of_the_shortest(tail: Tail) -> None:
    for interval_s in (15.0, 300.0, 3_600.0):
        part = threshold(tail, interval_s=interval_s)
        levels(part, np.full(round(3 * 86_400.0 / interval_s), 1.0))
        assert part.level == pytest.approx(1.0, rel=0.01)


# ------------------------------------------------------------------------------------------ the score around

score = st.floats(0.0, 50.0)
at = st.floats(1e-3, 20.0)


@given(score, at)
@example(1.0, 1.0)
@example(2.0, 2.0)
@example(0.5, 0.5)
def test_a_score_is_one_or_more_exactly_where_the_nodes_threshold_is_reached(
    value: float, level: float
) -> None:
    assert (float(around(value, level)) >= 1.0) == (value >= level)


@given(score, score, at)
def test_more_evidence_never_scores_less(one: float, other: float, level: float) -> None:
    low, high = around(np.array(sorted((one, other))), level)
    assert low <= high * (1 + 1e-12)


@given(score, at, at)
def test_scores_on_the_same_side_compare_alike_whatever_the_threshold_was(
    value: float, one: float, other: float
) -> None:
    if (value >= one) == (value >= other):
        assert float(around(value, one)) == float(around(value, other))


@given(score, at)
def test_what_is_near_no_threshold_is_shown_as_training_scored_it(value: float, level: float) -> None:
    if value <= 0.9 and value < level:
        assert float(around(value, level)) == value
    if value >= max(level, 1 / 0.95):
        assert float(around(value, level)) == value


@given(st.floats(0.0, 1.2))
def test_a_threshold_where_training_put_it_moves_no_score_by_more_than_a_twentieth(value: float) -> None:
    assert abs(float(around(value, 1.0)) - value) <= 0.0526


@given(score | st.just(NAN), at)
@example(1.0, 1.0)
@example(0.9, 1.0)
def test_one_score_is_shown_as_an_array_of_it(value: float, level: float) -> None:
    np.testing.assert_array_equal(around_one(value, level), around(value, level))


@given(st.lists(score | st.just(NAN), max_size=20))
def test_an_unknown_score_stays_unknown(values: list[float]) -> None:
    scores = np.array(values)
    np.testing.assert_array_equal(np.isnan(around(scores, 3.0)), np.isnan(scores))


def test_scores_of_a_whole_history_are_those_of_single_steps(tail: Tail) -> None:
    evidence = noise(15, 3 * DAY)
    evidence[100:150] = NAN
    part = threshold(tail)
    expected = []
    for value in evidence:
        level = part.step(float(value))
        expected.append(around(tail.score(np.array(value)), float(tail.score(np.array(level)))))
    np.testing.assert_array_equal(rolling_scores(tail, evidence, A_DAY, INTERVAL_S), np.array(expected))


def test_a_score_is_one_exactly_when_the_evidence_reaches_the_level_in_force(tail: Tail) -> None:
    evidence, part = 1.5 * noise(16, 6 * DAY), threshold(tail)
    scores = rolling_scores(tail, evidence, A_DAY, INTERVAL_S)
    np.testing.assert_array_equal(scores >= 1.0, evidence >= levels(part, evidence))
    assert (scores >= 1.0).any()
