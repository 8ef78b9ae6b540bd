"""The summary forgets which feature is which; what is missing weighs nothing, and drift becomes normal."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.summary import (
    EXCEEDANCES,
    SUMMARY_WIDTH,
    TOP_SHARES,
    WIDTH_PER_BLOCK,
    OnlineNormaliser,
    summarise,
    top_counts,
)

Array = NDArray[np.float64]

NAN = float("nan")


def residuals(most_features: int = 25) -> st.SearchStrategy[NDArray[Any]]:
    """Scaled residuals (m, blocks, f) with gaps."""
    return hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 3), st.just(len(BLOCKS)), st.integers(1, most_features)),
        elements=st.floats(-50, 50) | st.just(NAN),
    )


def plain_summary(block: Array) -> list[float]:
    """One block's numbers from residuals (f,), in plain words."""
    known = np.abs(block[np.isfinite(block)])
    if len(known) == 0:
        return [NAN] * WIDTH_PER_BLOCK
    sizes = np.sort(np.log1p(known))[::-1]
    tops = [sizes[: max(1, round(share * len(known)))].mean() for share in TOP_SHARES]
    return [float(number) for number in (*tops, *((known > level).mean() for level in EXCEEDANCES))]


@settings(max_examples=60)
@given(residuals())
def test_the_summary_is_its_definition(scaled: Array) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = summarise(scaled)
    assert summary.shape == (len(scaled), SUMMARY_WIDTH)
    for node, row in enumerate(scaled):
        expected = np.concatenate([plain_summary(block) for block in row])
        np.testing.assert_allclose(summary[node], expected, atol=1e-9)


@settings(max_examples=60)
@given(residuals(), st.randoms(use_true_random=False))
def test_the_order_of_features_does_not_matter(scaled: Array, random: Any) -> None:
    order = list(range(scaled.shape[2]))
    random.shuffle(order)
    np.testing.assert_allclose(summarise(scaled[..., order]), summarise(scaled), atol=1e-12)


@settings(max_examples=60)
@given(residuals(), st.integers(1, 5))
def test_a_missing_feature_equals_one_that_never_existed(scaled: Array, missing: int) -> None:
    gap = np.full((*scaled.shape[:2], missing), NAN)
    np.testing.assert_array_equal(summarise(np.concatenate([scaled, gap], axis=-1)), summarise(scaled))


@settings(max_examples=60)
@given(residuals())
def test_a_batch_of_nodes_is_as_many_single_nodes(scaled: Array) -> None:
    together = summarise(scaled)
    for node in range(len(scaled)):
        np.testing.assert_array_equal(together[node : node + 1], summarise(scaled[node : node + 1]))


def test_a_node_that_shows_nothing_has_an_unknown_summary_not_zero() -> None:
    assert np.isnan(summarise(np.full((1, len(BLOCKS), 4), NAN))).all()


def test_one_loud_feature_among_many_shows_in_the_top_and_hardly_in_the_mean() -> None:
    scaled = np.zeros((1, len(BLOCKS), 40))
    scaled[..., 7] = 20.0
    block = summarise(scaled)[0, :WIDTH_PER_BLOCK]
    assert block[0] == pytest.approx(np.log1p(20.0))
    assert block[TOP_SHARES.index(1.0)] == pytest.approx(np.log1p(20.0) / 40)
    assert block[len(TOP_SHARES) :].tolist() == [1 / 40, 1 / 40]


def test_at_least_one_feature_is_in_every_share() -> None:
    assert top_counts(np.array([1, 10, 100])).tolist() == [
        [1, 1, 1, 1, 1, 1],
        [1, 1, 1, 2, 4, 10],
        [1, 5, 10, 20, 40, 100],
    ]


def normaliser(nodes: int = 1, interval_s: float = 60.0) -> OnlineNormaliser:
    return OnlineNormaliser(nodes, np.zeros(SUMMARY_WIDTH), np.ones(SUMMARY_WIDTH), interval_s)


def test_a_number_is_judged_before_it_is_learnt() -> None:
    row = np.full((1, SUMMARY_WIDTH), 3.0)
    part = normaliser()
    first, second = part.step(row), part.step(row)
    assert (first == 3.0).all()
    assert (second < first).all()


def test_normalised_numbers_are_clipped() -> None:
    assert (normaliser().step(np.full((1, SUMMARY_WIDTH), 1e6)) == 20.0).all()
    assert (normaliser().step(np.full((1, SUMMARY_WIDTH), -1e6)) == -10.0).all()


def test_a_lasting_shift_becomes_normal_within_days() -> None:
    part = normaliser(interval_s=300.0)
    row = np.full((1, SUMMARY_WIDTH), 2.0)
    for _ in range(3 * 288):
        last = part.step(row)
    assert np.abs(last).max() < 0.5


def test_an_unknown_number_stays_unknown_and_teaches_nothing() -> None:
    part, other = normaliser(), normaliser()
    gap = np.full((1, SUMMARY_WIDTH), NAN)
    assert np.isnan(part.step(gap)).all()
    assert np.isfinite(part.step(np.ones((1, SUMMARY_WIDTH)))).all()
    other.step(np.zeros((1, SUMMARY_WIDTH)))
    np.testing.assert_array_equal(part.state()["ticks"], [2.0])


def test_a_constant_summary_keeps_a_scale_above_zero() -> None:
    part = normaliser(interval_s=300.0)
    for _ in range(5_000):
        last = part.step(np.zeros((1, SUMMARY_WIDTH)))
    assert np.isfinite(last).all()
    assert part.state()["scale"].min() >= 1e-3


def test_nodes_are_normalised_each_by_itself() -> None:
    rows = np.random.default_rng(1).normal(size=(50, 2, SUMMARY_WIDTH))
    together, alone = normaliser(2), [normaliser(), normaliser()]
    for row in rows:
        joint = together.step(row)
        for node in range(2):
            np.testing.assert_array_equal(joint[node : node + 1], alone[node].step(row[node : node + 1]))


def test_what_was_learnt_survives_a_restart() -> None:
    rows = np.random.default_rng(2).normal(size=(80, 1, SUMMARY_WIDTH))
    uninterrupted = normaliser()
    for row in rows[:40]:
        uninterrupted.step(row)
    restarted = normaliser()
    restarted.restore(uninterrupted.state())
    for row in rows[40:]:
        np.testing.assert_array_equal(restarted.step(row), uninterrupted.step(row))


def test_a_summary_of_another_shape_is_refused() -> None:
    state = normaliser(2).state()
    with pytest.raises(ValueError, match="shape"):
        normaliser(1).restore(state)
