"""Which feature is behind a score: each member's shares, and all of them together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.attribution import features_behind, surprises
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.members import Models
from node_anomaly_core.reasons import Shares
from node_anomaly_core.score import Tick

_LEAST_EVIDENCE = 1e-3
"""A member without evidence has a say too: where none has any, the shares are those of the largest noise."""

Array = NDArray[np.float64]


def shares_of(models: Models, tick: Tick, forests: Collection[str], evidence: Mapping[str, float]) -> Shares:
    """Of one tick: who is behind each member's evidence, and behind all of it. Any thread.

    `forests` are those that scored.
    """
    summary, normalised = tick.residual.summary[0], tick.residual.normalised[0]
    members = member_shares(models, tick, models.credit(forests, summary, normalised))
    return Shares(combined_shares(models.manifest, evidence, members), members)


def member_shares(models: Models, tick: Tick, credit: Mapping[str, Array]) -> dict[str, Array]:
    """Shares (f,) of each member: they sum to 1, or are all 0 where it credits nothing.

    Of the forests along their decision paths and back through the summary (`credit` per summary number), of
    the forecasters by the residuals that were left, of the windows by their distance.
    """
    shares: dict[str, Array] = {}
    if credit:
        behind = features_behind(np.stack(list(credit.values())), tick.residual.scaled[0])
        shares = dict(zip(credit, behind, strict=True))
    if tick.surprise is not None and models.forecaster is not None:
        shares[models.forecaster] = surprises(tick.surprise.share[0])
    if tick.distance is not None and models.clusterer is not None:
        shares[models.clusterer] = tick.distance.share[0]
    if models.autoregression is not None:
        shares[models.autoregression] = surprises(tick.residual.unpredicted_share[0])
    if models.log_errors is not None:
        shares[models.log_errors] = tick.residual.errors_share[0]
    return shares


def combined_shares(manifest: Manifest, evidence: Mapping[str, float], shares: Mapping[str, Array]) -> Array:
    """Shares (f,) of the whole score: each member's, weighted by how much evidence it brought.

    Sums to 1, NaN when nothing stands out.
    """
    width = len(manifest.features)
    total = np.zeros(width)
    for model in manifest.models:
        if model.name in shares:
            brought = evidence[model.name]
            weight = model.weight * (max(0.0, brought if math.isfinite(brought) else 0.0) + _LEAST_EVIDENCE)
            total += weight * shares[model.name]
    whole = total.sum()
    return total / whole if whole > 0 else np.full(width, np.nan)
