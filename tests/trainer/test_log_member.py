"""The member that hears errors in logs is trained where there are logs, and speaks up where they err."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.log_errors import COMPLAINTS, LEAST_SPREAD, LOG_ERRORS, complaint_columns
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer.candidate import split
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.faults import inject_faults
from node_anomaly_trainer.fitting import members_for
from node_anomaly_trainer.pipeline import build
from node_anomaly_trainer.progress import SilentProgress, ignore_report
from node_anomaly_trainer.sources import fetch

RAW = {
    "interval": "60s",
    "source": {"type": "synthetic", "synthetic": {"nodes": 2, "range": "36h"}},
    "models": {
        "enabled": ["isolation_forest", "autoregression", "log_errors"],
        "isolation_forest": {"n_estimators": 20, "max_samples": 128},
    },
    "training": {"faults_per_node_day": 30},
    "budget": {"false_alarms_per_node_week": 20},
}


@pytest.fixture(scope="module")
def fleet():
    return fetch(parse_config(RAW), ignore_report, lambda _: None)


@pytest.fixture(scope="module")
def candidate(fleet):
    return build(fleet, parse_config(RAW), SilentProgress()).candidate


def without_logs(fleet):
    values = np.array(fleet.values)
    values[:, :, list(complaint_columns(fleet.features))] = np.nan
    return replace(fleet, values=values)


def test_a_fleet_with_logs_gets_a_member_that_hears_them_without_a_file_of_its_own(candidate):
    (entry,) = (model for model in candidate.manifest.models if model.type == LOG_ERRORS)
    assert entry.file == "cohort.safetensors"
    assert entry.scale.high - entry.scale.median >= LEAST_SPREAD


def test_a_node_scores_what_the_trainer_replayed(fleet, candidate):
    """Alone and tick by tick; a fleet in one batch gave the same."""
    scorer = NodeScorer(candidate.bundle(), fleet.interval_s, fleet.nodes[0])
    said = [
        scorer.measure(float(at), row).get(LOG_ERRORS, np.nan)
        for at, row in zip(fleet.timestamps, fleet.values[:, 0], strict=True)
    ]
    known = np.isfinite(said)
    assert known.sum() > 1_000
    np.testing.assert_allclose(np.array(said)[known], candidate.clean.errors[known, 0], rtol=1e-5, atol=1e-5)


def test_twenty_times_the_errors_raise_the_member_and_are_the_reason(fleet, candidate):
    scorer = NodeScorer(candidate.bundle(), fleet.interval_s, fleet.nodes[0])
    names = [feature.name for feature in fleet.features]
    for at, row in zip(fleet.timestamps[:600], fleet.values[:600, 0], strict=True):
        calm = scorer.step(float(at), row)
    for at, row in zip(fleet.timestamps[600:606], fleet.values[600:606, 0], strict=True):
        wrong = np.array(row)
        wrong[names.index("log_errors_per_second")] += 4.0
        wrong[names.index("log_errors_ratio")] = 0.2
        said = scorer.step(float(at), wrong)
    assert said.score > 1.5 * calm.score
    assert said.model_scores[LOG_ERRORS] > 1.0
    assert names[int(np.nanargmax(said.contributions))] in COMPLAINTS
    assert set(np.flatnonzero(said.member_contributions[LOG_ERRORS])) <= {names.index(c) for c in COMPLAINTS}


def test_a_fleet_without_logs_is_trained_without_it(fleet):
    config = parse_config(RAW)
    assert members_for(split(without_logs(fleet), config), config.models.enabled) == (
        "isolation_forest",
        "autoregression",
    )


def test_alone_and_without_logs_it_is_a_mistake_that_is_named(fleet):
    config = parse_config({**RAW, "models": {"enabled": ["log_errors"]}})
    with pytest.raises(TrainingError, match="log_errors alone"):
        members_for(split(without_logs(fleet), config), config.models.enabled)


def test_faults_are_put_into_logs_too(fleet):
    _, faults = inject_faults(fleet, 200.0, 1)
    assert any(set(fault.features) & set(COMPLAINTS) for fault in faults)
