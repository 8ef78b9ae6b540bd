"""The first README's config.json still works; what it cannot mean any more is said."""

from __future__ import annotations

import json

import pytest

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.config import TrainConfig, configuration_notes, load_config, parse_config

SEED = {
    "data": {"n_samples": 10000, "anomaly_rate": 0.05, "test_size": 0.2, "include_temporal": True},
    "models": {
        "isolation_forest": {"contamination": 0.05, "n_estimators": 100},
        "random_forest": {"n_estimators": 100, "max_depth": 15, "class_weight": "balanced"},
        "lstm": {"sequence_length": 10, "lstm_units": [50, 25], "epochs": 30},
    },
    "evaluation": {
        "primary_metric": "f1_score",
        "min_accuracy": 0.80,
        "min_precision": 0.75,
        "min_recall": 0.75,
    },
}


def test_the_first_config_json_is_accepted(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SEED))
    config = load_config(path)
    assert config.source.synthetic.range == 10_000 * 15
    assert config.training.fit_fraction == 0.8
    assert config.models.random_forest.class_weight == "balanced"
    assert config.models.lstm.units == (50, 25)
    assert config.evaluation.min_precision == 0.75
    assert config.limits.labelled == {"accuracy": 0.8, "precision": 0.75, "recall": 0.75}
    notes = configuration_notes(path)
    assert any("contamination: not used" in note for note in notes)
    assert len(notes) == 4


def test_alerts_set_the_budget_and_what_is_temporal_can_be_left_out():
    config = parse_config(
        {"alerts": {"false_alarms_per_node_week": 3}, "data": {"include_temporal": False}, "interval": "1m"}
    )
    assert config.budget.false_alarms_per_node_week == 3
    assert not {"lstm", "kmeans", "autoregression"} & set(config.models.enabled)


def test_a_file_of_todays_shape_has_no_notes(tmp_path):
    path = tmp_path / "trainer.yml"
    path.write_text("interval: 30s\n")
    assert configuration_notes(path) == configuration_notes(None) == ()
    assert parse_config({"data": None, "alerts": None}) == TrainConfig()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"data": {"n_sample": 1}}, "data.n_sample: unknown key; did you mean n_samples?"),
        ({"alerts": {"email": "x"}}, "alerts.email: unknown key"),
        ({"data": 3}, "data: expected a mapping of keys, got 3"),
        ({"data": {"n_samples": "many"}}, "data.n_samples: expected a number"),
        ({"data": {"test_size": 0.9}}, "training.fit_fraction: expected a value"),
        ({"data": {"test_size": 0.2}, "training": {"fit_fraction": 0.8}}, "both data.test_size and training"),
        ({"models": {"isolation_forest": {"contamination": 7}}}, "contamination: expected auto or a share"),
        ({"models": {"lstm": {"units": [1, 2], "lstm_units": [1, 2]}}}, "both units and lstm_units"),
        ({"evaluation": {"min_recal": 1}}, "evaluation.min_recal: unknown key; did you mean min_recall?"),
    ],
)
def test_a_wrong_key_of_that_shape_is_named(raw, said):
    before = json.dumps(raw)
    with pytest.raises(ConfigError) as caught:
        parse_config(raw)
    assert said in caught.value.message
    assert caught.value.hint
    assert json.dumps(raw) == before
