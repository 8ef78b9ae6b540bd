"""Quantiles by column are NumPy's, without what NumPy needs for them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.quantiles import column_medians, column_quantiles

SHARES = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 4))
NUMBERS = st.floats(-1e12, 1e12) | st.just(float("nan"))


@given(hnp.arrays(np.float64, SHAPES, elements=NUMBERS))
def test_quantiles_are_those_of_numpy_to_the_last_bit(values: NDArray[np.float64]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of a column without a number
        expected = np.nanquantile(values, SHARES, axis=0)
    assert np.array_equal(column_quantiles(values, SHARES), expected, equal_nan=True)


@given(
    hnp.arrays(np.float64, SHAPES, elements=NUMBERS)
    | hnp.arrays(np.float32, SHAPES, elements=st.floats(-100, 100, width=32) | st.just(float("nan")))
)
def test_medians_are_those_of_numpy_in_its_own_precision(values: NDArray[Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nanmedian(values, axis=0)
    found = column_medians(values)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected, equal_nan=True)


def test_the_rows_that_were_given_are_left_as_they_are() -> None:
    values = np.array([[3.0], [1.0], [2.0]])
    assert (column_quantiles(values, (0.5,)).tolist(), column_medians(values).tolist()) == ([[2.0]], [2.0])
    assert values.tolist() == [[3.0], [1.0], [2.0]]


def test_a_node_verifies_a_bundle_and_learns_what_is_normal_without_masked_arrays() -> None:
    """NumPy imports `numpy.ma` by itself in some functions: memory that a node has no use for."""
    program = (
        "import sys; from node_anomaly_core.bundle import verify_bundle, starter_bundle;"
        "verify_bundle(starter_bundle()); print('numpy.ma' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
