"""An alarm that ends because the threshold rose is no recovery, and a node says so until it is one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS, MERGE_TICKS, fit_tail
from node_anomaly_core.outgrown import CALM_S, CLOSED, Outgrown
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import RollingThreshold

Array = NDArray[np.float64]

NAN, INF = math.nan, math.inf
INTERVAL_S, HOUR, DAY = 60.0, 60, 1_440  # ticks
A_DAY, A_WEEK = 7.0, 1.0
BEGIN = 6 * DAY  # of the incident: the window is full by then
BLOCK_S = 150.0
CALM = round(CALM_S / BLOCK_S)  # blocks
MOST = 40


def said(
    *blocks: tuple[float, float, float], part: Outgrown | None = None, counts: bool = True
) -> list[bool]:
    """What is told at the end of blocks of (evidence, level it is judged by, level after)."""
    part = Outgrown(BLOCK_S, MOST) if part is None else part
    told = []
    for highest, judged, after in blocks:
        for _ in range(MERGE_TICKS):
            part.step(highest, alarm=highest >= judged)
        told.append(part.now)
        alarm = highest >= judged
        part.end_block(judged, after, alarm=alarm, counts=alarm and counts)
    return told


def test_an_alarm_whose_evidence_falls_has_recovered():
    assert not any(said((1, 2, 2), (5, 2, 2), (1.9, 2, 2), (1, 2, 6), *[(1, 6, 6)] * CALM, (3, 6, 6)))


def test_one_that_the_threshold_rises_over_has_not_until_it_stays_below_where_it_began():
    told = said((1, 2, 2), (5, 2, 2), (5, 2, 6), (5, 6, 6), (2, 6, 6), *[(1.9, 6, 6)] * CALM, (1.9, 6, 6))
    assert told == [False, False, False, True, True, *[True] * CALM, False]


def test_a_moment_below_is_no_recovery_and_ten_minutes_are():
    part = Outgrown(BLOCK_S, MOST)
    lower = [(1, 6, 6)] * (CALM - 1)
    told = said((5, 2, 6), (5, 6, 6), *lower, (5, 6, 6), *lower, (1, 6, 6), (1, 6, 6), part=part)
    assert told == [False, *[True] * (2 * CALM + 1), False]
    assert not any(said((5, 6, 6), (2, 6, 6), part=part))  # what comes afterwards has no alarm to go on from


def test_where_a_block_is_longer_than_ten_minutes_one_of_them_is_enough():
    blocks = ((5, 2, 6), (5, 6, 6), (1, 6, 6), (1, 6, 6))
    assert said(*blocks, part=Outgrown(3_000.0, MOST)) == [False, True, True, False]


def test_ten_minutes_are_as_many_blocks_as_come_nearest_to_them():
    blocks = ((5, 2, 6), (1, 6, 6), (1, 6, 6), (1, 6, 6))
    assert said(*blocks, part=Outgrown(250.0, MOST)) == [False, True, True, False]


def test_what_stands_just_at_the_level_that_it_began_at_has_not_gone_away():
    assert said((2, 2, 6), (1, 6, 6)) == [False, True]


def test_what_rises_over_the_new_level_too_is_an_alarm_and_of_the_first_level():
    assert said((5, 2, 6), (7, 6, 6), (7, 6, 8), (3, 8, 8)) == [False, False, False, True]


def test_what_the_threshold_comes_down_to_is_an_alarm_again():
    assert said((5, 2, 6), (5, 6, 4), (5, 4, 4), (1, 4, 4)) == [False, True, False, False]
    assert said((5, 2, 6), (5, 6, 5), (1, 5, 5)) == [False, True, False]


def test_what_nobody_saw_is_neither_recovery_nor_the_contrary():
    assert said((5, 2, 6), *[(NAN, 6, 6)] * (2 * CALM)) == [False, *[True] * (2 * CALM)]
    assert not any(said((5, 2, 2), *[(NAN, 2, 6)] * (2 * CALM)))


def test_after_as_long_as_a_window_it_is_what_this_node_does():
    told = said((5, 2, 6), *[(5, 6, 6)] * MOST, (5, 6, 6))
    assert told == [False, *[True] * MOST, False]


def test_short_alarms_do_not_begin_that_time_anew_and_one_that_counts_in_full_does():
    """At one a day a node raises more than one in its window: with each of them it would never end."""
    half = [(5, 6, 6)] * (MOST // 2)
    for counts, ended in ((False, True), (True, False)):
        part = Outgrown(BLOCK_S, MOST)
        said((5, 2, 6), *half, part=part)
        told = said((7, 6, 6), part=part, counts=counts) + said(*half, (5, 6, 6), part=part)
        assert told == [False, *[True] * len(half), not ended]


def test_a_short_alarm_is_not_outgrown_whatever_the_threshold_does_after_it():
    """It does not raise the threshold over itself; what does is drift, which a node follows all the time."""
    assert not any(said((5, 2, 2), (3, 2, 2), (3, 4, 4), (3, 4, 4), counts=False))


def test_evidence_that_is_held_back_at_a_level_that_never_rose_is_not_outgrown():
    part = Outgrown(BLOCK_S, MOST)
    said((5, 2, 2), part=part)
    part.step(5.0, alarm=False)  # all of it is at the level, what counts is not
    assert not part.now


def test_a_spike_within_a_block_counts_and_is_gone_with_the_block():
    part = Outgrown(BLOCK_S, MOST)
    said((5, 2, 6), part=part)
    for evidence in (1.0, 4.0, NAN, 1.0):
        part.step(evidence, alarm=False)
    part.end_block(6, 6, alarm=False)
    assert part.state()[2] == 0
    part.step(1.0, alarm=False)
    part.end_block(6, 6, alarm=False)
    assert part.state()[2] == 1


@pytest.mark.parametrize("counts", [True, False])
def test_a_tick_short_of_a_level_that_has_risen_is_told_at_once_if_the_alarm_was_so_long_that_it_raised_it(
    counts: bool,
) -> None:
    part = Outgrown(BLOCK_S, MOST)
    said((5, 2, 2), part=part)
    part.step(5.0, alarm=True)
    part.end_block(2, 4.9, alarm=True, counts=counts)
    told = []
    for evidence in (4.95, 4.0, 2.0, 1.0, 4.95, 4.0):
        part.step(evidence, alarm=evidence >= 4.9)
        told.append(part.now)
    assert told == [False, counts, counts, False, False, counts]


blocks = st.tuples(st.sampled_from([NAN, 0.5, 3.0, 5.0, 9.0]), st.sampled_from([2.0, 4.0, 8.0]))


@given(st.lists(blocks, max_size=60), st.integers(0, 60))
def test_a_restart_changes_nothing(lived: list[tuple[float, float]], at: int) -> None:
    uninterrupted, part = Outgrown(BLOCK_S, 9), Outgrown(BLOCK_S, 9)
    for number, (highest, level) in enumerate(lived):
        for one in (uninterrupted, part):
            one.step(highest, alarm=highest >= level)
        assert part.now == uninterrupted.now
        if number == at:  # within a block
            fresh = Outgrown(BLOCK_S, 9)
            fresh.restore(part.state())
            part = fresh
        for one in (uninterrupted, part):
            one.end_block(level, 9.0 - level, alarm=highest >= level, counts=number % 2 == 0)
    assert part.state() == uninterrupted.state()


@pytest.mark.parametrize(
    "state",
    [
        [0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        [NAN, 1.0, 0.0, 0.0, 0.0, 0.0],
        [2.0, INF, 0.0, 0.0, 0.0, 0.0],
        [2.0, NAN, 0.0, 0.0, 0.0, 0.0],
        [2.0, 1.0, CALM + 1.0, 0.0, 0.0, 0.0],
        [2.0, 1.0, -1.0, 0.0, 0.0, 0.0],
        [2.0, 1.0, 0.0, MOST + 1.0, 0.0, 0.0],
        [2.0, 1.0, 0.0, NAN, 0.0, 0.0],
        [2.0, 1.0, 0.0, 0.0, 0.5, 0.0],
        [2.0, 1.0, 0.0, 0.0, 0.0, NAN],
    ],
)
def test_a_state_that_no_alarm_has_is_refused_and_changes_nothing(state: list[float]) -> None:
    part = Outgrown(BLOCK_S, MOST)
    said((5, 2, 6), part=part)
    before = part.state()
    with pytest.raises(ValueError, match="a saved alarm began at a level of"):
        part.restore(state)
    assert part.state() == before


def test_no_alarm_is_never_one_that_was_outgrown():
    part = Outgrown(BLOCK_S, MOST)
    part.restore([*CLOSED[:-2], 1.0, 1.0])
    part.step(1.0, alarm=False)
    assert not part.now


def noise(seed: int, ticks: int) -> Array:
    return np.random.default_rng(seed).exponential(size=ticks)


def lived(budget: float, hours: int, height: float = 20.0) -> tuple[Array, Array, int, RollingThreshold]:
    """Whether there is an alarm, and whether it was outgrown, at each tick (t,); the incident's last tick."""
    tail = fit_tail([peak_held(noise(1_000 + node, 30 * DAY)) for node in range(6)], INTERVAL_S, budget)
    evidence, end = noise(5, 14 * DAY), BEGIN + hours * HOUR
    evidence[BEGIN:end] += height
    threshold = RollingThreshold(tail, budget, INTERVAL_S)
    alarm, outgrown = np.zeros(len(evidence), dtype=bool), np.zeros(len(evidence), dtype=bool)
    for tick, value in enumerate(peak_held(evidence).tolist()):
        threshold.step(value)
        alarm[tick], outgrown[tick] = threshold.reached, threshold.outgrown.now
    return alarm, outgrown, end, threshold


