"""From values to what the members are fed: batches, missing features, sides, and an untrusted cohort."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.baseline import Baseline, Prior, compress
from node_anomaly_core.cohort import Cohort
from node_anomaly_core.evidence import (
    ForecastPath,
    ResidualPath,
    feature_sides,
    mean_of_top,
    measure_residuals,
)
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.relations import no_relations
from node_anomaly_core.residuals import BLOCKS, CENTRED
from node_anomaly_core.summary import SUMMARY_WIDTH

Array = NDArray[np.float64]

NAN = float("nan")
WIDTH = len(small_bundle.FEATURES)


def cohort(features: int) -> Cohort:
    blocks = len(BLOCKS)
    return Cohort(
        Prior(
            np.ones(features), np.zeros(features), np.zeros((blocks, features)), np.ones((blocks, features))
        ),
        np.zeros(SUMMARY_WIDTH),
        np.ones(SUMMARY_WIDTH),
        np.ones(features),
        no_relations(features),
        np.zeros((0, features)),
        np.ones((0, features)),
        np.zeros((0, blocks, features)),
        np.ones((0, blocks, features)),
    )


def baseline(features: int) -> Baseline:
    usual = np.zeros((len(BLOCKS), features))
    usual[CENTRED] = np.log(0.1)  # of what stands still
    return Baseline(np.zeros(features), np.ones(features), usual, np.full((len(BLOCKS), features), 0.5))


def path(nodes: int, sides: Array) -> ResidualPath:
    features = len(sides)
    return ResidualPath([baseline(features)] * nodes, sides, cohort(features), 300.0)


def fleets() -> st.SearchStrategy[NDArray[Any]]:
    return hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 6)),
        elements=st.floats(-1e3, 1e3) | st.just(NAN),
    )


@settings(max_examples=40)
@given(fleets())
def test_a_batch_of_nodes_is_as_many_single_nodes(values: Array) -> None:
    sides = np.zeros(values.shape[2])
    together = path(values.shape[1], sides)
    alone = [path(1, sides) for _ in range(values.shape[1])]
    for row in values:
        joint = together.step(row)
        for node, single in enumerate(alone):
            own = single.step(row[node : node + 1])
            for part in (
                "compressed",
                "scaled",
                "unpredicted",
                "unpredicted_share",
                "summary",
                "normalised",
            ):
                np.testing.assert_array_equal(getattr(joint, part)[node], getattr(own, part)[0])


@settings(max_examples=40)
@given(fleets(), st.integers(1, 4))
def test_a_feature_this_node_never_had_changes_nothing_it_is_judged_by(values: Array, missing: int) -> None:
    """One model fits nodes with other devices: columns of NaN give the summary of a node without them."""
    ticks, nodes, features = values.shape
    wider = np.concatenate([values, np.full((ticks, nodes, missing), NAN)], axis=-1)
    narrow, wide = path(nodes, np.zeros(features)), path(nodes, np.zeros(features + missing))
    for row, wider_row in zip(values, wider, strict=True):
        one, other = narrow.step(row), wide.step(wider_row)
        np.testing.assert_array_equal(one.summary, other.summary)
        np.testing.assert_array_equal(one.normalised, other.normalised)


@settings(max_examples=40)
@given(fleets(), st.randoms(use_true_random=False))
def test_the_order_of_features_does_not_matter(values: Array, random: Any) -> None:
    order = list(range(values.shape[2]))
    random.shuffle(order)
    sides = np.array([1.0, -1.0, 0.0, 1.0, -1.0, 0.0])[: values.shape[2]]
    one, other = path(values.shape[1], sides), path(values.shape[1], sides[order])
    for row in values:
        np.testing.assert_allclose(one.step(row).summary, other.step(row[:, order]).summary, atol=1e-12)


def test_the_first_move_of_an_always_flat_metric_is_loud_and_finite() -> None:
    part = path(1, np.zeros(3))
    for _ in range(100):
        quiet = part.step(np.zeros((1, 3)))
    moved = part.step(np.array([[0.0, 1e6, 0.0]]))
    assert np.abs(quiet.summary).max() == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(moved.summary).all()
    assert moved.summary.max() > 2.0


def test_a_fall_is_silent_where_only_a_rise_is_anomalous() -> None:
    part = path(1, np.array([1.0, 1.0]))
    for _ in range(50):
        part.step(np.zeros((1, 2)))
    fallen = part.step(np.array([[-100.0, 0.0]]))
    value_blocks = [block for block, name in enumerate(BLOCKS) if not name.startswith("spread")]
    assert not fallen.scaled[:, value_blocks].any()


def test_sides_are_those_of_the_catalogue() -> None:
    sides = dict(
        zip((f.name for f in small_bundle.FEATURES), feature_sides(small_bundle.FEATURES), strict=True)
    )
    assert sides["cpu_user_ratio"] == 1.0
    assert sides["memory_available_ratio"] == -1.0
    assert sides["tcp_established_count"] == 0.0


def measured(rows: Array, sides: Array | None = None, most_rows: int = 10_000) -> tuple[Array, Array]:
    """Usual residuals and their sizes of rows (n, f) around 0 with scale 1."""
    features = rows.shape[1]
    sides = np.zeros(features) if sides is None else sides
    level = (np.zeros((1, features)), np.ones((1, features)))
    (found,) = measure_residuals(rows[:, None], level, sides, 300.0, no_relations(features), most_rows)
    return found


def test_residual_sizes_are_measured_over_a_nodes_own_past() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[:, 1] = NAN
    usual, sizes = measured(rows)
    assert usual.shape == sizes.shape == (len(BLOCKS), 2)
    expected = max(1.25 * np.abs(compress(rows[:, 0], np.zeros(200), np.ones(200))).mean(), 0.05)
    assert sizes[0, 0] == pytest.approx(expected, rel=1e-6)
    assert np.isnan(sizes[:, 1]).all()
    assert np.isnan(usual[:, 1]).all()


def test_a_usual_residual_other_than_zero_is_that_of_the_spreads_alone() -> None:
    """A noisy feature has a large spread on every day; only more or less of it is news."""
    rows = np.random.default_rng(1).normal(size=(400, 1))
    usual, sizes = measured(rows)
    assert not np.delete(usual, np.arange(CENTRED.start, CENTRED.stop), axis=0).any()
    spread = compress(rows, np.zeros(1), np.ones(1)).std()
    assert usual[BLOCKS.index("spread_60m"), 0] == pytest.approx(np.log(spread), abs=0.1)
    assert sizes[BLOCKS.index("spread_60m"), 0] < 0.3


def test_a_part_of_the_ticks_evenly_spread_is_enough_to_measure_on() -> None:
    """The agent's memory has no room for all of them; every tick is still lived through."""
    rows = np.random.default_rng(4).normal(size=(900, 2))
    for whole, part in zip(measured(rows), measured(rows, most_rows=200), strict=True):
        np.testing.assert_allclose(part, whole, rtol=0.25, atol=0.1)
    for whole, part in zip(measured(rows[:150]), measured(rows[:150], most_rows=150), strict=True):
        np.testing.assert_array_equal(part, whole)


