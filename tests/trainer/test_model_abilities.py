"""What the members can do beside scoring: search a threshold, cross-validate, explain, forecast."""

from __future__ import annotations

import numpy as np
import pytest

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_trainer.config_models import IsolationForestConfig, LstmConfig, RandomForestConfig
from node_anomaly_trainer.models import TrainingSet
from node_anomaly_trainer.models.isolation_forest import IsolationForestModel
from node_anomaly_trainer.models.lstm import LSTMModel
from node_anomaly_trainer.models.random_forest import RandomForestModel
from node_anomaly_trainer.models.summary_words import summary_words
from node_anomaly_trainer.progress import ignore_report


@pytest.fixture(scope="module")
def forest():
    rows = np.random.default_rng(0).normal(size=(3_000, 5)).astype(np.float32)
    model = IsolationForestModel(IsolationForestConfig(n_estimators=30, max_samples=256))
    model.fit(TrainingSet.of_rows(rows), 0, ignore_report)
    return model, rows


def test_a_larger_budget_finds_a_lower_threshold_and_more_contamination(forest):
    model, rows = forest
    strict, loose = (
        model.find_optimal_contamination(rows, 60.0, budget_per_week=budget) for budget in (1.0, 50.0)
    )
    assert loose.threshold < strict.threshold
    assert strict.contamination < loose.contamination < 0.2


def test_a_threshold_needs_enough_rows(forest):
    model, rows = forest
    with pytest.raises(TrainingError, match="200"):
        model.find_optimal_contamination(rows[:50], 60.0)


def test_cross_validation_never_tests_on_what_came_before():
    """Labels turn around half-way: whoever had seen the later half would do well on it."""
    rng = np.random.default_rng(1)
    labels = (rng.random(800) < 0.3).astype(np.int8)
    sign = np.where(np.arange(800) < 400, 1.0, -1.0)
    rows = (4.0 * sign * (2 * labels - 1))[:, None] + rng.normal(size=(800, 2))
    model = RandomForestModel(RandomForestConfig(n_estimators=20, min_samples_leaf=2))
    folds = model.cross_validate(rows, labels, folds=3)
    assert [fold.fitted_rows for fold in folds] == [200, 400, 600]
    assert folds[0].recall > 0.9
    assert folds[1].recall < 0.1


def test_cross_validation_without_both_kinds_says_so():
    rows, labels = np.zeros((100, 2)), np.zeros(100, np.int8)
    with pytest.raises(TrainingError, match="no fold"):
        RandomForestModel(RandomForestConfig()).cross_validate(rows, labels)


def test_importances_are_in_words_and_lead_with_what_decides():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(1_500, SUMMARY_WIDTH)).astype(np.float32)
    labels = (rng.random(1_500) < 0.3).astype(np.int8)
    rows[:, 8] += 5.0 * labels
    model = RandomForestModel(RandomForestConfig(n_estimators=30))
    model.fit(TrainingSet.of_rows(rows, labels), 0, ignore_report)
    first, *_ = model.feature_importances()
    assert first == summary_words(8) == "distance from the level of the last day, the strangest feature"
    probability = model.get_anomaly_probabilities(rows)
    assert probability[labels == 1].mean() > 0.8
    assert probability[labels == 0].mean() < 0.2


def test_every_number_of_the_summary_has_words_of_its_own():
    words = [summary_words(number) for number in range(SUMMARY_WIDTH)]
    assert len(set(words)) == SUMMARY_WIDTH


@pytest.fixture(scope="module")
def forecaster():
    wave = np.sin(np.arange(400)[:, None, None] / 5.0 + np.arange(3))
    ticks = wave + np.random.default_rng(3).normal(scale=0.05, size=wave.shape)
    model = LSTMModel(
        LstmConfig(units=(16, 8), sequence_length=20, epochs=6, batch_size=32, learning_rate=0.01)
    )
    model.fit(TrainingSet.of_ticks(ticks), 0, ignore_report)
    return model, ticks


def test_a_break_of_the_rhythm_is_found_where_it_is(forecaster):
    model, ticks = forecaster
    broken = ticks[:160].copy()
    broken[120:125] = 3.0
    found = model.detect_temporal_anomalies(broken, ticks[160:])
    worst = max(found, key=lambda one: one.peak)
    assert worst.start <= 121
    assert worst.stop >= 124
    assert worst.peak > 3 * worst.threshold
    assert len(found) < 5
    assert model.losses[-1] < model.losses[0]


def test_missing_values_surprise_nobody(forecaster):
    model, ticks = forecaster
    gaps = ticks[:100].copy()
    gaps[40:60] = np.nan
    surprise = model.surprise(gaps)
    assert np.isnan(surprise[40:60]).all()
    assert np.isnan(surprise[0]).all()
    assert np.isfinite(surprise[1:40]).all()


def test_a_forecast_rolled_out_follows_the_rhythm_better_than_the_last_value(forecaster):
    model, ticks = forecaster
    forecast = model.roll_out(ticks[:300], 10)
    assert forecast.shape == (10, 1, 3)
    truth, last = ticks[300:310], ticks[299]
    assert np.abs(forecast - truth).mean() < np.abs(last - truth).mean()
    with pytest.raises(TrainingError):
        model.roll_out(ticks[:10], 0)
