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

_LEVELS = np.log1p(EXCEEDANCES)[:, None]


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
    first = np.arange(0, blocks * features, features)[:, None]  # of each block in a flat array
    order += first
    ranked = size.take(order)
    above = (size[:, None] > _LEVELS).sum(axis=-1)
    covered = np.concatenate([top_counts(known.sum(axis=-1)), above], axis=-1)
    last = np.maximum(covered - 1, 0)
    whole = np.add.accumulate(ranked, axis=-1).take(first + last)
    given = np.fmax(given, 0.0).reshape(members, blocks, WIDTH_PER_BLOCK)
    per_size = np.where((covered > 0) & (whole > 0), given / np.maximum(whole, 1e-300), 0.0)
    rank = np.empty(blocks * features, dtype=np.intp)
    rank[order] = np.arange(features)
    covers = rank.reshape(blocks, 1, features) <= last[..., None]  # which number is made of which feature
    made_of = np.where(covers, size[:, None], 0.0).reshape(-1, features)
    shares = per_size.reshape(members, -1) @ made_of
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
