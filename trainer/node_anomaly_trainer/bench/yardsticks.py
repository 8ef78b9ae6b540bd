"""Two detectors that nobody should lose to, exactly as an outside evaluator computes them."""

from __future__ import annotations

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
    return np.asarray((rows - mean(train, axis=0)) / (deviation(train, axis=0) + _SPREAD_FLOOR))


def largest_z(train: NDArray[np.floating], test: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far the furthest feature is off, (n,), as a share of what train (t, f) exceeds once in 10,000."""
    usual, now = (_largest(standardised(train, rows)) for rows in (train, test))
    with np.errstate(divide="ignore", invalid="ignore"):  # a train part that never moved exceeds nothing
        return np.asarray(now / np.nanquantile(usual, _ALARM_QUANTILE))


def _largest(z: NDArray[np.floating]) -> NDArray[np.floating]:
    known = np.isfinite(z)
    if known.all():
        return np.asarray(np.abs(z).max(axis=1))
    largest = np.where(known, np.abs(z), -np.inf).max(axis=1)
    return np.where(known.any(axis=1), largest, np.nan)
