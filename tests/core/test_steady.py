"""Half-smoothed forests and held peaks: ticks and replay say the same, across restarts too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.steady import HalfSmoothed, PeakHold, half_smoothed, peak_held

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = 15.0

some = st.floats(-9, 9, width=32) | st.just(NAN)
series = hnp.arrays(np.float64, st.integers(0, 40), elements=some)
tables = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=some)


@given(tables)
def test_half_a_score_is_itself_and_half_its_mean_over_five_ticks(scores: Array) -> None:
    found = half_smoothed(scores, INTERVAL_S)
    for tick, series_ in np.ndindex(scores.shape):
        now = scores[tick, series_]
        last = scores[max(0, tick - 4) : tick + 1, series_]
        if np.isnan(now):
            assert np.isnan(found[tick, series_])
        else:
            assert found[tick, series_] == pytest.approx((now + last[np.isfinite(last)].mean()) / 2, abs=1e-9)


def test_the_mean_is_over_a_minute_where_ticks_are_short() -> None:
    scores = np.zeros((200, 1))
    scores[100] = 60.0
    found = half_smoothed(scores, 1.0)[:, 0]
    assert found[100] == pytest.approx(30.5)
    np.testing.assert_allclose(found[101:160], 0.5)
    np.testing.assert_allclose(found[160:], 0.0, atol=1e-12)


@given(series)
def test_a_peak_is_held_for_three_ticks_and_the_unknown_stays_unknown(evidence: Array) -> None:
    hold = PeakHold()
    found = np.array([hold.step(float(value)) for value in evidence]).reshape(-1)
    np.testing.assert_array_equal(found, peak_held(evidence))
    for tick, value in enumerate(evidence):
        last = evidence[max(0, tick - 2) : tick + 1]
        assert np.isnan(found[tick]) if np.isnan(value) else found[tick] == np.nanmax(last)


@given(tables)
def test_nodes_of_a_fleet_are_held_each_for_itself(evidence: Array) -> None:
    together = peak_held(evidence)
    for node in range(evidence.shape[1]):
        np.testing.assert_array_equal(together[:, node], peak_held(evidence[:, node]))


@given(tables, st.integers(0, 30))
def test_both_memories_outlive_a_restart(scores: Array, cut: int) -> None:
    first, second = HalfSmoothed(scores.shape[1], INTERVAL_S), HalfSmoothed(scores.shape[1], INTERVAL_S)
    hold, held = PeakHold(), PeakHold()
    for row in scores[:cut]:
        first.step(row)
        hold.step(float(row[0]))
    second.restore(first.state())
    held.restore(hold.state())
    for row in scores[cut:]:
        np.testing.assert_allclose(second.step(row), first.step(row), atol=1e-12)
        np.testing.assert_array_equal(held.step(float(row[0])), hold.step(float(row[0])))


def test_a_memory_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="forest scores"):
        HalfSmoothed(2, INTERVAL_S).restore(np.zeros((5, 3)))
    with pytest.raises(ValueError, match="4 ticks"):
        PeakHold().restore(np.zeros(4))


def test_a_memory_that_is_restored_forgets_what_it_had_and_writes_nothing_to_what_was_saved() -> None:
    part, saved = HalfSmoothed(1, INTERVAL_S), np.arange(5.0)[:, None]
    part.step(np.ones(1))
    part.restore(saved)
    assert part.state().tolist() == saved.tolist()
    part.step(np.full(1, 9.0))
    assert saved.tolist() == np.arange(5.0)[:, None].tolist()
