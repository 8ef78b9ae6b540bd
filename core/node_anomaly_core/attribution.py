"""Why: what a member credits to the summary flows back to the features that made it.

A summary number is a mean over known features of a known block at this tick, so its credit goes to exactly
those features in proportion to their share (recipe, "Attribution through the summary"). Forests credit
summary numbers along their decision paths (Saabas, 2014); the forecaster's surprise is per feature already.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.summary import EXCEEDANCES, WIDTH_PER_BLOCK, top_counts

Array = NDArray[np.float64]


def features_behind(credit: Array, scaled: Array) -> Array:
    """Shares (f,) that sum to 1 (or all 0 when nothing was credited) of summary credit (SUMMARY_WIDTH,).

    `scaled` (blocks, f) are the residuals the summary was made of. Only credit that speaks for an anomaly
    counts. Every summary number covers the largest k residuals of its block for some k, so one sort serves
    all of them.
    """
    blocks, features = scaled.shape
    size = np.abs(scaled)
    known = np.isfinite(size)
    size = np.where(known, np.log1p(size), 0.0)
    order = np.argsort(-size, axis=-1)
    ranked = np.take_along_axis(size, order, axis=-1)
    covered = np.concatenate(
        [top_counts(known.sum(axis=-1)), (size[:, None] > np.log1p(EXCEEDANCES)[:, None]).sum(axis=-1)],
        axis=-1,
    )
    last = np.maximum(covered - 1, 0)
    whole = np.take_along_axis(np.cumsum(ranked, axis=-1), last, axis=-1)
    given = np.fmax(credit, 0.0).reshape(blocks, WIDTH_PER_BLOCK)
    per_size = np.where((covered > 0) & (whole > 0), given / np.maximum(whole, 1e-300), 0.0)
    at_rank = np.bincount(
        (np.arange(blocks)[:, None] * features + last).ravel(),
        weights=per_size.ravel(),
        minlength=blocks * features,
    ).reshape(blocks, features)
    reaching = np.cumsum(at_rank[:, ::-1], axis=-1)[:, ::-1]  # a number reaches every rank before its last
    shares = np.asarray(
        np.bincount(order.ravel(), weights=(reaching * ranked).ravel(), minlength=features), dtype=np.float64
    )
    total = shares.sum()
    return shares / total if total > 0 else shares


def surprises(share: Array) -> Array:
    """Shares (f,) that sum to 1 of a forecaster's surprise (f,), by its largest tenth; 0 where unknown."""
    known = np.isfinite(share)
    filled = np.where(known, share, 0.0)
    take = max(1, round(0.10 * int(known.sum())))
    cut = np.sort(filled)[-take]
    kept = np.where(filled >= cut, filled, 0.0)
    total = kept.sum()
    return kept / total if total > 0 else kept
