"""What the fleet in training was like: everything a node needs beside the members, as plain arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import Baseline, Prior
from node_anomaly_core.errors import BundleError
from node_anomaly_core.relations import Relations, past_width
from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.summary import SUMMARY_WIDTH

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cohort:
    """What the fleet in training was like.

    The arrays of `cohort.safetensors`, shapes f features, b blocks, n nodes.
    """

    prior: Prior
    summary_mean: Array  # (SUMMARY_WIDTH,)
    summary_scale: Array  # (SUMMARY_WIDTH,)
    forecast_scale: Array  # (f,)
    relations: Relations
    node_centre: Array  # (n, f)
    node_scale: Array  # (n, f)
    node_residual_centre: Array  # (n, b, f)
    node_residual: Array  # (n, b, f)

    def node(self, index: int) -> Baseline:
        """Baseline of one of the nodes that the bundle knows by name."""
        return Baseline(
            self.node_centre[index],
            self.node_scale[index],
            self.node_residual_centre[index],
            self.node_residual[index],
        )

    def tensors(self) -> dict[str, Array]:
        """As stored."""
        return {
            "prior_spread": self.prior.spread,
            "prior_relative": self.prior.relative,
            "prior_residual_centre": self.prior.residual_centre,
            "prior_residual": self.prior.residual_scale,
            "summary_mean": self.summary_mean,
            "summary_scale": self.summary_scale,
            "forecast_scale": self.forecast_scale,
            "components": self.relations.components,
            "partial": self.relations.partial,
            "autoregression": self.relations.autoregression,
            "node_centre": self.node_centre,
            "node_scale": self.node_scale,
            "node_residual_centre": self.node_residual_centre,
            "node_residual": self.node_residual,
        }


def parse_cohort(tensors: Mapping[str, NDArray[np.generic]], features: int, nodes: int) -> Cohort:
    """Check names, shapes and signs of untrusted arrays. Raises BundleError("model")."""
    blocks = len(BLOCKS)
    shapes = {
        "prior_spread": (features,),
        "prior_relative": (features,),
        "prior_residual_centre": (blocks, features),
        "prior_residual": (blocks, features),
        "summary_mean": (SUMMARY_WIDTH,),
        "summary_scale": (SUMMARY_WIDTH,),
        "forecast_scale": (features,),
        "components": (_rows(tensors.get("components")), features),
        "partial": (features, features),
        "autoregression": (past_width(features), features),
        "node_centre": (nodes, features),
        "node_scale": (nodes, features),
        "node_residual_centre": (nodes, blocks, features),
        "node_residual": (nodes, blocks, features),
    }
    if set(tensors) != set(shapes):
        raise _refused(f"arrays {sorted(tensors)}, expected {sorted(shapes)}")
    arrays = {name: np.array(tensors[name], dtype=np.float64) for name in shapes}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise _refused(f"{name} has shape {arrays[name].shape}, expected {shape}")
        known = ~np.isinf(arrays[name]) if name == "node_centre" else np.isfinite(arrays[name])
        if not known.all():  # only a centre may be unknown: NaN where a node never had the feature
            raise _refused(f"{name} holds a value that is not finite")
    for name in ("prior_spread", "prior_relative"):
        if (arrays[name] < 0).any():
            raise _refused(f"{name} holds a spread below 0")
    directions = arrays["components"]
    if len(directions) > features or not np.allclose(
        directions @ directions.T, np.eye(len(directions)), atol=1e-4
    ):
        raise _refused("components are not orthonormal")
    for name in ("prior_residual", "summary_scale", "forecast_scale", "node_scale", "node_residual"):
        if not (arrays[name] > 0).all():
            raise _refused(f"{name} holds a scale that is not above 0")
    prior = Prior(
        arrays["prior_spread"],
        arrays["prior_relative"],
        arrays["prior_residual_centre"],
        arrays["prior_residual"],
    )
    return Cohort(
        prior=prior,
        summary_mean=arrays["summary_mean"],
        summary_scale=arrays["summary_scale"],
        forecast_scale=arrays["forecast_scale"],
        relations=Relations(arrays["components"], arrays["partial"], arrays["autoregression"]),
        node_centre=arrays["node_centre"],
        node_scale=arrays["node_scale"],
        node_residual_centre=arrays["node_residual_centre"],
        node_residual=arrays["node_residual"],
    )


def _rows(tensor: NDArray[np.generic] | None) -> int:
    return len(tensor) if tensor is not None and tensor.ndim == 2 else 0


def _refused(what: str) -> BundleError:
    return BundleError("model", f"cohort: {what}", "publish the bundle again with anomaly-trainer")
