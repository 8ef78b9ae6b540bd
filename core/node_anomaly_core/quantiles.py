"""Quantiles by column, NaN ignored: to the last bit those of NumPy, without what NumPy needs for them.

`np.nanquantile` and `np.nanmedian` import `numpy.ma` at their first call, on a node when it verifies its
first bundle: 1.2 MiB that stay, and 9 for a moment where no bytecode is cached and Python has to compile it.
They also go column by column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def column_quantiles(values: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.float64]:
    """Quantiles (q, f) of rows (n, f), n > 0, NaN ignored, linear between neighbours; NaN where all are."""
    ordered, last = _ordered(values)
    at = np.multiply.outer(np.asarray(shares, dtype=np.float64), last)
    below = np.floor(at).astype(np.intp)
    part = at - below
    low = np.take_along_axis(ordered, below, axis=0)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis=0)
    step = high - low
    return np.where(part < 0.5, low + step * part, high - step * (1 - part))


def column_medians(values: NDArray[np.floating]) -> NDArray[Any]:
    """Medians (f,) of rows (n, f), n > 0, NaN ignored: the mean of the middle two; NaN where all are."""
    ordered, last = _ordered(values)
    middle = np.stack([last // 2, (last + 1) // 2])
    return np.asarray(np.take_along_axis(ordered, middle, axis=0).mean(axis=0))


def _ordered(values: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.intp]]:
    """Each column in order, NaN at its end, and where its last number is: -1, a NaN, if it has none."""
    ordered = np.sort(values, axis=0)
    return ordered, np.count_nonzero(~np.isnan(ordered), axis=0) - 1
