"""Three linear maps: what a fleet's features say of each other, and of their own next tick."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.relations import (
    CLIP,
    Moments,
    Past,
    Relations,
    bounded,
    no_relations,
    past_width,
    principal_components,
)

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = 300.0  # the shortest windows: lags of up to 5 ticks, means over 15 and 60
RIDGE = 0.01


def fleets(most_ticks: int = 30) -> st.SearchStrategy[NDArray[Any]]:
    """Compressed values (t, m, f) with gaps."""
    return hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, most_ticks), st.integers(1, 3), st.integers(1, 4)),
        elements=st.floats(-9, 9, width=16) | st.just(NAN),
    )


def fitted(
    values: Array, normal: NDArray[np.bool_] | None = None, interval_s: float = INTERVAL_S
) -> Relations:
    """What is learnt from values (t, m, f) of m nodes of which `normal` (t, m) is usable, all by default."""
    moments = Moments(values.shape[2])
    usable = np.ones(values.shape[:2], dtype=bool) if normal is None else normal
    moments.add(values, usable, interval_s)
    return moments.fit()


def plain_past(values: Array, tick: int, means: tuple[int, int] = (15, 60)) -> Array:
    """The regressors (m, past_width(f)) of one tick, from bounded values (t, m, f); before the first: it."""
    nodes = values.shape[1]
    before = values[:tick]
    if tick == 0:
        parts = [np.zeros((nodes, values.shape[2]))] * 6
    else:
        parts = [before[max(tick - lag, 0)] for lag in (1, 2, 3, 5)]
        parts += [before[-length:].mean(axis=0) for length in means]
    return np.concatenate([*parts, np.ones((nodes, 1))], axis=1)


# ------------------------------------------------------------------------------------------------ the past


@settings(max_examples=60)
@given(fleets())
def test_the_past_is_what_it_is_over_the_whole_history(values: Array) -> None:
    seen = bounded(values)
    past = Past(seen.shape[1], seen.shape[2], INTERVAL_S)
    for tick, row in enumerate(seen):
        np.testing.assert_allclose(past.row(), plain_past(seen, tick), atol=1e-6)
        past.push(row)


@pytest.mark.parametrize(
    ("interval_s", "means"), [(5.0, (180, 720)), (60.0, (15, 60)), (300.0, (15, 60))], ids=str
)
def test_means_of_the_past_are_counted_in_time_and_forget(interval_s: float, means: tuple[int, int]) -> None:
    seen = np.random.default_rng(0).uniform(-5, 5, size=(means[1] + 100, 1, 2))
    past = Past(1, 2, interval_s)
    for tick, row in enumerate(seen):
        if tick % 97 == 0:
            np.testing.assert_allclose(past.row(), plain_past(seen, tick, means), atol=1e-6)
        past.push(row)


@settings(max_examples=30)
@given(fleets())
def test_the_past_of_a_fleet_is_that_of_as_many_nodes(values: Array) -> None:
    seen = bounded(values)
    together = Past(seen.shape[1], seen.shape[2], INTERVAL_S)
    alone = [Past(1, seen.shape[2], INTERVAL_S) for _ in range(seen.shape[1])]
    for row in seen:
        together.push(row)
        for node, single in enumerate(alone):
            single.push(row[node : node + 1])
            np.testing.assert_array_equal(together.row()[node], single.row()[0])


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e9, 1e9) | st.just(NAN)))
def test_a_missing_value_is_at_the_centre_and_no_value_beyond_the_clip(values: Array) -> None:
    seen = bounded(values)
    assert (np.abs(seen) <= CLIP).all()
    assert (seen[np.isnan(values)] == 0.0).all()
    inside = np.abs(values) <= CLIP
    np.testing.assert_array_equal(seen[inside], values[inside])


# ----------------------------------------------------------------------------------------- the components


@settings(max_examples=60)
@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 40), st.integers(1, 8)), elements=st.floats(-5, 5, width=16)
    )
)
def test_components_are_orthonormal_and_just_enough(rows: Array) -> None:
    second = rows.T @ rows / len(rows)
    components = principal_components(second)
    count, features = components.shape
    assert features == rows.shape[1]
    assert count <= features // 2
    np.testing.assert_allclose(components @ components.T, np.eye(count), atol=1e-9)
    whole = np.trace(second)
    held = np.diag(components @ second @ components.T)
    assert (np.diff(held) <= 1e-9 * max(whole, 1.0)).all()
    if count < features // 2 and whole > 0:
        assert held.sum() >= 0.9 * whole * (1 - 1e-9)
    if count:
        assert held[:-1].sum() < 0.9 * whole * (1 + 1e-9)


def test_components_are_directions_of_what_moves_together() -> None:
    rng = np.random.default_rng(5)
    common = rng.normal(size=(2_000, 1, 1))
    values = np.concatenate([common, 2.0 * common, rng.normal(scale=0.05, size=(2_000, 1, 4))], axis=2)
    components = fitted(values).components
    assert len(components) == 1
    np.testing.assert_allclose(np.abs(components[0, :2]), [1 / np.sqrt(5), 2 / np.sqrt(5)], atol=0.05)


@pytest.mark.parametrize("still", [0.0, NAN], ids=["at the centre", "missing"])
def test_history_that_never_moves_has_no_components_and_maps_nothing(still: float) -> None:
    found = fitted(np.full((50, 1, 4), still))
    assert found.components.shape == (0, 4)
    np.testing.assert_allclose(found.partial, np.eye(4), atol=1e-12)
    assert not found.autoregression.any()


# ------------------------------------------------------------------------------- what the others would say


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_the_partial_residual_is_that_of_a_ridge_regression_on_all_others(seed: int, features: int) -> None:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(60, features)) @ rng.normal(size=(features, features))
    values = np.clip(mixed, -CLIP, CLIP)
    residuals = values @ fitted(values[:, None]).partial
    second = values.T @ values / len(values) + RIDGE * np.eye(features)
    for one in range(features):
        others = np.arange(features) != one
        weights = np.linalg.solve(second[np.ix_(others, others)], second[others, one])
        np.testing.assert_allclose(residuals[:, one], values[:, one] - values[:, others] @ weights, atol=1e-8)


def test_a_feature_that_others_make_up_is_no_news_and_an_independent_one_is() -> None:
    rng = np.random.default_rng(1)
    one, other, free = rng.normal(size=(3, 4_000))
    values = np.stack([one, other, 0.6 * one - 0.8 * other, free], axis=1)
    left = values @ fitted(values[:, None]).partial
    assert left[:, 2].var() < 0.02 * values[:, 2].var()
    assert left[:, 3].var() == pytest.approx(values[:, 3].var(), rel=0.02)
    broken = np.array([[1.0, 0.0, -0.6, 0.0]])  # each as usual, together as never before
    assert np.abs(broken @ fitted(values[:, None]).partial).max() > 0.5


# --------------------------------------------------------------------------- what the past would have said


def autoregressive(seed: int, ticks: int, memory: float, nodes: int = 1, features: int = 3) -> Array:
    """(ticks, nodes, features) of variance 1, each feature by itself."""
    noise = np.sqrt(1 - memory**2) * np.random.default_rng(seed).normal(size=(ticks, nodes, features))
    for tick in range(1, ticks):
        noise[tick] += memory * noise[tick - 1]
    return noise


def unpredicted(values: Array, relations: Relations) -> Array:
    """Residuals (t, m, f) of consecutive values."""
    past = Past(values.shape[1], values.shape[2], INTERVAL_S)
    result = np.empty_like(values)
    for tick, row in enumerate(bounded(values)):
        result[tick] = row - past.row() @ relations.autoregression
        past.push(row)
    return result


@pytest.mark.parametrize("memory", [0.0, 0.6, 0.95])
def test_what_follows_from_the_last_tick_is_predicted_down_to_its_noise(memory: float) -> None:
    found = fitted(autoregressive(2, 6_000, memory))
    fresh = autoregressive(3, 6_000, memory)
    left = unpredicted(fresh, found)[100:]
    assert left.var() == pytest.approx(1 - memory**2, rel=0.06)


def test_a_feature_that_follows_another_is_predicted_from_it() -> None:
    values = autoregressive(4, 5_000, 0.0, features=2)
    values[3:, 0, 1] = values[:-3, 0, 0]
    left = unpredicted(values, fitted(values))[100:, 0]
    assert left[:, 1].var() < 0.02
    assert left[:, 0].var() > 0.9


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(6, 25), st.integers(1, 3))
def test_the_autoregression_is_the_ridge_regression_on_the_whole_history(
    seed: int, ticks: int, nodes: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(ticks, nodes, 2))
    values[rng.random(values.shape) < 0.1] = NAN
    normal = rng.random((ticks, nodes)) < 0.9
    normal[5:, 0] = True
    seen = bounded(values)
    rows = np.concatenate([plain_past(seen, tick)[normal[tick]] for tick in range(5, ticks)])
    targets = np.concatenate([seen[tick][normal[tick]] for tick in range(5, ticks)])
    power = rows.T @ rows / len(rows) + RIDGE * np.eye(past_width(2))
    expected = np.linalg.solve(power, rows.T @ targets / len(rows))
    np.testing.assert_allclose(fitted(values, normal).autoregression, expected, atol=1e-4)


# --------------------------------------------------------------------------------- what is learnt from what


def test_histories_are_pooled_over_nodes_and_over_calls() -> None:
    values = autoregressive(6, 300, 0.5, nodes=2)
    together = fitted(values)
    moments = Moments(3)
    for node in range(2):
        moments.add(values[:, node : node + 1], np.ones((300, 1), dtype=bool), INTERVAL_S)
    apart = moments.fit()
    np.testing.assert_allclose(apart.partial, together.partial, atol=1e-9)
    np.testing.assert_allclose(apart.autoregression, together.autoregression, atol=1e-9)
    np.testing.assert_allclose(np.abs(apart.components), np.abs(together.components), atol=1e-9)


def test_what_is_not_normal_teaches_nothing_about_a_tick() -> None:
    values = autoregressive(7, 400, 0.5)
    normal = np.ones((400, 1), dtype=bool)
    normal[200:220] = False
    hurt = values.copy()
    hurt[200:220] = 5.0
    quiet, loud = fitted(values, normal), fitted(hurt, normal)
    np.testing.assert_array_equal(loud.partial, quiet.partial)
    np.testing.assert_array_equal(loud.components, quiet.components)


@pytest.mark.parametrize(
    ("ticks", "normal"), [(0, True), (5, True), (50, False)], ids=["no tick", "no past", "nothing normal"]
)
def test_where_there_is_nothing_to_learn_there_are_no_relations(ticks: int, normal: bool) -> None:
    values = autoregressive(8, max(ticks, 1), 0.5)[:ticks]
    found, none = fitted(values, np.full((ticks, 1), normal)), no_relations(3)
    np.testing.assert_array_equal(found.components, none.components)
    np.testing.assert_array_equal(found.partial, none.partial)
    np.testing.assert_array_equal(found.autoregression, none.autoregression)


def test_without_relations_every_residual_is_the_value_itself() -> None:
    none, values = no_relations(3), np.array([[1.0, -2.0, 0.5]])
    np.testing.assert_array_equal(values @ none.partial, values)
    np.testing.assert_array_equal(values - values @ none.components.T @ none.components, values)
    assert not (np.ones((1, past_width(3))) @ none.autoregression).any()
