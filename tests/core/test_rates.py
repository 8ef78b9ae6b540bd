"""The counter window against a plain transcription of what Prometheus' rate() does with samples."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node_anomaly_core.rates import EDGE, JUMP_WINDOWS, MAX_SAMPLES, CounterWindow

KEYS = [("a_total", ""), ("b_total", "sda"), ("b_total", "sdb")]
NAN = math.nan

Samples = list[tuple[float, float]]


def window_of(samples: Samples, now: float, window_s: float) -> Samples:
    """The present samples in (now - window, now]."""
    return [(t, v) for t, v in samples if now - window_s < t <= now and not math.isnan(v)]


def increase(samples: Samples) -> float:
    """Last minus first, plus what every reset took away: Prometheus' own loop."""
    total = samples[-1][1] - samples[0][1]
    return total + sum(a for (_, a), (_, b) in pairwise(samples) if b < a)


def slope(samples: Samples) -> float:
    """Increase over the time between the first and the last sample; NaN below two."""
    return increase(samples) / (samples[-1][0] - samples[0][0]) if len(samples) > 1 else NAN


def prometheus_rate(samples: Samples, now: float, window_s: float) -> float:
    """extrapolatedRate() of promql/functions.go for a counter, as of Prometheus 2.42."""
    inside = window_of(samples, now, window_s)
    if len(inside) < 2:
        return NAN
    result = increase(inside)
    to_start, to_end = inside[0][0] - (now - window_s), now - inside[-1][0]
    sampled = inside[-1][0] - inside[0][0]
    between = sampled / (len(inside) - 1)
    if result > 0 and inside[0][1] >= 0:
        to_start = min(to_start, sampled * (inside[0][1] / result))
    extended = sampled
    for gap in (to_start, to_end):
        extended += gap if gap < between * 1.1 else between / 2
    return result * (extended / sampled) / window_s