@pytest.mark.parametrize("budget", [A_DAY, A_WEEK])
def test_a_day_of_incident_is_an_alarm_or_an_outgrown_one_to_its_end_and_neither_half_an_hour_later(budget):
    alarm, outgrown, end, _ = lived(budget, 24)
    assert alarm[BEGIN : BEGIN + 6 * HOUR].all()
    assert not alarm[end - 6 * HOUR : end].any()
    ready = BEGIN + HOLD_TICKS
    assert (alarm | outgrown)[ready:end].all()
    assert not outgrown[:BEGIN].any()
    assert outgrown[end : end + 5].all()
    assert not outgrown[end + MERGE_TICKS * 3 :].any()


@pytest.mark.parametrize("budget", [A_DAY, A_WEEK])
def test_an_incident_of_five_hours_is_never_outgrown(budget):
    _, outgrown, _, _ = lived(budget, 5)
    assert not outgrown.any()


@pytest.mark.parametrize(("budget", "height", "days"), [(A_DAY, 8.0, 2.0), (A_WEEK, 10.0, 3.5)])
def test_a_new_normal_is_told_for_as_long_as_a_window_however_many_alarms_it_raises(budget, height, days):
    _, outgrown, _, _ = lived(budget, 8 * 24, height)
    assert 0 < outgrown.sum() / DAY < 1.2 * days


