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


def in_order(
    times: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Of several samples of one millisecond the largest; ValueError if times fall.

    VictoriaMetrics may hold such samples and its own deduplication keeps the largest too. The end of a series
    gives way to any number: of two scrapers one may have been stopped.
    """
    steps = np.diff(times)
    if (steps > 0).all():
        return times, values
    if (steps < 0).any():
        raise ValueError("samples out of order")
    order = np.lexsort((np.where(np.isnan(values), -np.inf, values), times))
    last = np.append(steps > 0, np.array([True]))
    return times[last], values[order][last]
