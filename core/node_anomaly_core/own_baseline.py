"""A node's baseline as its own memory has it: of all features, or of those that came after the others.

A new node is learnt from its thinned life. A feature that came late has few of those rows, and none of the
time before it: it is learnt from the recent rows for as long as they hold most of what it has shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import Baseline, Prior, fit_level, lean, lean_centre
from node_anomaly_core.cohort import Cohort
from node_anomaly_core.evidence import feature_sides, measure_residuals
from node_anomaly_core.features import Feature
from node_anomaly_core.node_memory import NodeMemory

_MEASURED_ROWS = 480
_LEAST_ROWS = 20  # of the thinned life to learn a feature's level from

Array = NDArray[np.float64]


class OwnBaselines:
    """Fits baselines of one node with f features to what it has shown, leaning on the cohort."""

    def __init__(self, cohort: Cohort, features: Sequence[Feature], interval_s: float) -> None:
        self._cohort, self._interval_s = cohort, interval_s
        self._floor = np.array([feature.floor for feature in features])
        self._sides = feature_sides(features)

    def whole(self, memory: NodeMemory) -> Baseline:
        """Of all features, NaN centre for what the memory does not have; it holds at least one row."""
        return self._with_residuals(memory, self._level(memory, memory.came_late))

    def with_late(self, kept: Baseline, late: NDArray[np.bool_], memory: NodeMemory) -> Baseline:
        """Of the `late` features (f,) anew, of all others as `kept` has it, to the bit."""
        centre, scale = self._level(memory, late)
        level = np.where(late, centre, kept.centre), np.where(late, scale, kept.scale)
        fitted = self._with_residuals(memory, level)
        return Baseline(
            *level,
            np.where(late, fitted.residual_centre, kept.residual_centre),
            np.where(late, fitted.residual_scale, kept.residual_scale),
        )

    def _level(self, memory: NodeMemory, late: NDArray[np.bool_]) -> tuple[Array, Array]:
        """Centre and scale (f,), of the `late` features (f,) as far back as they go."""
        life = memory.thinned_rows()
        centre, scale = fit_level(life, self._floor, self._cohort.prior)
        if not late.any():
            return centre, scale
        recent = memory.recent_rows()
        in_life, in_recent = (np.isfinite(rows).sum(axis=0) for rows in (life, recent))
        by_life = (2 * in_recent < memory.observed) & (in_life >= np.minimum(in_recent, _LEAST_ROWS))
        # A row of the thinned life stands for many: what counts is how many the feature has shown.
        brought = np.where(by_life, memory.observed, in_recent)
        prior = _experienced(self._cohort)
        of_life, of_recent = (fit_level(rows, self._floor, prior, brought) for rows in (life, recent))
        late_centre, late_scale = (np.where(by_life, *pair) for pair in zip(of_life, of_recent, strict=True))
        return np.where(late, late_centre, centre), np.where(late, late_scale, scale)

    def _with_residuals(self, memory: NodeMemory, level: tuple[Array, Array]) -> Baseline:
        """With the usual residuals, measured on the recent rows."""
        centre, scale = level
        recent, prior = memory.recent_rows(), self._cohort.prior
        (measured,) = measure_residuals(
            recent[:, None],
            (centre[None], scale[None]),
            self._sides,
            self._interval_s,
            self._cohort.relations,
            _MEASURED_ROWS,
        )
        usual, size = measured
        brought = np.isfinite(recent).sum(axis=0)
        usual = lean_centre(usual, prior.residual_centre, brought)
        return Baseline(centre, scale, usual, lean(size, prior.residual_scale, brought))


def _experienced(cohort: Cohort) -> Prior:
    """The cohort's, without a scale (NaN) for what none of its nodes ever had.

    The floor that stands there is nobody's experience: a node that leans on it takes what it does for odd.
    """
    if not len(cohort.node_centre):  # the bundle says nothing of its nodes, but they were there
        return cohort.prior
    had = np.isfinite(cohort.node_centre).any(axis=0)
    return replace(cohort.prior, spread=np.where(had, cohort.prior.spread, np.nan))
