"""The ring behind the picture of the score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_fakes import START, make_score
from node_anomaly_agent.score_history import SPAN_S, ScoreHistory, ScoreRecorder

SLOTS = int(SPAN_S / 60)


def feed(recorder: ScoreRecorder, scores: list[float], start: float = START, every: float = 15.0) -> None:
    for at, value in enumerate(scores):
        recorder.record(start + at * every, None if math.isnan(value) else make_score(score=value))


def test_a_slot_keeps_the_highest_score_of_its_ticks():
    recorder = ScoreRecorder(15.0)
    start = START // 60 * 60
    feed(recorder, [0.2, 0.9, 0.3, 0.4, 0.1], start)
    assert recorder.history.peaks[-2:] == pytest.approx([0.9, 0.1])
    assert np.isnan(recorder.history.peaks[:-2]).all()
    assert recorder.history.end == start + 120


def test_a_tick_without_a_score_is_a_gap_and_never_a_zero():
    recorder = ScoreRecorder(60.0)
    recorder.record(START, make_score(score=0.5))
    recorder.record(START + 60, None)
    recorder.record(START + 120, make_score(warm=False))
    assert recorder.history.peaks[-3] == pytest.approx(0.5)
    assert np.isnan(recorder.history.peaks[-2:]).all()


def test_two_ticks_above_the_threshold_are_no_alarm_and_three_are_one_from_the_first_on():
    recorder = ScoreRecorder(60.0)
    feed(recorder, [0.5, 1.5, 1.5, 0.5], every=60.0)
    assert list(recorder.history.spans()) == []
    feed(recorder, [1.5, 2.5, 1.5, 0.5], START + 240, every=60.0)
    (span,) = recorder.history.spans()
    assert span.end - span.start == 180
    assert span.peak == pytest.approx(2.5)


def test_ticks_on_both_sides_of_a_long_silence_are_not_in_a_row():
    recorder = ScoreRecorder(15.0)
    feed(recorder, [1.5, 1.5])
    recorder.record(START + 1800, make_score(score=1.5))
    assert not recorder.history.alarms.any()


def test_a_clock_that_is_set_back_takes_what_lies_ahead_of_it_away():
    recorder = ScoreRecorder(60.0)
    feed(recorder, [0.1, 0.2, 0.3, 0.4], every=60.0)
    recorder.record(START + 60, make_score(score=0.25))
    assert recorder.history.peaks[-2:] == pytest.approx([0.1, 0.25])
    assert np.isnan(recorder.history.peaks[:-2]).all()


def test_what_is_published_never_changes_and_takes_a_few_kib():
    recorder = ScoreRecorder(15.0)
    feed(recorder, [0.4] * 40)
    published = recorder.history
    before = published.peaks.copy()
    feed(recorder, [3.0] * 40, START + 600)
    np.testing.assert_array_equal(published.peaks, before)
    with pytest.raises(ValueError, match="read-only"):
        published.peaks[0] = 1.0
    assert recorder.history.peaks.nbytes + recorder.history.alarms.nbytes < 4096


def test_a_tick_that_changes_nothing_publishes_nothing_new():
    recorder = ScoreRecorder(15.0)
    start = START // 60 * 60
    feed(recorder, [0.9, 0.2], start)
    before = recorder.history
    assert recorder.record(start + 30, make_score(score=0.5)) is before


@given(
    st.lists(
        st.tuples(
            st.floats(-1e5, 1e5),
            st.one_of(st.just(math.nan), st.floats(0, 50, width=32)),
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([0.1, 15.0, 90.0, 3600.0]),
)
def test_whatever_the_clock_does_the_ring_keeps_its_size_and_its_last_slot_is_now(ticks, interval):
    recorder = ScoreRecorder(interval)
    now = START
    for step, value in ticks:
        now += step
        recorder.record(now, None if math.isnan(value) else make_score(score=value))
    history = recorder.history
    assert len(history.peaks) == len(history.alarms) == math.ceil(SPAN_S / max(60.0, interval))
    assert history.end - history.slot_s <= now < history.end
    for span in history.spans():
        assert history.start <= span.start < span.end <= history.end


def test_before_the_first_tick_there_is_nothing():
    assert not ScoreHistory().known
    assert list(ScoreHistory().spans()) == []


def test_the_hours_before_a_restart_are_drawn_after_it_with_a_gap_between():
    before = ScoreRecorder(60.0)
    feed(before, [0.2, 1.5, 1.6, 1.7, 0.3], every=60.0)
    after = ScoreRecorder(60.0)
    assert after.restore(before.export())
    after.record(START + 600, make_score(score=0.4))
    (span,) = after.history.spans()
    assert span.peak == pytest.approx(1.7)
    assert after.history.peaks[-1] == pytest.approx(0.4)
    assert np.isnan(after.history.peaks[-6:-1]).all()
    assert after.history.peaks[-11:-6] == pytest.approx([0.2, 1.5, 1.6, 1.7, 0.3])


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"peaks": np.zeros(3, np.float32)},
        {"peaks": np.zeros(SLOTS)},
        {"peaks": np.full(SLOTS, np.inf, np.float32)},
        {"alarms": np.zeros((SLOTS, 2), np.uint8)},
        {"span": np.array([15.0, START])},
        {"span": np.array([60.0, np.nan])},
        {"span": np.array([60.0, 1e300])},
    ],
    ids=str,
)
def test_saved_hours_that_do_not_fit_are_left_alone(damage):
    saved = {"peaks": np.zeros(SLOTS, np.float32), "alarms": np.zeros(SLOTS, np.uint8)}
    recorder = ScoreRecorder(60.0)
    assert not recorder.restore(saved | damage if damage else {})
    assert not recorder.history.known
    if "span" not in damage:
        assert not recorder.restore({**saved, "span": np.array([60.0, START]), **(damage or {"alarms": ()})})


def test_an_alarm_that_was_saved_without_a_score_is_none():
    recorder = ScoreRecorder(60.0)
    saved = {
        "peaks": np.full(SLOTS, np.nan, np.float32),
        "alarms": np.ones(SLOTS, np.uint8),
        "span": np.array([60.0, START // 60 * 60]),
    }
    assert recorder.restore(saved)
    assert list(recorder.history.spans()) == []
