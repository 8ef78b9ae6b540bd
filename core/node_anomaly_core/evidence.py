"""From values to what the members are fed: the running paths of a scorer, for a batch of nodes.

`ResidualPath` carries scaling, residual blocks, summary and its online normalisation; `ForecastPath` carries
the LSTM and how much it was surprised; `WindowPath` the last forty minutes and how far they are from the
nearest centroid. The agent steps them with one node, the trainer's replay with a fleet: the same lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import Baseline, compress, residual_centre, residual_scale
from node_anomaly_core.clusters import POSITIONS, NearestCentroid, Windows
from node_anomaly_core.cohort import Cohort
from node_anomaly_core.features import Feature
from node_anomaly_core.log_errors import SustainedErrors
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.relations import Relations
from node_anomaly_core.residuals import BLOCKS, CENTRED, UNPREDICTED, ResidualBlocks, one_sided
from node_anomaly_core.summary import SIDES, OnlineNormaliser, summarise
from node_anomaly_core.windows import RunningMeans, ticks_in

FORECAST_CLIP = 5.0
"""Compressed values are clipped to this before the LSTM sees them (recipe, step 5)."""

SURPRISE_MEAN_S = 60.0
SURPRISE_MEAN_TICKS = 5
SURPRISE_SHARE = 0.20

LEAST_POSITIONS = POSITIONS // 2
"""Of a window that something must be known of before it is judged."""

Array = NDArray[np.float64]


def feature_sides(features: Sequence[Feature]) -> Array:
    """1, -1 or 0 per feature (f,): which sign of a residual is anomalous."""
    return np.array([SIDES[feature.direction] for feature in features])


class Residual(NamedTuple):
    """One tick on the residual path, m nodes."""

    compressed: Array  # (m, f)
    scaled: Array  # (m, b, f): one-sided residuals in units of their usual size
    unpredicted: Array  # (m,) how much the autoregression was surprised
    unpredicted_share: Array  # (m, f) the same per feature, NaN = unknown
    errors: Array  # (m,) what the logs complain of; NaN where they are not known
    errors_share: Array  # (m, f)
    summary: Array  # (m, SUMMARY_WIDTH)
    normalised: Array  # (m, SUMMARY_WIDTH)


class ResidualPath:
    """Scaling, residual blocks, summary and online normalisation."""

    def __init__(
        self,
        baselines: Sequence[Baseline],
        sides: Array,
        cohort: Cohort,
        interval_s: float,
        complaints: Sequence[int] = (),
    ) -> None:
        """Start without a past; `complaints` are the columns that `SustainedErrors` hears."""
        self._centre = np.stack([baseline.centre for baseline in baselines])
        self._scale = np.stack([baseline.scale for baseline in baselines])
        self._residual_centre = np.stack([baseline.residual_centre for baseline in baselines])
        self._residual_scale = np.stack([baseline.residual_scale for baseline in baselines])
        self.blocks = ResidualBlocks(len(baselines), sides, interval_s, cohort.relations)
        self.normaliser = OnlineNormaliser(
            len(baselines), cohort.summary_mean, cohort.summary_scale, interval_s
        )
        self._unpredicted = SmoothedSurprise(len(baselines), len(sides), interval_s)
        self._errors = SustainedErrors(len(baselines), complaints, len(sides), interval_s)

    def step(self, values: Array, learn: NDArray[np.bool_] | None = None) -> Residual:
        """Values (m, f) in the features' units, NaN = missing.

        A node always learns; the trainer says which nodes (m,) do not, so that the many faults it puts into
        one history do not teach the node that faults are normal.
        """
        compressed, scaled = self._scaled(values, learn)
        summary = summarise(scaled)
        score, share = self._unpredicted.step(np.abs(scaled[:, UNPREDICTED]))
        errors = self._errors.step(scaled)
        normalised = self.normaliser.step(summary, learn)
        return Residual(compressed, scaled, score, share, *errors, summary, normalised)

    def relive(self, values: Array, *, normaliser: bool) -> Array:
        """`step` for its traces alone, at half the cost; values as the members see them, compressed (m, f).

        The `normaliser` need not take part if it is told afterwards what it has learnt.
        """
        compressed, scaled = self._scaled(values, None)
        self._unpredicted.push(np.abs(scaled[:, UNPREDICTED]))
        self._errors.push(scaled)
        if normaliser:
            self.normaliser.step(summarise(scaled))
        return compressed

    def _scaled(self, values: Array, learn: NDArray[np.bool_] | None) -> tuple[Array, Array]:
        compressed = compress(values, self._centre, self._scale)
        residuals = self.blocks.step(compressed, learn)
        return compressed, (residuals - self._residual_centre) / self._residual_scale


def measure_residuals(
    values: Array,
    baseline: tuple[Array, Array],
    sides: Array,
    interval_s: float,
    relations: Relations,
    most_rows: int,
) -> list[tuple[Array, Array]]:
    """Usual residual and its usual size (b, f) of each of m nodes over consecutive rows (n, m, f).

    `baseline` is centre and scale (m, f). At most `most_rows` ticks, evenly spread, are kept to measure on:
    the agent's memory has no room for more. NaN where never known.
    """
    ticks, nodes, features = values.shape
    blocks = ResidualBlocks(nodes, sides, interval_s, relations)
    every = max(1, -(-ticks // most_rows))
    residuals = np.empty((nodes, -(-ticks // every), len(BLOCKS), features), dtype=np.float32)
    for tick, row in enumerate(values):
        found = blocks.step(compress(row, *baseline))
        if tick % every == 0:
            residuals[:, tick // every] = found
    measured = []
    for own in residuals:
        usual = residual_centre(own, CENTRED)
        np.subtract(own, np.where(np.isnan(usual), 0.0, usual).astype(np.float32), out=own)
        measured.append((usual, residual_scale(own)))
    return measured


class Surprise(NamedTuple):
    """One tick on the forecast path, m nodes."""

    score: Array  # (m,) NaN until the forecaster has a past
    share: Array  # (m, f) log1p of the smoothed, scaled surprise per feature, NaN = unknown
    forecast: Array  # (m, f) what was expected for this tick, compressed; NaN before the first


class ForecastPath:
    """The LSTM stepped once a tick, and its smoothed surprise over the fifth that surprised most."""

    def __init__(self, lstm: StepLSTM, nodes: int, sides: Array, scale: Array, interval_s: float) -> None:
        self._lstm = lstm
        self._sides = sides
        self._scale = scale
        self._smoothed = SmoothedSurprise(nodes, len(sides), interval_s)
        self._forecast = np.full((nodes, len(sides)), np.nan)

    def step(self, compressed: Array) -> Surprise:
        """Compressed values (m, f), NaN = missing (the forecaster is then fed the centre, and not judged)."""
        expected = self._forecast
        score, share = self._smoothed.step(self._surprise(compressed))
        return Surprise(score, share, expected)

    def relive(self, compressed: Array) -> Array:
        """`step` for its traces alone; the smoothed errors (m, f)."""
        return self._smoothed.push(self._surprise(compressed))

    def _surprise(self, compressed: Array) -> Array:
        """How far off the last forecast is (m, f); makes the next one."""
        bounded = np.minimum(np.maximum(compressed, -FORECAST_CLIP), FORECAST_CLIP)
        surprise = np.abs(one_sided(bounded - self._forecast, self._sides)) / self._scale
        missing = np.isnan(compressed)
        fed = np.where(missing, 0.0, bounded).astype(np.float32)
        self._forecast = self._lstm.step(fed).astype(np.float64)
        return np.where(missing, np.nan, surprise)


class SmoothedSurprise:
    """How much a forecast missed, over a minute (or five ticks), by the fifth that surprised most."""

    def __init__(self, nodes: int, features: int, interval_s: float) -> None:
        self._means = RunningMeans(
            [ticks_in(SURPRISE_MEAN_S, interval_s, SURPRISE_MEAN_TICKS)], (nodes, features)
        )

    def step(self, surprise: Array) -> tuple[Array, Array]:
        """Score (m,) and share (m, f) of scaled absolute errors (m, f); NaN where unknown at this tick."""
        mean = self.push(surprise)
        share = np.log1p(np.where(np.isnan(surprise), np.nan, mean))
        return mean_of_top(share, SURPRISE_SHARE), share

    def push(self, surprise: Array) -> Array:
        """Take in the errors of one tick (m, f); their means (m, f)."""
        means: Array = self._means.push(surprise)[0]
        return means


def mean_of_top(values: Array, share: float) -> Array:
    """Mean (m,) over the largest `share` of the known values (m, f), at least one.

    NaN where none is known.
    """
    known = np.isfinite(values)
    counts = np.add.reduce(known, axis=-1)
    ordered = np.where(known, -values, np.inf)
    ordered.sort(axis=-1)  # largest first, unknown last and never reached
    take = np.maximum(1, np.rint(share * counts)).astype(np.int64)
    means = np.add.accumulate(ordered, axis=-1)[np.arange(len(values)), take - 1] / -take
    return np.where(counts > 0, means, np.nan)


class Distance(NamedTuple):
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
        self.relive(compressed)
        nearest = self._nearest
        squares, _ = nearest.apart(self._windows.now())
        cells, whole = nearest.cells, np.add.reduce(squares, axis=1)
        nothing = np.logical_and.reduce(np.isnan(compressed), axis=1)
        judged = (nearest.positions >= LEAST_POSITIONS) & ~nothing
        score = np.where(judged, np.log1p(np.sqrt(whole / np.maximum(cells, 1))), np.nan)
        stands_out = judged & (whole > 0)
        share = np.where(stands_out[:, None], squares / np.where(stands_out, whole, 1.0)[:, None], 0.0)
        return Distance(score, share)

    def relive(self, compressed: Array) -> None:
        """`step` for its traces alone."""
        self._windows.push(compressed)
