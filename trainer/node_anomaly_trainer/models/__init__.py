"""The members of the score, one file each.

To add one: write `models/<name>.py` with a class that satisfies `Model`, give it a settings class in
`config.py`, and add one row to MODELS. If core cannot score its export yet, core needs a loader for
its `type` too. Then tests/contract/test_models.py must pass for it, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from node_anomaly_trainer.config_models import ModelsConfig
from node_anomaly_trainer.models.interface import Model, Report, TrainingSet
from node_anomaly_trainer.models.isolation_forest import IsolationForestModel
from node_anomaly_trainer.models.kmeans import KMeansModel
from node_anomaly_trainer.models.lstm import LSTMModel
from node_anomaly_trainer.models.random_forest import RandomForestModel

MODELS: Mapping[str, Callable[[ModelsConfig], Model]] = {
    "isolation_forest": lambda config: IsolationForestModel(config.isolation_forest),
    "isolation_forest_absolute": lambda config: IsolationForestModel(
        config.isolation_forest, "isolation_forest_absolute", "summary"
    ),
    "random_forest": lambda config: RandomForestModel(config.random_forest),
    "lstm": lambda config: LSTMModel(config.lstm),
    "kmeans": lambda config: KMeansModel(config.kmeans),
}

__all__ = ["MODELS", "Model", "Report", "TrainingSet"]