def test_under_another_bundle_it_goes_on_at_that_ones_levels():
    _, _, _, threshold = lived(A_DAY, 24)
    low, high = (fit_tail([peak_held(scale * noise(3, 30 * DAY))], INTERVAL_S, A_DAY) for scale in (1.0, 4.0))
    before, after = (RollingThreshold(tail, A_DAY, INTERVAL_S) for tail in (low, high))
    for value in [*noise(4, 20), *[50.0] * MERGE_TICKS]:
        before.step(value)
    after.adopt(before)
    crossed, highest, *counts = before.outgrown.state()
    change = high.alarm_level() / low.alarm_level()
    assert after.outgrown.state() == pytest.approx([crossed * change, highest * change, *counts])
    assert threshold.outgrown.state() == list(CLOSED)


def test_what_goes_on_under_another_bundle_is_all_of_it_and_no_longer_than_that_ones_window():
    part, longer = Outgrown(BLOCK_S, 9), Outgrown(BLOCK_S / 4, MOST)
    said((5, 2, 2), part=longer)
    longer.end_block(2, 6, alarm=True, counts=True)
    said((5, 6, 6), *[(1, 6, 6)] * 10, part=longer)
    longer.step(3.0, alarm=False)
    assert longer.state() == [2.0, 3.0, 10.0, 11.0, 1.0, 1.0]
    part.adopt(longer, 1.5)
    assert part.state() == [3.0, 4.5, CALM, 9.0, 1.0, 1.0]
    Outgrown(BLOCK_S, 9).restore(part.state())
