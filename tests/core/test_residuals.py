"""The residual blocks are running updates of plain definitions, node by node and feature by feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.residuals import BLOCKS, ResidualBlocks, longest_window, principal_components

Array = NDArray[np.float64]

INTERVAL_S = 300.0  # the shortest windows, so that they fill and wrap within a test


def fleets(ticks: int = 30) -> st.SearchStrategy[NDArray[Any]]:
    """Compressed values (t, m, f) with gaps."""
    return hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, ticks), st.integers(1, 3), st.integers(1, 4)),
        elements=st.floats(-10, 10, width=32) | st.just(float("nan")),
    )


def run(values: Array) -> Array:
    blocks = ResidualBlocks(values.shape[1], values.shape[2], INTERVAL_S)
    return np.stack([blocks.step(row) for row in values])


@settings(max_examples=60)
@given(fleets())
def test_a_batch_of_nodes_is_as_many_single_nodes(values: Array) -> None:
    together = run(values)
    for node in range(values.shape[1]):
        np.testing.assert_array_equal(together[:, node : node + 1], run(values[:, node : node + 1]))


@settings(max_examples=60)
@given(fleets(), st.randoms(use_true_random=False))
def test_features_do_not_touch_each_other(values: Array, random: Any) -> None:
    order = list(range(values.shape[2]))
    random.shuffle(order)
    np.testing.assert_array_equal(run(values)[..., order], run(values[..., order]))


@settings(max_examples=60)
@given(fleets())
def test_what_is_missing_now_has_no_residual_now(values: Array) -> None:
    """NaN never becomes 0, in any block."""
    residuals = run(values)
    assert np.isnan(residuals.transpose(0, 1, 3, 2)[np.isnan(values)]).all()


def test_levels_and_differences_are_what_they_are_called() -> None:
    values = np.array([1.0, 3.0, float("nan"), 4.0])[:, None, None]
    residuals = run(values)[:, 0, :, 0]
    np.testing.assert_array_equal(residuals[:, BLOCKS.index("level")], values[:, 0, 0])
    np.testing.assert_array_equal(
        residuals[:, BLOCKS.index("difference")], [float("nan"), 2.0, float("nan"), float("nan")]
    )


def test_a_short_mean_minus_a_long_mean_is_computed_over_what_was_seen() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(400, 1, 1))
    residuals = run(values)[:, 0, :, 0]
    for block, short, long in (("mean_5m_60m", 5, 60), ("mean_15m_240m", 15, 240), ("mean_3m_15m", 3, 15)):
        for tick in (0, 4, 59, 239, 399):
            seen = values[: tick + 1, 0, 0]
            expected = seen[-short:].mean() - seen[-long:].mean()
            assert residuals[tick, BLOCKS.index(block)] == pytest.approx(expected, abs=1e-6)


def test_windows_are_counted_in_seconds_where_ticks_are_short() -> None:
    assert longest_window(15.0) == 960
    assert longest_window(60.0) == 240
    assert longest_window(300.0) == 240


def test_an_adapted_level_follows_a_lasting_shift_and_the_fixed_one_does_not() -> None:
    values = np.concatenate([np.zeros(200), np.full(400, 2.0)])[:, None, None]
    residuals = np.abs(run(values)[:, 0, :, 0])
    hour, fixed = BLOCKS.index("level_hour"), BLOCKS.index("level")
    assert residuals[201, hour] > 1.5
    assert residuals[-1, hour] < 0.2
    assert residuals[-1, fixed] == 2.0


def test_one_spike_moves_an_adapted_level_little() -> None:
    """Innovations are clipped, so an incident of one tick is not learnt to be normal."""
    values = np.zeros((300, 1, 1))
    values[250] = 50.0
    residuals = run(values)[:, 0, :, 0]
    assert abs(residuals[251, BLOCKS.index("level_day")]) < 0.1


def test_a_flat_metric_that_moves_is_large_but_finite_in_every_block() -> None:
    values = np.zeros((300, 1, 1))
    values[-1] = 7.0
    last = run(values)[-1, 0, :, 0]
    assert np.isfinite(last).all()
    assert (last > 0.3).all()
    assert last[BLOCKS.index("difference")] == 7.0


def test_components_are_orthonormal_directions_of_what_moves_together() -> None:
    rng = np.random.default_rng(5)
    common = rng.normal(size=(2_000, 1))
    rows = np.hstack([common, 2.0 * common, rng.normal(scale=0.05, size=(2_000, 4))])
    components = principal_components(rows)
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=1e-9)
    assert len(components) == 1
    np.testing.assert_allclose(np.abs(components[0, :2]), [1 / np.sqrt(5), 2 / np.sqrt(5)], atol=0.05)


@pytest.mark.parametrize("rows", [np.zeros((50, 4)), np.full((50, 4), np.nan), np.empty((0, 4))])
def test_history_that_never_moves_has_no_components(rows: Array) -> None:
    assert principal_components(rows).shape == (0, 4)


def test_a_broken_relation_is_unexplained_and_a_kept_one_is_not() -> None:
    """Two features that move together explain each other; one that moves alone does not."""
    components = np.array([[np.sqrt(0.5), np.sqrt(0.5), 0.0]])
    for moved, unexplained in (([3.0, 3.0, 0.0], 0.0), ([3.0, -3.0, 0.0], 3.0), ([0.0, 0.0, 2.0], 2.0)):
        blocks = ResidualBlocks(1, 3, INTERVAL_S, components)
        residual = blocks.step(np.array([moved]))[0, BLOCKS.index("unexplained")]
        assert np.abs(residual).max() == pytest.approx(unexplained, abs=1e-9)


def test_a_missing_feature_counts_as_its_centre_for_the_others() -> None:
    components = np.array([[np.sqrt(0.5), np.sqrt(0.5)]])
    gap = ResidualBlocks(1, 2, INTERVAL_S, components).step(np.array([[2.0, np.nan]]))[0, -1]
    centre = ResidualBlocks(1, 2, INTERVAL_S, components).step(np.array([[2.0, 0.0]]))[0, -1]
    assert np.isnan(gap[1])
    assert gap[0] == centre[0]


def test_adapted_levels_survive_a_restart() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(600, 2, 3))
    values[rng.random(values.shape) < 0.05] = np.nan
    uninterrupted = ResidualBlocks(2, 3, INTERVAL_S)
    for row in values[:300]:
        uninterrupted.step(row)
    restarted = ResidualBlocks(2, 3, INTERVAL_S)
    for row in values[300 - longest_window(INTERVAL_S) : 300]:
        restarted.step(row)
    restarted.restore(uninterrupted.state())
    for row in values[300:]:
        np.testing.assert_allclose(restarted.step(row), uninterrupted.step(row), atol=1e-6)


@pytest.mark.parametrize("name", ["level", "deviation", "seen"])
def test_levels_of_another_shape_are_refused(name: str) -> None:
    state = ResidualBlocks(1, 3, INTERVAL_S).state()
    state[name] = state[name][..., :2]
    with pytest.raises(ValueError, match=name):
        ResidualBlocks(1, 3, INTERVAL_S).restore(state)


def test_a_state_is_a_copy() -> None:
    blocks = ResidualBlocks(1, 1, INTERVAL_S)
    blocks.step(np.zeros((1, 1)))
    state = blocks.state()
    blocks.step(np.ones((1, 1)))
    assert state["level"].max() == 0.0
    assert state["seen"].max() == 1.0


def test_input_is_not_changed() -> None:
    values = np.array([[1.0, float("nan")]])
    before = values.copy()
    ResidualBlocks(1, 2, INTERVAL_S).step(values)
    np.testing.assert_array_equal(values, before)
