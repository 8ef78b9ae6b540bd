"""Drift as metrics: the features that moved farthest by name, and figures over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from node_anomaly_trainer.drift import MOST_TOLD, FeatureDrift
from node_anomaly_trainer.run_metrics import gauge

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def drift_registry(drifts: Sequence[FeatureDrift], limit: float) -> CollectorRegistry:
    """The families of one comparison; at most MOST_TOLD features have series of their own."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    known = [one for one in drifts if not math.isnan(one.psi)]
    told = known[:MOST_TOLD]
    psi, ks = ({one.feature: getattr(one, name) for one in told} for name in ("psi", "ks"))
    gauge(registry, "feature_drift_psi", "Population stability index against training", "feature", psi)
    gauge(registry, "feature_drift_ks", "Kolmogorov-Smirnov distance from training", "feature", ks)
    most = {
        "feature_drift_psi_max": (
            "Largest population stability index",
            max((o.psi for o in known), default=math.nan),
        ),
        "feature_drift_ks_max": (
            "Largest Kolmogorov-Smirnov distance",
            max((o.ks for o in known), default=math.nan),
        ),
        "features_drifted": ("Features beyond the limit", float(sum(one.psi >= limit for one in known))),
        "features_compared": ("Features that could be compared", float(len(known))),
        "features_uncomparable": (
            "Features of which too little is known now",
            float(len(drifts) - len(known)),
        ),
    }
    for name, (text, value) in most.items():
        gauge(registry, name, text, "", {"": value})
    return registry
