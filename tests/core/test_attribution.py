"""What a member credits to the summary reaches exactly the features that made it, in proportion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.attribution import features_behind, surprises
from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.summary import EXCEEDANCES, SUMMARY_WIDTH, TOP_SHARES, WIDTH_PER_BLOCK

Array = NDArray[np.float64]

NAN = float("nan")


def plain_shares(credit: Array, scaled: Array) -> Array:
    """The definition, number by number: each splits its credit over the features it is a mean of."""
    blocks, features = scaled.shape
    result = np.zeros(features)
    for block in range(blocks):
        size = np.log1p(np.abs(scaled[block]))
        known = [feature for feature in range(features) if np.isfinite(size[feature])]
        ranked = sorted(known, key=lambda feature: -size[feature])
        for number in range(WIDTH_PER_BLOCK):
            given_credit = credit[block * WIDTH_PER_BLOCK + number]
            if number < len(TOP_SHARES):
                covered = ranked[: max(1, round(TOP_SHARES[number] * len(known)))]
            else:
                level = EXCEEDANCES[number - len(TOP_SHARES)]
                covered = [feature for feature in ranked if np.abs(scaled[block, feature]) > level]
            whole = sum(size[feature] for feature in covered)
            if given_credit > 0 and whole > 0:
                for feature in covered:
                    result[feature] += given_credit * size[feature] / whole
    return result / result.sum() if result.sum() > 0 else result


def distinct(scaled: Array) -> Array:
    """No ties: which of two equal features is in the top is nobody's business."""
    ramp = 1.0 + 1e-3 * np.arange(scaled.shape[-1])
    return np.where(scaled == 0, 1e-6, scaled) * ramp


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.floats(0, 0.9))
def test_credit_flows_back_as_it_is_defined(seed: int, features: int, gaps: float) -> None:
    rng = np.random.default_rng(seed)
    scaled = rng.standard_t(2, size=(len(BLOCKS), features))
    scaled[rng.random(scaled.shape) < gaps] = NAN
    credit = rng.normal(size=SUMMARY_WIDTH)
    np.testing.assert_allclose(
        features_behind(credit[None], scaled)[0], plain_shares(credit, scaled), atol=1e-9
    )


@settings(max_examples=60)
@given(
    hnp.arrays(np.float64, SUMMARY_WIDTH, elements=st.floats(-5, 5) | st.just(NAN)),
    hnp.arrays(
        np.float64,
        st.tuples(st.just(len(BLOCKS)), st.integers(1, 12)),
        elements=st.floats(-1e6, 1e6) | st.just(NAN),
    ),
)
def test_shares_are_shares_whatever_comes_in(credit: Array, scaled: Array) -> None:
    shares = features_behind(credit[None], distinct(scaled))[0]
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1.0) or not shares.any()


def test_all_credit_for_one_number_reaches_the_features_of_its_block_alone() -> None:
    scaled = np.zeros((len(BLOCKS), 10))
    scaled[2, 4], scaled[5, 7] = 30.0, 1_000.0
    credit = np.zeros(SUMMARY_WIDTH)
    credit[2 * WIDTH_PER_BLOCK] = 1.0
    assert features_behind(credit[None], scaled)[0].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_credit_that_speaks_for_normal_counts_for_nothing() -> None:
    shares = features_behind(np.full((1, SUMMARY_WIDTH), -1.0), np.ones((len(BLOCKS), 3)))[0]
    assert shares.tolist() == [0, 0, 0]


def test_a_missing_feature_is_never_the_reason() -> None:
    scaled = np.full((len(BLOCKS), 3), 2.0)
    scaled[:, 1] = NAN
    shares = features_behind(np.ones((1, SUMMARY_WIDTH)), scaled)[0]
    assert shares[1] == 0.0
    assert shares.sum() == pytest.approx(1.0)


def test_a_node_that_shows_nothing_gives_no_reason() -> None:
    assert not features_behind(np.ones((1, SUMMARY_WIDTH)), np.full((len(BLOCKS), 4), NAN)).any()


def test_a_forecasters_surprise_names_its_largest_tenth() -> None:
    share = np.linspace(0.0, 1.0, 20)
    kept = surprises(share)
    assert np.flatnonzero(kept).tolist() == [18, 19]
    assert kept.sum() == pytest.approx(1.0)
    assert kept[19] > kept[18]


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 50) | st.just(NAN)))
def test_surprises_are_shares_and_unknown_features_have_none(share: Array) -> None:
    kept = surprises(share)
    assert (kept >= 0).all()
    assert not kept[np.isnan(share)].any()
    assert kept.sum() == pytest.approx(1.0) or not kept.any()