def run(window_s: float, times: list[float], columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Push every row (t, 3) of `columns`; the rates after each."""
    window = CounterWindow(window_s)
    window.relayout(KEYS)
    return [window.push(t, row) for t, row in zip(times, columns, strict=True)]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[float], NDArray[np.float64]]:
    """Uneven ticks (5 to 40 s apart) of three counters that rise, reset and are absent at times."""
    steps = draw(st.lists(st.floats(5.0, 40.0), min_size=2, max_size=25))
    times = (1.7e9 + np.cumsum(steps)).tolist()
    value = st.one_of(st.just(NAN), st.integers(0, 10**6).map(float))
    rows = draw(st.lists(st.tuples(value, value, value), min_size=len(steps), max_size=len(steps)))
    return times, np.array(rows, dtype=np.float64)


class TestAgainstPrometheus:
    @given(history=histories())
    def test_every_rate_is_the_slope_over_the_window_with_resets_added_back(
        self, history: tuple[list[float], NDArray[np.float64]]
    ) -> None:
        """Uneven ticks, gaps and resets: the same as a loop over the samples in the window."""
        times, columns = history
        for at, rates in enumerate(run(60.0, times, columns)):
            for column in range(3):
                samples = list(zip(times[: at + 1], columns[: at + 1, column].tolist(), strict=True))
                expected = slope(window_of(samples, times[at], 60.0 * (1 - EDGE)))
                assert rates[column] == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
                assert not rates[column] < 0

    @given(
        data=st.data(),
        interval=st.sampled_from([5.0, 10.0, 15.0, 60.0]),
        ticks=st.integers(4, 20),
    )
    def test_on_regular_samples_it_equals_prometheus_extrapolated_rate(
        self, data: st.DataObject, interval: float, ticks: int
    ) -> None:
        """A grown counter on a regular grid, with resets: equal to extrapolatedRate()."""
        window_s = 4 * interval
        times = [1.7e9 + interval * at for at in range(ticks)]
        steps = data.draw(st.lists(st.integers(0, 10**5), min_size=ticks, max_size=ticks))
        values = (1e9 + np.cumsum(steps)).tolist()
        if data.draw(st.booleans()):
            reset = data.draw(st.integers(1, ticks - 1))
            values = [v if at < reset else v - values[reset - 1] for at, v in enumerate(values)]
        columns = np.repeat(np.array(values)[:, None], 3, axis=1)
        rates = run(window_s, times, columns)[-1]
        expected = prometheus_rate(list(zip(times, values, strict=True)), times[-1], window_s)
        if len(window_of(list(zip(times, values, strict=True)), times[-1], window_s)) == 4 and values[
            -4
        ] >= sum(steps):
            assert rates[0] == pytest.approx(expected, rel=1e-9)

    @given(jitter=st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8))
    def test_a_tick_that_comes_early_or_late_does_not_change_how_many_the_window_holds(
        self, jitter: list[float]
    ) -> None:
        """Ticks of 15 s, a second early or late: the slope is always the one over the last four."""
        times = [1.7e9 + 15.0 * at + shift for at, shift in enumerate(jitter)]
        values = np.square(np.arange(8.0))
        rates = run(60.0, times, np.repeat(values[:, None], 3, axis=1))
        assert rates[-1][0] == pytest.approx((values[7] - values[4]) / (times[7] - times[4]))


class TestRestarts:
    def test_the_first_tick_has_no_rate(self) -> None:
        """One sample makes no slope; two do."""
        first, second = run(60.0, [100.0, 115.0], np.array([[0.0, 10.0, NAN], [30.0, 10.0, 5.0]]))
        assert np.isnan(first).all()
        np.testing.assert_array_equal(second, [2.0, 0.0, NAN])

    @pytest.mark.parametrize("step", [0.0, -0.5, -3600.0, JUMP_WINDOWS * 60.0 + 1.0, 1e9])
    def test_a_clock_that_jumps_restarts_every_rate(self, step: float) -> None:
        """Standing still, back, or far ahead: NaN at that tick, and right again at the next."""
        times = [1e6, 1e6 + 15, 1e6 + 15 + step, 1e6 + 30 + step]
        values = np.array([[0.0], [15.0], [30.0], [45.0]]).repeat(3, axis=1)
        rates = run(60.0, times, values)
        assert rates[1][0] == 1.0
        assert np.isnan(rates[2]).all()
        assert rates[3][0] == 1.0

    def test_a_late_tick_still_has_a_rate(self) -> None:
        """With fewer than two ticks in the window the two latest count (a host that was suspended)."""
        rates = run(60.0, [0.0, 200.0], np.array([[0.0] * 3, [100.0] * 3]))
        assert rates[1][0] == 0.5

    def test_a_counter_that_goes_back_counts_from_zero(self) -> None:
        """After a reset the new value is the increase, as in Prometheus."""
        rates = run(60.0, [0.0, 10.0, 20.0], np.array([[100.0] * 3, [110.0] * 3, [5.0] * 3]))
        assert rates[2][0] == pytest.approx((10.0 + 5.0) / 20.0)

    def test_a_vanished_series_loses_its_rate_with_its_samples(self) -> None:
        """As with rate(): it lasts while two samples are in the window, then it is missing."""
        times = [15.0 * at for at in range(8)]
        columns = np.array([[15.0 * at if at < 3 else NAN] * 3 for at in range(8)])
        rates = [row[0] for row in run(60.0, times, columns)]
        assert rates[1:5] == [1.0, 1.0, 1.0, 1.0]
        assert np.isnan(rates[5:]).all()

    @pytest.mark.parametrize("odd", [-1.0, math.inf, -math.inf, NAN])
    def test_what_cannot_be_a_counter_is_absent(self, odd: float) -> None:
        """A negative or non-finite value is a gap, not a reset."""
        rates = run(60.0, [0.0, 15.0, 30.0], np.array([[0.0] * 3, [odd] * 3, [30.0] * 3]))
        assert rates[2][0] == 1.0

    @pytest.mark.parametrize("window_s", [0.0, -1.0, NAN])
    def test_a_window_must_be_positive(self, window_s: float) -> None:
        """It is a mistake in the caller."""
        with pytest.raises(ValueError, match="window"):
            CounterWindow(window_s)

    def test_memory_is_bounded_however_fast_the_ticks(self) -> None:
        """More ticks than MAX_SAMPLES shorten the window instead of growing it."""
        window = CounterWindow(1000.0)
        window.relayout(KEYS)
        for at in range(3 * MAX_SAMPLES):
            rates = window.push(0.1 * at, np.full(3, 0.2 * at))
        assert rates[0] == pytest.approx(2.0)
        assert len(window.state()["rows"]) == MAX_SAMPLES  # type: ignore[arg-type]


class TestLayoutAndState:
    def test_series_that_stay_keep_their_samples(self) -> None:
        """One leaves, one comes, one moves: only the new one starts from nothing."""
        window = CounterWindow(60.0)
        window.relayout(KEYS[:2])
        window.push(0.0, np.array([0.0, 0.0]))
        window.relayout([KEYS[2], KEYS[1]])
        rates = window.push(15.0, np.array([7.0, 30.0]))
        np.testing.assert_array_equal(rates, [NAN, 2.0])

    @given(history=histories(), cut=st.integers(0, 25))
    def test_a_window_saved_as_json_goes_on_exactly(
        self, history: tuple[list[float], NDArray[np.float64]], cut: int
    ) -> None:
        """Saving and restoring anywhere changes no later rate."""
        times, columns = history
        whole = run(60.0, times, columns)
        window = CounterWindow(60.0)
        window.relayout(KEYS)
        for at, (t, row) in enumerate(zip(times, columns, strict=True)):
            if at == cut:
                saved = json.loads(json.dumps(window.state(), allow_nan=False))
                window = CounterWindow(60.0)
                assert window.restore(saved)
            np.testing.assert_array_equal(window.push(t, row), whole[at])

    @pytest.mark.parametrize(
        "damage",
        [
            {"window_s": 30.0},
            {"keys": [["a_total", ""]]},
            {"keys": [["a_total", ""]] * 3},
            {"keys": [["a_total"], ["b", "c"], ["d", "e"]]},
            {"keys": "abc"},
            {"times": [15.0, 0.0]},
            {"times": [0.0]},
            {"times": [0.0, NAN]},
            {"times": [True, 15.0]},
            {"rows": None},
            {"rows": [[1.0, 2.0, "3"], [1.0, 2.0, 3.0]]},
            {"rows": [[1.0, 2.0, -3.0], [1.0, 2.0, 3.0]]},
            {"last": [1.0]},
            {"offset": [math.inf, 0.0, 0.0]},
        ],
    )
    def test_a_state_that_does_not_fit_changes_nothing(self, damage: dict[str, object]) -> None:
        """Another window, a wrong shape or a wrong type: refused, and the window stays as it was."""
        window = CounterWindow(60.0)
        window.relayout(KEYS)
        window.push(0.0, np.zeros(3))
        window.push(15.0, np.full(3, 15.0))
        before = window.state()
        assert not window.restore(before | damage)
        assert window.state() == before
        assert not window.restore({})
