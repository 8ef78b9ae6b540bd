"""An untrusted cohort is taken as it was stored, or refused for the array that is wrong."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_bundle
from node_anomaly_core.cohort import parse_cohort
from node_anomaly_core.errors import BundleError

NAN = float("nan")
WIDTH = len(small_bundle.FEATURES)
NAMES = (
    "prior_spread",
    "prior_relative",
    "prior_residual_centre",
    "prior_residual",
    "summary_mean",
    "summary_scale",
    "forecast_scale",
    "components",
    "partial",
    "autoregression",
    "node_centre",
    "node_scale",
    "node_residual_centre",
    "node_residual",
)
SIGNED = ("summary_mean", "prior_residual_centre", "partial", "autoregression", "node_residual_centre")
"""May be below 0."""


def test_a_cohort_comes_back_as_it_was_stored(small: small_bundle.SmallBundle) -> None:
    back = parse_cohort(small.cohort.tensors(), WIDTH, 3)
    for name, array in small.cohort.tensors().items():
        np.testing.assert_array_equal(back.tensors()[name], array)
    assert tuple(back.tensors()) == NAMES
    own = back.node(1)
    np.testing.assert_array_equal(own.centre, small.cohort.node_centre[1])
    np.testing.assert_array_equal(own.scale, small.cohort.node_scale[1])
    np.testing.assert_array_equal(own.residual_centre, small.cohort.node_residual_centre[1])
    np.testing.assert_array_equal(own.residual_scale, small.cohort.node_residual[1])


def test_every_array_is_described_where_the_format_is(repository: Path) -> None:
    rows = [row for row in (repository / "docs" / "bundle-format.md").read_text().splitlines() if "|" in row]
    for name in NAMES:
        assert any(f"`{name}`" in row.split("|")[1] for row in rows), name


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
        if name != "node_centre" and not (name in SIGNED and value < 0)
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
