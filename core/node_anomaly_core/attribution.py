"""Why: what a member credits to the summary flows back to the features that made it.

A summary number is a mean over known features of a known block at this tick, so its credit goes to exactly those
features in proportion to their share (recipe, "Attribution through the summary"). Forests credit summary numbers along
their decision paths (Saabas, 2014); the forecaster's surprise is per feature already.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.summary import EXCEEDANCES, TOP_SHARES, WIDTH_PER_BLOCK, top_counts

Array = NDArray[np.float64]


def features_behind(credit: Array, scaled: Array) -> Array:
    """Shares (f,) that sum to 1 (or all 0 when nothing was credited) of summary credit (SUMMARY_WIDTH,).

    `scaled` (blocks, f) are the residuals the summary was made of. Only credit that speaks for an anomaly counts.
    """
    size = np.abs(scaled)
    known = np.isfinite(size)
    size = np.where(known, np.log1p(size), 0.0)
    order = np.argsort(-np.where(known, size, -1.0), axis=-1)
    tops = top_counts(known.sum(axis=-1))
    shares = np.zeros(scaled.shape[-1])
    rows = np.maximum(np.nan_to_num(credit), 0.0).reshape(len(scaled), WIDTH_PER_BLOCK)
    for block, weights in enumerate(rows):
        if not weights.any():
            continue
        for position in range(len(TOP_SHARES)):
            chosen = order[block, : tops[block, position]]
            _give(shares, chosen, size[block, chosen], weights[position])
        for position, level in enumerate(EXCEEDANCES, start=len(TOP_SHARES)):
            chosen = np.flatnonzero(size[block] > np.log1p(level))
            _give(shares, chosen, size[block, chosen], weights[position])
    total = shares.sum()
    return shares / total if total > 0 else shares


def surprises(share: Array) -> Array:
    """Shares (f,) that sum to 1 of a forecaster's surprise (f,), by its largest tenth; 0 where unknown."""
    filled = np.where(np.isfinite(share), share, 0.0)
    take = max(1, round(0.10 * int(np.isfinite(share).sum())))
    cut = np.sort(filled)[-take]
    kept = np.where(filled >= cut, filled, 0.0)
    total = kept.sum()
    return kept / total if total > 0 else kept


def _give(shares: Array, chosen: NDArray[np.intp], size: Array, weight: float) -> None:
    total = size.sum()
    if weight > 0 and total > 0:
        shares[chosen] += weight * size / total
