"""Samples as a server stores them: one array of times and one of values for each series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STALE_BITS = np.uint64(0x7FF0000000000002)
"""The NaN that Prometheus writes when a series ends; every other NaN is a value."""


@dataclass(frozen=True, slots=True, eq=False)
class RawSeries:
    """`labels` without the metric's name; `times` (n,) in unix milliseconds, rising; `values` (n,)."""

    labels: Mapping[str, str]
    times: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def stale(self) -> NDArray[np.bool_]:
        """True (n,) where the series ended."""
        return np.asarray(self.values.view(np.uint64) == STALE_BITS)
