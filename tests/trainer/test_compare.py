"""The members beside each other and beside the baselines, under two scenarios, on a small history."""

from __future__ import annotations

import math

import numpy as np
import pytest

import small_bundle
from node_anomaly_trainer import ModelComparator
from node_anomaly_trainer.dataset import History

TICKS = 1_400


def noise():
    values = np.stack([small_bundle.rows(seed, TICKS) for seed in (1, 2)], axis=1)
    return History(
        features=small_bundle.FEATURES,
        interval_s=60.0,
        nodes=("a", "b"),
        timestamps=1_790_000_040.0 + 60.0 * np.arange(TICKS),
        values=values,
        labels=np.zeros(values.shape[:2], dtype=np.int8),
        origin={"source": "test"},
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    config = {
        "interval": "60s",
        "models": {
            "isolation_forest": {"n_estimators": 20, "max_samples": 128},
            "random_forest": {"n_estimators": 20},
        },
        "training": {"faults_per_node_day": 100},
        "publish": {"directory": str(tmp_path_factory.mktemp("nothing"))},
    }
    comparator = ModelComparator(config, models=["isolation_forest", "random_forest"])
    return comparator.compare(["standard", "noisy"], history=noise())


def test_every_detector_has_a_row_under_every_scenario(found):
    detectors = {"combined", "isolation_forest", "random_forest", "pca", "plain_kmeans"}
    for scenario in ("standard", "noisy"):
        rows = [row for row in found.rows if row.scenario == scenario]
        assert {row.detector for row in rows} == detectors
        assert found.faults[scenario] >= 3
        assert all(0.0 <= row.recall <= 1.0 and 0.0 < row.vus_pr <= 1.0 for row in rows)
        assert all(0.0 <= row.auc_roc <= 1.0 for row in rows)
        # thresholds are set for equal false alarms, so realised ones are of one size
        alarms = [row.false_alarms for row in rows]
        assert max(alarms) - min(alarms) < 30, "a few alarms in a seventh of a node-week"


def test_only_what_a_node_can_run_has_a_cost_and_is_recommended(found):
    for row in found.rows:
        assert math.isnan(row.tick_ms) == (row.detector in ("pca", "plain_kmeans"))
    assert found.recommended in ("combined", "isolation_forest", "random_forest")
    assert found.why


def test_our_score_ranks_better_than_chance(found):
    combined = next(row for row in found.rows if (row.scenario, row.detector) == ("standard", "combined"))
    assert combined.auc_roc > 0.6
