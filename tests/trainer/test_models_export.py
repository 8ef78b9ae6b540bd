"""Exported forests score as scikit-learn does, to the last bits, on the rows where it is easy to be wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.forest import Forest, log_odds
from node_anomaly_core.tensors import read_tensors, write_tensors
from node_anomaly_trainer.export import export_forest, round_down

FEATURES = 10


def history(seed: int, missing: float = 0.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(1500, FEATURES)).astype(np.float32)
    rows[:, 3] = np.round(rows[:, 3])  # ties
    rows[:, 4] = 1.0  # constant
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows


def hard_rows(estimator: IsolationForest | RandomForestClassifier, seed: int) -> NDArray[np.float64]:
    """Rows with missing values, and with float64 values on and just beside the trees' own thresholds."""
    rng = np.random.default_rng(seed)
    rows = 1.5 * rng.normal(size=(2000, FEATURES))
    thresholds = np.concatenate([tree.tree_.threshold for tree in estimator.estimators_])
    thresholds = thresholds[np.isfinite(thresholds)]
    planted = rng.random(rows.shape) < 0.3
    chosen = rng.choice(thresholds, int(planted.sum()))
    rows[planted] = np.nextafter(chosen, rng.choice([-np.inf, np.inf, 0.0], chosen.size))
    exactly = rng.random(rows.shape) < 0.3
    rows[exactly] = rng.choice(thresholds, int(exactly.sum()))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[0] = np.nan
    return rows


@pytest.mark.parametrize("missing", [0.0, 0.1], ids=["complete", "gaps"])
@pytest.mark.parametrize("max_features", [0.5, 1.0], ids=["half the columns", "all columns"])
@pytest.mark.parametrize("max_samples", [2, 64, 1500], ids=["2", "64", "all"])
def test_isolation_forest(missing: float, max_features: float, max_samples: int) -> None:
    """Trees on column subsets, tiny samples and gaps in training make no difference."""
    fitted = IsolationForest(
        n_estimators=30, max_samples=max_samples, max_features=max_features, random_state=1
    ).fit(history(0, missing))
    rows = hard_rows(fitted, 2)
    tensors = read_tensors(write_tensors(export_forest(fitted)))
    forest = Forest.from_tensors(tensors, "isolation_forest", FEATURES)
    np.testing.assert_allclose(forest.score(rows), -fitted.score_samples(rows), rtol=0, atol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.1], ids=["complete", "gaps"])
@pytest.mark.parametrize("depth", [1, 10, None], ids=["stumps", "10", "unbounded"])
@pytest.mark.parametrize("weight", [None, "balanced_subsample"])
def test_random_forest(missing: float, depth: int | None, weight: str | None) -> None:
    """Depth, class weights and gaps in training make no difference."""
    rows = history(0, missing)
    labels = (np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1]) > 1.5).astype(int)
    fitted = RandomForestClassifier(
        n_estimators=30, max_depth=depth, class_weight=weight, random_state=1, n_jobs=1
    ).fit(rows, labels)
    trial = hard_rows(fitted, 2)
    tensors = read_tensors(write_tensors(export_forest(fitted)))
    scores = Forest.from_tensors(tensors, "random_forest", FEATURES).score(trial)
    np.testing.assert_allclose(scores, log_odds(fitted.predict_proba(trial)[:, 1]), rtol=0, atol=1e-12)


def test_trees_of_a_single_leaf() -> None:
    """A history without any variation gives trees that are all root, and they load and score."""
    fitted = IsolationForest(n_estimators=5, random_state=0).fit(np.ones((20, FEATURES)))
    forest = Forest.from_tensors(export_forest(fitted), "isolation_forest", FEATURES)
    assert forest.depth == 0
    rows = np.random.default_rng(0).normal(size=(4, FEATURES))
    np.testing.assert_allclose(forest.score(rows), -fitted.score_samples(rows), rtol=0, atol=1e-12)


def test_labels_of_one_class_cannot_be_exported() -> None:
    """A classifier that has seen one class only has no P(anomalous)."""
    fitted = RandomForestClassifier(n_estimators=3, random_state=0).fit(history(0), np.zeros(1500, dtype=int))
    with pytest.raises(TrainingError, match="both 0 and 1") as caught:
        export_forest(fitted)
    assert caught.value.hint


def test_an_isolation_forest_of_single_rows_cannot_be_exported() -> None:
    """One row per tree isolates nothing, and its score would divide by zero."""
    fitted = IsolationForest(n_estimators=3, max_samples=1, random_state=0).fit(history(0))
    with pytest.raises(TrainingError, match="isolates nothing"):
        export_forest(fitted)


@settings(max_examples=200, deadline=None)
@given(
    thresholds=hnp.arrays(np.float64, 5, elements=st.floats(-1e38, 1e38)),
    values=hnp.arrays(np.float32, 5, elements=st.floats(-(2.0**120), 2.0**120, width=32)),
)
def test_a_threshold_rounded_downward_decides_as_before(
    thresholds: NDArray[np.float64], values: NDArray[np.float32]
) -> None:
    """For any float32 x, x <= threshold is the same before and after, beside the threshold too."""
    rounded = round_down(thresholds)
    near = thresholds.astype(np.float32)
    candidates = [
        values,
        near,
        np.nextafter(near, np.float32(np.inf)),
        np.nextafter(near, np.float32(-np.inf)),
    ]
    for x in candidates:
        np.testing.assert_array_equal(x <= rounded, x.astype(np.float64) <= thresholds)
