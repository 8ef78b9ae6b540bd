"""The Python API: what the documentation shows runs, and importing it costs nothing."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import small_bundle
from node_anomaly_core.bundle import activate, write_bundle
from node_anomaly_core.errors import BundleError, ConfigError
from node_anomaly_trainer import ModelComparator, Pipeline
from node_anomaly_trainer.compare import Compared, recommend
from node_anomaly_trainer.config import TrainConfig, parse_config
from node_anomaly_trainer.scenarios import SCENARIOS

DOCUMENTED = ("api", "models.summary_words", "models.isolation_forest", "models.random_forest")


@pytest.mark.parametrize("module", DOCUMENTED)
def test_examples_in_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(f"node_anomaly_trainer.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_examples_of_the_page_run(repository, tmp_path, monkeypatch):
    """docs/python-api.md, with a small bundle published where it says one is."""
    made = small_bundle.build()
    activate(tmp_path / "bundles", write_bundle(tmp_path / "bundles", made.manifest, made.files).name)
    frame = pd.DataFrame(small_bundle.rows(11, 60), columns=[f.name for f in small_bundle.FEATURES])
    frame.insert(0, "node", "alpha")
    frame.insert(0, "timestamp", small_bundle.LIVE + small_bundle.INTERVAL_S * np.arange(60))
    frame.to_csv(tmp_path / "new_data.csv", index=False)
    monkeypatch.chdir(tmp_path)
    failed, attempted = doctest.testfile(
        str(repository / "docs" / "python-api.md"), module_relative=False, optionflags=doctest.ELLIPSIS
    )
    assert attempted >= 6
    assert failed == 0


def test_importing_the_package_brings_nothing_heavy():
    code = (
        "import sys, node_anomaly_trainer as t; t.Pipeline; t.ModelComparator\n"
        "assert not {'tensorflow', 'sklearn', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_pipeline_predicts_with_what_is_published_and_explains_each_row(tmp_path):
    made = small_bundle.build()
    config = {"publish": {"directory": str(tmp_path)}}
    with pytest.raises(BundleError):
        _ = Pipeline(config).bundle
    activate(tmp_path, write_bundle(tmp_path, made.manifest, made.files).name)
    values = small_bundle.rows(11, 60)
    values[-5:, 4] *= 8.0
    frame = pd.DataFrame(
        values, columns=[feature.name for feature in small_bundle.FEATURES], index=range(7, 67)
    )
    frame.insert(0, "timestamp", pd.date_range("2026-11-01", periods=60, freq="15s", tz="UTC"))
    pipeline = Pipeline(config)
    scores = pipeline.predict(frame)
    assert list(scores.columns) == ["timestamp", "score", "alarm"]
    assert list(scores.index) == list(frame.index)
    assert scores["alarm"].iloc[-1] == 1
    assert scores["alarm"].iloc[:50].sum() == 0
    reasons = pipeline.explain(frame, top=2)
    last = reasons.loc[66]
    assert last["feature"].iloc[0] == "disk_busy_ratio"
    assert (last["observed"] > last["expected"]).iloc[0]
    assert set(reasons.index) == set(scores.index[scores["score"].notna()])


def test_wrong_settings_are_refused_at_once():
    with pytest.raises(ConfigError, match="did you mean interval"):
        Pipeline({"intervall": "15s"})
    with pytest.raises(ConfigError, match="did you mean drift"):
        ModelComparator(models=["kmeans"]).compare(["drfit"])


def row(scenario, detector, recall, vus=0.5):
    return Compared(scenario, detector, recall, 1.0, vus, 0.5, 0.5, 1.0)


def test_the_best_on_average_is_recommended_and_a_baseline_never_is():
    rows = [
        row("standard", "combined", 0.6),
        row("standard", "lstm", 0.7),
        row("drift", "combined", 0.6),
        row("drift", "lstm", 0.2),
    ]
    assert recommend(rows)[0] == "combined"
    best, why = recommend([*rows, row("standard", "pca", 0.9)])
    assert best == "combined"
    assert "the baseline pca finds more (90%)" in why
    as_good = recommend([*rows, row("standard", "pca", 0.6)])[1]
    assert "baseline" not in as_good
    unmeasured = [row("drift", "combined", float("nan")), row("drift", "lstm", 0.1)]
    assert recommend([rows[0], row("standard", "lstm", 0.5), *unmeasured])[0] == "combined"
    even = [row("standard", "combined", 0.6, vus=0.4), row("standard", "lstm", 0.6, vus=0.6)]
    assert recommend(even)[0] == "lstm"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_keeps_what_values_can_be_and_the_history_it_was_given(name):
    history, config = small_bundle.history(), parse_config({"training": {"faults_per_node_day": 100}})
    before = history.values.copy()
    changed = SCENARIOS[name].change(history, config, 3)
    np.testing.assert_array_equal(history.values, before)
    again = SCENARIOS[name].change(history, config, 3)
    np.testing.assert_array_equal(changed.values, again.values)
    ratios = [at for at, feature in enumerate(history.features) if feature.unit == "ratio"]
    assert np.nanmin(changed.values) >= 0.0
    assert np.nanmax(changed.values[:, :, ratios]) <= 1.0
    assert (name == "standard") == np.array_equal(changed.values, before, equal_nan=True)


def test_faults_that_nobody_labelled_are_in_the_fitted_part_alone():
    history, config = small_bundle.history(), parse_config({"training": {"faults_per_node_day": 100}})
    changed = SCENARIOS["high_anomaly"].change(history, config, 3)
    stop = int(history.ticks * config.training.fit_fraction)
    assert (changed.values[:stop] != history.values[:stop]).any()
    np.testing.assert_array_equal(changed.values[stop:], history.values[stop:])
    np.testing.assert_array_equal(changed.labels, history.labels)


def test_where_a_node_does_not_answer_nothing_of_it_is_known():
    history = small_bundle.history()
    missing = np.isnan(SCENARIOS["gaps"].change(history, TrainConfig(), 3).values)
    np.testing.assert_array_equal(missing.any(axis=2), missing.all(axis=2))
    assert 0.05 < missing.mean() < 0.25


def test_a_drift_begins_after_the_fitted_part():
    history = small_bundle.history()
    changed = SCENARIOS["drift"].change(history, TrainConfig(), 3)
    same = (changed.values == history.values).all(axis=(1, 2))
    assert same[:370].all()
    assert not same[-100:].any()
