"""Two detectors that nobody should lose to, exactly as an outside evaluator computes them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

LARGEST_Z = "max|z|"
RANDOM = "random"
RANDOM_THRESHOLD = 0.9999
"""In place of 1.0, for scores that are uniform in 0..1."""

_SPREAD_FLOOR = 1e-3
_ALARM_QUANTILE = 0.9999


def standardised(train: NDArray[np.floating], rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows (n, f) in deviations of train (t, f) from its mean, NaN stays NaN."""
    whole = np.isfinite(train).all()
    mean, deviation = (np.mean, np.std) if whole else (np.nanmean, np.nanstd)
    with _unsaid():
        return np.asarray((rows - mean(train, axis=0)) / (deviation(train, axis=0) + _SPREAD_FLOOR))


def largest_z(train: NDArray[np.floating], test: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far the furthest feature is off, (n,), as a share of what train (t, f) exceeds once in 10,000."""
    usual, now = (_largest(standardised(train, rows)) for rows in (train, test))
    with _unsaid():
        return np.asarray(now / np.nanquantile(usual, _ALARM_QUANTILE))


@contextmanager
def _unsaid() -> Iterator[None]:
    """Features without a value, train parts that never move, sums beyond float32: NaN and inf say it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _largest(z: NDArray[np.floating]) -> NDArray[np.floating]:
    known = np.isfinite(z)
    if known.all():
        return np.asarray(np.abs(z).max(axis=1))
    largest = np.where(known, np.abs(z), -np.inf).max(axis=1)
    return np.where(known.any(axis=1), largest, np.nan)
