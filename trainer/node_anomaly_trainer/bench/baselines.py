"""Three detectors that anybody could run, beside our score: fitted, calibrated and counted like it.

Each is fitted on the part of `train` that we fit on and gets its threshold on the part that we calibrate on,
for the same budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import compress, fit_level
from node_anomaly_core.calibration import FEWEST_TICKS, fit_tail
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import rolling_scores
from node_anomaly_trainer.bench.plan import FLOOR, WINDOWS_PER_CENTROID
from node_anomaly_trainer.bench.yardsticks import standardised
from node_anomaly_trainer.models.baselines import Baseline, PCABaseline, WindowedKMeans

MOST_ROWS = 20_000  # the latest of the fitted part; as many as the gate gives them
TREES = 100
CENTROIDS, WINDOW_TICKS = 30, 40

Array = NDArray[np.float64]
Detector = Callable[[Array, Array, int], Array]
"""`detector(fitted, later, seed)`: evidence (n,) of later rows (n, f), NaN = unknown; fitted on (k, f)."""


def baseline_scores(
    detector: Detector, train: Array, test: Array, fit_ticks: int, interval_s: float, budget: float, seed: int
) -> Array:
    """Scores (t,) of `test` (t, f), 1.0 = alarm, of a detector fitted on the first `fit_ticks` of `train`.

    `budget` is false alarms per node-week. Raises TrainingError if there is too little to learn from.
    """
    later = np.concatenate([train[fit_ticks:], test])
    evidence = detector(train[:fit_ticks][-MOST_ROWS:], later, seed)
    calibration = len(train) - fit_ticks
    return alarm_scores(evidence[:calibration], evidence[calibration:], interval_s, budget)


def alarm_scores(calibration: Array, test: Array, interval_s: float, budget_per_week: float) -> Array:
    """Scores (t,), 1.0 = alarm, from evidence on the calibration part (c,) and on the test that follows (t,).

    The one place where a baseline gets its threshold; peaks held as ours. Raises
    TrainingError if there is too little evidence: less than a tail can be made of, which may be less than we
    ask for ourselves.
    """
    try:
        tail = fit_tail([peak_held(calibration)], interval_s, budget_per_week, FEWEST_TICKS)
    except ValueError as error:
        raise TrainingError(str(error), "give it a longer train part") from error
    evidence = peak_held(np.concatenate([calibration, test]))
    return rolling_scores(tail, evidence, budget_per_week, interval_s)[len(calibration) :]


def pca(fitted: Array, later: Array, seed: int) -> Array:
    """What is left outside the components that hold 90 % of the variance."""
    return _compressed(PCABaseline(), fitted, later, seed)


def kmeans(fitted: Array, later: Array, seed: int) -> Array:
    """Distance of the last 40 ticks to the nearest of 30 centroids, or of fewer for fewer windows.

    The first windows reach back into what it was fitted on, as ours do.
    """
    centroids = min(CENTROIDS, max(1, (len(fitted) - WINDOW_TICKS + 1) // WINDOWS_PER_CENTROID))
    back = min(len(fitted), WINDOW_TICKS - 1)
    later = np.concatenate([fitted[len(fitted) - back :], later])
    return _compressed(WindowedKMeans(centroids, WINDOW_TICKS), fitted, later, seed)[back:]


def isolation_forest(fitted: Array, later: Array, seed: int) -> Array:
    """scikit-learn's forest on z-scores as it comes; a missing value counts as the mean."""
    from sklearn.ensemble import IsolationForest

    known = np.isfinite(later).any(axis=1)
    if not np.isfinite(fitted).any():
        raise TrainingError("isolation forest: no value to fit on", "give it a longer train part")
    rows = np.nan_to_num(standardised(fitted, fitted), posinf=0.0, neginf=0.0)
    forest = IsolationForest(n_estimators=TREES, random_state=seed).fit(rows)
    z = np.nan_to_num(standardised(fitted, later), posinf=0.0, neginf=0.0)
    return np.where(known, -forest.score_samples(z), np.nan)


DETECTORS: Mapping[str, Detector] = {"pca": pca, "kmeans": kmeans, "isolation_forest": isolation_forest}


def _compressed(baseline: Baseline, fitted: Array, later: Array, seed: int) -> Array:
    """On values scaled and compressed as ours are, one node."""
    centre, scale = fit_level(fitted, np.full(fitted.shape[1], FLOOR), None)
    early, late = (compress(rows, centre, scale).astype(np.float32)[:, None] for rows in (fitted, later))
    baseline.fit(early, np.isfinite(early), seed)
    return baseline.score(late, np.isfinite(late))[:, 0]
