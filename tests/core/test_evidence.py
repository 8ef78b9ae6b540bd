"""From values to what the members are fed: batches, missing features, sides, and an untrusted cohort."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.baseline import Baseline, Prior, compress
from node_anomaly_core.errors import BundleError
from node_anomaly_core.evidence import (
    Cohort,
    ForecastPath,
    ResidualPath,
    feature_sides,
    mean_of_top,
    measure_residuals,
    parse_cohort,
)
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.summary import SUMMARY_WIDTH

Array = NDArray[np.float64]

NAN = float("nan")
WIDTH = len(small_bundle.FEATURES)


def cohort(features: int) -> Cohort:
    blocks = len(BLOCKS)
    return Cohort(
        Prior(np.ones(features), np.zeros(features), np.ones((blocks, features))),
        np.zeros(SUMMARY_WIDTH),
        np.ones(SUMMARY_WIDTH),
        np.ones(features),
        np.empty((0, features)),
        np.zeros((0, features)),
        np.ones((0, features)),
        np.ones((0, blocks, features)),
    )


def baseline(features: int) -> Baseline:
    return Baseline(np.zeros(features), np.ones(features), np.full((len(BLOCKS), features), 0.5))


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
            for part in ("compressed", "scaled", "summary", "normalised"):
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
    assert np.abs(quiet.summary).max() == 0.0
    assert np.isfinite(moved.summary).all()
    assert moved.summary.max() > 2.0


def test_a_fall_is_silent_where_only_a_rise_is_anomalous() -> None:
    part = path(1, np.array([1.0, 1.0]))
    for _ in range(50):
        part.step(np.zeros((1, 2)))
    fallen = part.step(np.array([[-100.0, 0.0]]))
    assert fallen.scaled.min() == fallen.scaled.max() == 0.0


def test_sides_are_those_of_the_catalogue() -> None:
    sides = dict(
        zip((f.name for f in small_bundle.FEATURES), feature_sides(small_bundle.FEATURES), strict=True)
    )
    assert sides["cpu_user_ratio"] == 1.0
    assert sides["memory_available_ratio"] == -1.0
    assert sides["tcp_established_count"] == 0.0


def test_residual_sizes_are_measured_over_a_nodes_own_past() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2))
    rows[:, 1] = NAN
    sizes = measure_residuals(rows, np.zeros(2), np.ones(2), 300.0, np.empty((0, 2)))
    assert sizes.shape == (len(BLOCKS), 2)
    expected = max(1.25 * np.abs(compress(rows[:, 0], np.zeros(200), np.ones(200))).mean(), 0.05)
    assert sizes[0, 0] == pytest.approx(expected, rel=1e-6)
    assert np.isnan(sizes[:, 1]).all()


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
    assert loud.score[0] > 1.5 * quiet.score[0]
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


def test_a_cohort_comes_back_as_it_was_stored(small: small_bundle.SmallBundle) -> None:
    back = parse_cohort(small.cohort.tensors(), WIDTH, 3)
    for name, array in small.cohort.tensors().items():
        np.testing.assert_array_equal(back.tensors()[name], array)
    own = back.node(1)
    np.testing.assert_array_equal(own.centre, small.cohort.node_centre[1])


NAMES = tuple(cohort(1).tensors())


@pytest.mark.parametrize("name", NAMES)
def test_a_cohort_that_lacks_an_array_or_has_a_strange_one_is_refused(
    small: small_bundle.SmallBundle, name: str
) -> None:
    tensors: dict[str, Any] = dict(small.cohort.tensors())
    changes = [
        {key: value for key, value in tensors.items() if key != name},
        {**tensors, "extra": np.zeros(1)},
        {**tensors, name: tensors[name][..., :-1]},
        {**tensors, name: np.zeros(())},
    ]
    for changed in changes:
        with pytest.raises(BundleError) as refused:
            parse_cohort(changed, WIDTH, 3)
        assert refused.value.reason == "model"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name, value in itertools.product(NAMES, [NAN, float("inf"), -1.0])
        if name != "node_centre" and (name, value) != ("summary_mean", -1.0)
    ],
)
def test_a_cohort_with_an_impossible_number_is_refused(
    small: small_bundle.SmallBundle, name: str, value: float
) -> None:
    tensors = {key: array.copy() for key, array in small.cohort.tensors().items()}
    tensors[name].flat[0] = value
    with pytest.raises(BundleError) as refused:
        parse_cohort(tensors, WIDTH, 3)
    assert refused.value.reason == "model"
    assert name in refused.value.message
    assert refused.value.hint


def test_components_that_are_no_directions_are_refused(small: small_bundle.SmallBundle) -> None:
    tensors = small.cohort.tensors()
    for components in (np.ones((2, WIDTH)), 2 * np.eye(WIDTH), np.eye(WIDTH + 1, WIDTH)):
        with pytest.raises(BundleError) as refused:
            parse_cohort({**tensors, "components": components}, WIDTH, 3)
        assert refused.value.reason == "model"


def test_a_centre_may_be_unknown_but_not_infinite(small: small_bundle.SmallBundle) -> None:
    tensors = {key: array.copy() for key, array in small.cohort.tensors().items()}
    tensors["node_centre"][0, 0] = NAN
    assert np.isnan(parse_cohort(tensors, WIDTH, 3).node(0).centre[0])
    tensors["node_centre"][0, 0] = float("inf")
    with pytest.raises(BundleError):
        parse_cohort(tensors, WIDTH, 3)