def test_what_only_one_side_of_is_anomalous_is_measured_on_that_side() -> None:
    rows = -np.abs(np.random.default_rng(2).normal(size=(200, 1)))
    harmless, both = (measured(rows, np.array([side]))[1] for side in (1.0, 0.0))
    assert harmless[0, 0] == 0.05
    assert both[0, 0] > 0.5


def remembering(memory: float) -> Cohort:
    """A fleet whose only feature keeps a share of its value from tick to tick."""
    one = cohort(1)
    weights = np.zeros(one.relations.autoregression.shape)
    weights[0, 0] = memory
    return replace(one, relations=replace(one.relations, autoregression=weights))


def test_the_autoregression_is_surprised_by_what_does_not_follow() -> None:
    part = ResidualPath([baseline(1)], np.zeros(1), remembering(1.0), 300.0)
    flat = [part.step(np.full((1, 1), 4.0)) for _ in range(30)][-1]
    jump = part.step(np.full((1, 1), -4.0))
    assert flat.unpredicted[0] == 0.0
    assert jump.unpredicted[0] > 0.7
    assert jump.unpredicted_share[0, 0] == jump.unpredicted[0]


def test_a_missing_value_surprises_nobody() -> None:
    part = path(1, np.zeros(2))
    for _ in range(5):
        part.step(np.zeros((1, 2)))
    gap = part.step(np.array([[NAN, 3.0]]))
    assert np.isnan(gap.unpredicted_share[0, 0])
    assert gap.unpredicted[0] == gap.unpredicted_share[0, 1]
    assert np.isnan(part.step(np.full((1, 2), NAN)).unpredicted[0])


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.integers(1, 30)),
        elements=st.floats(-100, 100) | st.just(NAN),
    )
)
def test_the_mean_of_the_top_is_its_definition(values: Array) -> None:
    result = mean_of_top(values, 0.1)
    for row, mean in zip(values, result, strict=True):
        known = np.sort(row[np.isfinite(row)])[::-1]
        if len(known):
            assert mean == pytest.approx(known[: max(1, round(0.1 * len(known)))].mean(), abs=1e-9)
        else:
            assert np.isnan(mean)


def forecaster(nodes: int = 1) -> ForecastPath:
    lstm = StepLSTM(small_bundle.LSTM_STEP.read_bytes(), WIDTH, nodes)
    return ForecastPath(lstm, nodes, np.zeros(WIDTH), np.ones(WIDTH), small_bundle.INTERVAL_S)


def test_the_first_tick_surprises_nobody() -> None:
    first = forecaster().step(np.zeros((1, WIDTH)))
    assert np.isnan(first.score).all()
    assert np.isnan(first.forecast).all()
    assert np.isnan(first.share).all()


def test_surprise_is_judged_against_the_forecast_that_was_made_before() -> None:
    part = forecaster()
    quiet = [part.step(np.zeros((1, WIDTH))) for _ in range(30)][-1]
    jump = np.zeros((1, WIDTH))
    jump[0, 3] = 4.0
    loud = part.step(jump)
    assert loud.score[0] > 1.3 * quiet.score[0]
    assert int(np.argmax(loud.share[0])) == 3
    assert np.abs(loud.forecast).max() < 3.0


def test_a_missing_value_is_not_judged_and_does_not_poison_the_forecast() -> None:
    part = forecaster()
    for _ in range(5):
        part.step(np.zeros((1, WIDTH)))
    gap = np.zeros((1, WIDTH))
    gap[0, 2] = NAN
    during = part.step(gap)
    assert np.isnan(during.share[0, 2])
    assert np.isfinite(np.delete(during.share[0], 2)).all()
    assert np.isfinite(part.step(np.zeros((1, WIDTH))).forecast).all()
    assert np.isnan(part.step(np.full((1, WIDTH), NAN)).score[0])


def test_a_fleet_is_forecast_node_by_node() -> None:
    values = np.random.default_rng(3).normal(size=(20, 3, WIDTH))
    values[5, 1, 0] = NAN
    together, alone = forecaster(3), [forecaster() for _ in range(3)]
    for row in values:
        joint = together.step(row)
        for node, single in enumerate(alone):
            own = single.step(row[node : node + 1])
            np.testing.assert_allclose(joint.score[node], own.score[0], atol=1e-5)
            np.testing.assert_allclose(joint.forecast[node], own.forecast[0], atol=1e-5)
