"""Windows that are only ever updated equal windows that are computed anew, and none of them grows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.windows import RowRing, RunningMeans, ThinnedRows, smoothing, ticks_in

Array = NDArray[np.float64]

values = st.floats(-1e4, 1e4, width=32) | st.just(float("nan"))


def naive_means(rows: Array, lengths: list[int]) -> Array:
    """Mean over the last k rows of what is known, for every k; NaN where nothing is."""
    means = np.full((len(lengths), rows.shape[1]), np.nan)
    for index, length in enumerate(lengths):
        for column in range(rows.shape[1]):
            known = [value for value in rows[-length:, column] if not np.isnan(value)]
            if known:
                means[index, column] = sum(known) / len(known)
    return means


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 3).flatmap(
        lambda width: hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(width)), elements=values)
    ),
)
def test_running_means_equal_means_computed_anew(lengths: list[int], rows: Array) -> None:
    means = RunningMeans(lengths, (rows.shape[1],))
    for tick in range(len(rows)):
        np.testing.assert_allclose(
            means.push(rows[tick]), naive_means(rows[: tick + 1], lengths), rtol=1e-9, atol=1e-8
        )


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.lists(
        st.tuples(st.sampled_from(["all", "first", "none"]), st.integers(1, 25)), min_size=1, max_size=5
    ),
)
def test_means_are_the_same_however_long_the_same_values_stay_known(
    lengths: list[int], spells: list[tuple[str, int]]
) -> None:
    """A node has the features that it has: after a turn of the ring without a change less is done."""
    missing = {"all": [], "first": [1], "none": [0, 1]}
    rows = np.random.default_rng(3).normal(size=(sum(ticks for _, ticks in spells), 2))
    begin = 0
    for kind, ticks in spells:
        rows[begin : begin + ticks, missing[kind]] = np.nan
        begin += ticks
    means = RunningMeans(lengths, (2,))
    for tick in range(len(rows)):
        np.testing.assert_allclose(
            means.push(rows[tick]), naive_means(rows[: tick + 1], lengths), rtol=1e-5, atol=1e-6
        )


def test_rounding_does_not_outlive_one_turn_of_the_ring() -> None:
    """A huge value leaves nothing behind once the ring has wrapped, however long the process runs."""
    means = RunningMeans([3, 8], (1,))
    for value in [1e30, *[1e-3] * 15]:
        last = means.push(np.array([value]))
    np.testing.assert_allclose(last, 1e-3, rtol=1e-6)


def test_a_batch_of_nodes_is_averaged_node_by_node() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2, 3))
    together = RunningMeans([2, 7], (2, 3))
    alone = [RunningMeans([2, 7], (3,)) for _ in range(2)]
    for row in rows:
        joint = together.push(row)
        for node in range(2):
            np.testing.assert_allclose(joint[:, node], alone[node].push(row[node]), rtol=1e-12)


@pytest.mark.parametrize("lengths", [[], [0], [5, -1]])
def test_a_window_without_ticks_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        RunningMeans(lengths, (1,))


@given(st.integers(1, 7), st.integers(0, 40))
def test_a_ring_holds_the_latest_rows_in_order(capacity: int, pushed: int) -> None:
    ring = RowRing(capacity, 2)
    for tick in range(pushed):
        ring.push(1e9 + tick, np.array([tick, -tick], dtype=float))
    times, rows = ring.ordered()
    expected = np.arange(max(0, pushed - capacity), pushed)
    assert len(ring) == len(expected)
    np.testing.assert_array_equal(times, 1e9 + expected)
    np.testing.assert_array_equal(rows[:, 0], expected)
    assert rows.dtype == np.float32


@given(st.integers(2, 9), st.integers(0, 400))
def test_thinned_rows_cover_the_whole_past_evenly(capacity: int, pushed: int) -> None:
    """While the past is shorter than the longest span: bounded, from the very first row, one distance."""
    thinned = ThinnedRows(capacity, 1, longest=10_000)
    for tick in range(pushed):
        thinned.push(np.array([float(tick)]))
    kept = thinned.values()[:, 0]
    assert len(kept) == min(thinned.kept, capacity)
    np.testing.assert_array_equal(kept, np.arange(0, pushed, thinned.stride))


def test_thinned_rows_forget_the_oldest_beyond_their_longest_span() -> None:
    thinned = ThinnedRows(16, 1, longest=32)
    for tick in range(500):
        thinned.push(np.array([float(tick)]))
        kept = thinned.values()[:, 0]
        assert len(kept) <= 16
        assert tick - kept[-1] < thinned.stride
        assert set(np.diff(kept)) <= {1.0, 2.0}
    assert thinned.stride == 2
    assert kept[0] >= 500 - 2 * 16 - 1
    assert len(kept) >= 14


def test_missing_values_are_kept_as_missing() -> None:
    thinned, ring = ThinnedRows(4, 2, longest=100), RowRing(4, 2)
    thinned.push(np.array([np.nan, 1.0]))
    ring.push(1.0, np.array([np.nan, 1.0]))
    for row in (thinned.values()[0], ring.ordered()[1][0]):
        np.testing.assert_array_equal(row, [np.nan, 1.0])


def test_a_window_in_seconds_is_never_fewer_ticks_than_it_was_measured_with() -> None:
    assert ticks_in(300.0, 15.0, 5) == 20
    assert ticks_in(300.0, 60.0, 5) == 5
    assert ticks_in(300.0, 300.0, 5) == 5
    assert ticks_in(1.0, 60.0) == 1


@given(st.floats(600.0, 1e6), st.floats(0.1, 3600.0))
def test_a_sample_loses_half_its_weight_in_a_half_life(half_life: float, interval: float) -> None:
    weight = smoothing(half_life, interval)
    assert 0.0 < weight <= 1.0
    assert (1 - weight) ** (half_life / interval) == pytest.approx(0.5, rel=1e-6)
