"""From values to what the members are fed: the running paths of a scorer, for a batch of nodes.

`ResidualPath` carries scaling, residual blocks, summary and its online normalisation; `ForecastPath` carries
the LSTM and how much it was surprised; `WindowPath` the last forty minutes and how far they are from the
nearest centroid. The agent steps them with one node, the trainer's replay with a fleet: the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import Baseline, Prior, compress, residual_scale
from node_anomaly_core.clusters import POSITIONS, NearestCentroid, Windows
from node_anomaly_core.errors import BundleError
from node_anomaly_core.features import Feature
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.residuals import BLOCKS, ResidualBlocks
from node_anomaly_core.summary import SIDES, SUMMARY_WIDTH, OnlineNormaliser, one_sided, summarise
from node_anomaly_core.windows import RunningMeans, ticks_in

FORECAST_CLIP = 5.0
"""Compressed values are clipped to this before the LSTM sees them (recipe, step 5)."""

FORECAST_MEAN_S = 60.0
FORECAST_MEAN_TICKS = 5
FORECAST_SHARE = 0.10

LEAST_POSITIONS = POSITIONS // 2
"""Of a window that something must be known of before it is judged."""

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
    components: Array  # (k, f) principal components of compressed values
    node_centre: Array  # (n, f)
    node_scale: Array  # (n, f)
    node_residual: Array  # (n, b, f)

    def node(self, index: int) -> Baseline:
        """Baseline of one of the nodes that the bundle knows by name."""
        return Baseline(self.node_centre[index], self.node_scale[index], self.node_residual[index])

    def tensors(self) -> dict[str, Array]:
        """As stored."""
        return {
            "prior_spread": self.prior.spread,
            "prior_relative": self.prior.relative,
            "prior_residual": self.prior.residual_scale,
            "summary_mean": self.summary_mean,
            "summary_scale": self.summary_scale,
            "forecast_scale": self.forecast_scale,
            "components": self.components,
            "node_centre": self.node_centre,
            "node_scale": self.node_scale,
            "node_residual": self.node_residual,
        }


def parse_cohort(tensors: Mapping[str, NDArray[np.generic]], features: int, nodes: int) -> Cohort:
    """Check names, shapes and signs of untrusted arrays. Raises BundleError("model")."""
    blocks = len(BLOCKS)
    shapes = {
        "prior_spread": (features,),
        "prior_relative": (features,),
        "prior_residual": (blocks, features),
        "summary_mean": (SUMMARY_WIDTH,),
        "summary_scale": (SUMMARY_WIDTH,),
        "forecast_scale": (features,),
        "components": (_rows(tensors.get("components")), features),
        "node_centre": (nodes, features),
        "node_scale": (nodes, features),
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
    return Cohort(
        Prior(arrays["prior_spread"], arrays["prior_relative"], arrays["prior_residual"]),
        *(arrays[name] for name in list(shapes)[3:]),
    )


def _rows(tensor: NDArray[np.generic] | None) -> int:
    return len(tensor) if tensor is not None and tensor.ndim == 2 else 0


def _refused(what: str) -> BundleError:
    return BundleError("model", f"cohort: {what}", "publish the bundle again with anomaly-trainer")


def feature_sides(features: Sequence[Feature]) -> Array:
    """1, -1 or 0 per feature (f,): which sign of a residual is anomalous."""
    return np.array([SIDES[feature.direction] for feature in features])


@dataclass(frozen=True, slots=True)
class Residual:
    """One tick on the residual path, m nodes."""

    compressed: Array  # (m, f)
    scaled: Array  # (m, b, f): one-sided residuals in units of their usual size
    summary: Array  # (m, SUMMARY_WIDTH)
    normalised: Array  # (m, SUMMARY_WIDTH)


class ResidualPath:
    """Scaling, residual blocks, summary and online normalisation."""

    def __init__(
        self, baselines: Sequence[Baseline], sides: Array, cohort: Cohort, interval_s: float
    ) -> None:
        self._centre = np.stack([baseline.centre for baseline in baselines])
        self._scale = np.stack([baseline.scale for baseline in baselines])
        self._residual_scale = np.stack([baseline.residual_scale for baseline in baselines])
        self._sides = sides
        self.blocks = ResidualBlocks(len(baselines), len(sides), interval_s, cohort.components)
        self.normaliser = OnlineNormaliser(
            len(baselines), cohort.summary_mean, cohort.summary_scale, interval_s
        )

    def step(self, values: Array, learn: NDArray[np.bool_] | None = None) -> Residual:
        """Values (m, f) in the features' units, NaN = missing.

        A node always learns; the trainer says which nodes (m,) do not, so that the many faults it puts into
        one history do not teach the node that faults are normal.
        """
        compressed = compress(values, self._centre, self._scale)
        scaled = one_sided(self.blocks.step(compressed, learn) / self._residual_scale, self._sides)
        summary = summarise(scaled)
        return Residual(compressed, scaled, summary, self.normaliser.step(summary, learn))


def measure_residuals(
    values: Array, centre: Array, scale: Array, interval_s: float, components: Array
) -> Array:
    """Usual residual size (b, f) of one node over consecutive rows (n, f); NaN where never known."""
    blocks = ResidualBlocks(1, values.shape[1], interval_s, components)
    compressed = compress(values, centre, scale)
    sizes = np.empty((len(values), len(BLOCKS), values.shape[1]), dtype=np.float32)
    for tick, row in enumerate(compressed):
        sizes[tick] = blocks.step(row[None])[0]
    return residual_scale(sizes)


@dataclass(frozen=True, slots=True)
class Surprise:
    """One tick on the forecast path, m nodes."""

    score: Array  # (m,) NaN until the forecaster has a past
    share: Array  # (m, f) log1p of the smoothed, scaled surprise per feature, NaN = unknown
    forecast: Array  # (m, f) what was expected for this tick, compressed; NaN before the first


class ForecastPath:
    """The LSTM stepped once a tick, and its smoothed surprise over the tenth that surprised most."""

    def __init__(self, lstm: StepLSTM, nodes: int, sides: Array, scale: Array, interval_s: float) -> None:
        self._lstm = lstm
        self._sides = sides
        self._scale = scale
        self._smooth = RunningMeans(
            [ticks_in(FORECAST_MEAN_S, interval_s, FORECAST_MEAN_TICKS)], (nodes, len(sides))
        )
        self._forecast = np.full((nodes, len(sides)), np.nan)

    def step(self, compressed: Array) -> Surprise:
        """Compressed values (m, f), NaN = missing (the forecaster is then fed the centre, and not judged)."""
        bounded = np.clip(compressed, -FORECAST_CLIP, FORECAST_CLIP)
        expected = self._forecast
        surprise = np.abs(one_sided(bounded - expected, self._sides)) / self._scale
        mean = self._smooth.push(surprise)[0]
        mean[np.isnan(compressed)] = np.nan
        share = np.log1p(mean)
        fed = np.where(np.isfinite(bounded), bounded, 0.0).astype(np.float32)
        self._forecast = self._lstm.step(fed).astype(np.float64)
        return Surprise(mean_of_top(share, FORECAST_SHARE), share, expected)


def mean_of_top(values: Array, share: float) -> Array:
    """Mean (m,) over the largest `share` of the known values (m, f), at least one.

    NaN where none is known.
    """
    known = np.isfinite(values)
    counts = known.sum(axis=-1)
    ordered = -np.sort(np.where(known, -values, np.inf), axis=-1)
    sums = np.cumsum(np.where(np.isfinite(ordered), ordered, 0.0), axis=-1)
    take = np.maximum(1, np.rint(share * counts)).astype(np.int64)
    means = np.take_along_axis(sums, take[:, None] - 1, axis=-1)[:, 0] / take
    return np.where(counts > 0, means, np.nan)


@dataclass(frozen=True, slots=True)
class Distance:
    """One tick on the window path, m nodes."""

    score: Array  # (m,) NaN until half a window is known, and at a tick without any value
    share: Array  # (m, f) of the squared distance; rows sum to 1, or are 0 where there is no score


class WindowPath:
    """The last forty minutes, and how far they are from the nearest centroid."""

    def __init__(self, centroids: NDArray[np.float32], nodes: int, interval_s: float) -> None:
        """`centroids` (k, POSITIONS, f), see `parse_centroids`."""
        self._windows = Windows(nodes, centroids.shape[2], interval_s)
        self._nearest = NearestCentroid(centroids)
        self.ticks = self._windows.ticks
        """Ticks after which what came before is forgotten."""
        self.least_ticks = (LEAST_POSITIONS - 1) * self._windows.step + 1
        """Ticks until the first score."""

    def step(self, compressed: Array) -> Distance:
        """Compressed values (m, f), NaN = missing; the score is log1p of the root mean square difference."""
        self._windows.push(compressed)
        squares, known = self._nearest.apart(self._windows.now())
        cells, whole = known.sum(axis=(1, 2)), squares.sum(axis=1)
        judged = (known.any(axis=2).sum(axis=1) >= LEAST_POSITIONS) & ~np.isnan(compressed).all(axis=1)
        score = np.where(judged, np.log1p(np.sqrt(whole / np.maximum(cells, 1))), np.nan)
        stands_out = judged & (whole > 0)
        share = np.where(stands_out[:, None], squares / np.where(stands_out, whole, 1.0)[:, None], 0.0)
        return Distance(score, share)
