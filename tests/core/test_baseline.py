"""Centre and scale follow the recipe, few rows lean on the cohort, and what was never seen stays unknown."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.baseline import (
    LEAST_RESIDUAL_SCALE,
    PRIOR_ROWS,
    Baseline,
    Prior,
    compress,
    expand,
    fit_level,
    fit_prior,
    lean,
    lean_centre,
    residual_centre,
    residual_scale,
    robust_scale,
)

Array = NDArray[np.float64]

NAN = float("nan")


def prior(spread: float = 1.0, relative: float = 0.1, residual: float = 1.0) -> Prior:
    return Prior(np.array([spread]), np.array([relative]), np.zeros((1, 1)), np.full((1, 1), residual))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_expand_undoes_compress(value: float, centre: float, scale: float) -> None:
    there = compress(np.array([value]), np.array([centre]), np.array([scale]))
    back = expand(there, np.array([centre]), np.array([scale]))[0]
    assert back == pytest.approx(value, rel=1e-9, abs=1e-9 * (abs(centre) + scale))


@given(st.floats(0.0, 1e12), st.floats(0.0, 1e12))
def test_compress_is_odd_and_keeps_the_order(one: float, two: float) -> None:
    low, high = sorted((one, two))
    signed = compress(np.array([low, high, -high]), np.zeros(3), np.ones(3))
    assert 0.0 <= signed[0] <= signed[1] == -signed[2]


def test_missing_stays_missing_and_never_becomes_zero() -> None:
    assert np.isnan(compress(np.array([NAN]), np.zeros(1), np.ones(1)))[0]
    assert np.isnan(compress(np.array([3.0]), np.array([NAN]), np.ones(1)))[0]
    assert np.isnan(expand(np.array([NAN]), np.zeros(1), np.ones(1)))[0]


def formula(column: Array, floor: float) -> tuple[float, float]:
    """Step 1 of the recipe in plain words."""
    known = column[np.isfinite(column)]
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    parts = [
        (high - low) / 1.349,
        0.5 * known.std(),
        0.01 * (known.max() - known.min()),
        0.01 * abs(middle),
        floor,
    ]
    return float(middle), float(max(parts))


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 30), st.integers(1, 4)),
        elements=st.floats(-1e6, 1e6) | st.just(NAN),
    ),
    st.floats(1e-6, 10.0),
)
def test_centre_and_scale_are_the_recipes(values: Array, floor: float) -> None:
    floors = np.full(values.shape[1], floor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        centre, scale = robust_scale(values, floors)
    for column in range(values.shape[1]):
        if np.isnan(values[:, column]).all():
            assert np.isnan(centre[column])
            assert scale[column] == floor
        else:
            expected = formula(values[:, column], floor)
            assert (centre[column], scale[column]) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert (scale >= floor).all()


def test_a_floor_is_not_changed_by_fitting() -> None:
    floor = np.array([1e-3, 1e-3])
    robust_scale(np.random.default_rng(0).normal(size=(20, 2)), floor)
    assert floor.tolist() == [1e-3, 1e-3]


def test_the_first_move_of_a_metric_that_was_always_flat_is_large_but_finite() -> None:
    centre, scale = robust_scale(np.zeros((100, 1)), np.array([1e-3]))
    moved = float(compress(np.array([1.0]), centre, scale)[0])
    assert 6.0 < moved < 8.0


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 40), st.integers(1, 2), st.integers(1, 3)),
        elements=st.floats(-100, 100) | st.just(NAN),
    )
)
def test_the_usual_size_of_a_residual_is_the_recipes(residuals: Array) -> None:
    result = residual_scale(residuals)
    for block in range(residuals.shape[1]):
        for feature in range(residuals.shape[2]):
            size = np.abs(residuals[:, block, feature])
            size = np.sort(size[np.isfinite(size)])
            if len(size) == 0:
                assert np.isnan(result[block, feature])
                continue
            high = size[int(np.ceil(0.99 * len(size))) - 1]
            expected = max(1.25 * size.mean(), high / 4, LEAST_RESIDUAL_SCALE)
            assert result[block, feature] == pytest.approx(expected, rel=1e-9)


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 20), st.just(4), st.integers(1, 3)),
        elements=st.floats(-100, 100) | st.just(NAN),
    )
)
def test_the_usual_residual_is_the_median_where_it_is_not_zero(residuals: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        usual = residual_centre(residuals, slice(1, 3))
    for block in range(4):
        for feature in range(residuals.shape[2]):
            known = residuals[:, block, feature]
            known = known[np.isfinite(known)]
            if len(known) == 0:
                assert np.isnan(usual[block, feature])
            elif block in (1, 2):
                assert usual[block, feature] == pytest.approx(np.median(known))
            else:
                assert usual[block, feature] == 0.0


def test_few_rows_lean_on_the_cohort_and_many_on_the_node_itself() -> None:
    own, cohort = np.array([8.0]), np.array([2.0])
    assert lean(own, cohort, 0)[0] == pytest.approx(2.0)
    assert lean(own, cohort, PRIOR_ROWS)[0] == pytest.approx(4.0)
    assert lean(own, cohort, 1_000_000)[0] == pytest.approx(8.0, rel=1e-3)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.integers(0, 10_000))
def test_leaning_stays_between_the_two_estimates(own: float, cohort: float, rows: int) -> None:
    blended = float(lean(np.array([own]), np.array([cohort]), rows)[0])
    assert min(own, cohort) * (1 - 1e-9) <= blended <= max(own, cohort) * (1 + 1e-9)


def test_a_feature_leans_by_its_own_rows_and_not_by_those_of_the_others() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 2))
    values[10:, 1] = np.nan
    _, scale = fit_level(values, np.full(2, 1e-6), two_wide(prior()))
    _, alone = fit_level(values[:10], np.full(2, 1e-6), two_wide(prior()))
    assert scale[1] == alone[1]


def two_wide(one: Prior) -> Prior:
    """The same for two features."""
    return Prior(*(np.repeat(part, 2, axis=-1) for part in (
        one.spread, one.relative, one.residual_centre, one.residual_scale,
    )))  # fmt: skip


def test_what_may_be_below_zero_leans_as_a_weighted_mean() -> None:
    own, cohort = np.array([-3.0, NAN]), np.array([1.0, 1.0])
    np.testing.assert_array_equal(lean_centre(own, cohort, 0), [1.0, 1.0])
    np.testing.assert_allclose(lean_centre(own, cohort, PRIOR_ROWS), [-1.0, 1.0])
    np.testing.assert_allclose(lean_centre(own, cohort, 1_000_000), [-3.0, 1.0], rtol=1e-3)


def test_where_one_estimate_is_unknown_the_other_counts_alone() -> None:
    blended = lean(np.array([NAN, 3.0, NAN]), np.array([2.0, NAN, NAN]), 100)
    np.testing.assert_array_equal(blended, [2.0, 3.0, NAN])


def test_a_fresh_node_expects_at_least_half_the_cohorts_spread() -> None:
    """Twenty flat ticks do not make the twenty-first a sensation."""
    values, floor = np.full((20, 1), 5.0), np.array([1e-3])
    _, alone = fit_level(values, floor, None)
    _, leaning = fit_level(values, floor, prior(spread=2.0, relative=0.01))
    assert alone[0] == pytest.approx(0.05)
    assert leaning[0] > 0.5


def test_a_feature_nobody_saw_yet_gets_a_scale_but_no_centre() -> None:
    centre, scale = fit_level(np.full((20, 1), NAN), np.array([1e-3]), prior())
    assert np.isnan(centre[0])
    assert scale[0] >= 1e-3


def test_the_cohort_is_the_median_of_its_nodes() -> None:
    baselines = [
        Baseline(np.array([10.0]), np.array([scale]), np.array([[usual]]), np.array([[residual]]))
        for scale, usual, residual in ((1.0, -3.0, 0.1), (2.0, -1.0, 0.2), (9.0, 0.5, 0.9))
    ]
    cohort = fit_prior(baselines, np.array([1e-3]))
    assert cohort.spread[0] == 2.0
    assert cohort.relative[0] == pytest.approx(0.2)
    assert cohort.residual_centre[0, 0] == -1.0
    assert cohort.residual_scale[0, 0] == pytest.approx(0.2)


def test_a_feature_no_node_had_falls_back_to_its_floor() -> None:
    baselines = [
        Baseline(
            np.array([1.0, NAN]),
            np.array([0.5, 1e-3]),
            np.array([[0.0, NAN], [-2.0, NAN]]),
            np.array([[0.3, NAN], [0.4, NAN]]),
        )
        for _ in range(2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cohort = fit_prior(baselines, np.array([1e-3, 1e-3]))
    assert cohort.spread[1] == 1e-3
    assert cohort.relative[1] == 0.0
    assert cohort.residual_scale[:, 1].tolist() == [1.0, 1.0]
    assert cohort.residual_centre.tolist() == [[0.0, 0.0], [-2.0, 0.0]]
    assert np.isfinite(cohort.residual_scale).all()


def test_a_feature_some_nodes_lack_is_judged_by_those_that_have_it() -> None:
    has = Baseline(np.array([4.0]), np.array([1.0]), np.array([[-2.0]]), np.array([[0.5]]))
    lacks = Baseline(np.array([NAN]), np.array([1e-3]), np.array([[NAN]]), np.array([[NAN]]))
    cohort = fit_prior([has, lacks, lacks], np.array([1e-3]))
    assert cohort.spread[0] == 1.0
    assert cohort.relative[0] == pytest.approx(0.25)
    assert cohort.residual_centre[0, 0] == -2.0
    assert cohort.residual_scale[0, 0] == 0.5
