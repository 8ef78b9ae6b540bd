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


def features_behind(given: Array, scaled: Array) -> Array:
    """Shares (k, f), rows summing to 1 (or all 0 when nothing was credited), of credit (k, SUMMARY_WIDTH).

    `scaled` (blocks, f) are the residuals the summary was made of. Only credit that speaks for an anomaly
    counts. Every summary number covers the largest n residuals of its block for some n, so one sort serves
    all numbers of all members.
    """
    blocks, features = scaled.shape
    members = len(given)
    size = np.abs(scaled)
    known = np.isfinite(size)
    size = np.where(known, np.log1p(size), 0.0)
    order = np.argsort(-size, axis=-1)
    rows = np.arange(blocks)[:, None]
    ranked = size[rows, order]
    above = (size[:, None] > np.log1p(EXCEEDANCES)[:, None]).sum(axis=-1)
    covered = np.concatenate([top_counts(known.sum(axis=-1)), above], axis=-1)
    last = np.maximum(covered - 1, 0)
    whole = np.cumsum(ranked, axis=-1)[rows, last]
    given = np.fmax(given, 0.0).reshape(members, blocks, WIDTH_PER_BLOCK)
    per_size = np.where((covered > 0) & (whole > 0), given / np.maximum(whole, 1e-300), 0.0)
    cells = blocks * features
    place = np.arange(members)[:, None, None] * cells + rows * features + last
    at_rank = np.bincount(place.ravel(), weights=per_size.ravel(), minlength=members * cells)
    at_rank = at_rank.reshape(members, blocks, features)
    # a number reaches every rank before its last
    reaching = np.cumsum(at_rank[:, :, ::-1], axis=-1)[:, :, ::-1] * ranked
    place = np.arange(members)[:, None] * features + order.ravel()
    shares = np.bincount(place.ravel(), weights=reaching.ravel(), minlength=members * features)
    shares = shares.reshape(members, features)
    total = shares.sum(axis=-1, keepdims=True)
    return np.asarray(np.where(total > 0, shares / np.where(total > 0, total, 1.0), 0.0))


def surprises(share: Array) -> Array:
    """Shares (f,) that sum to 1 of a forecaster's surprise (f,), by its largest tenth; 0 where unknown."""
    known = np.isfinite(share)
    filled = np.where(known, share, 0.0)
    take = max(1, round(0.10 * int(known.sum())))
    cut = np.sort(filled)[-take]
    kept = np.where(filled >= cut, filled, 0.0)
    total = kept.sum()
    return kept / total if total > 0 else kept
