"""The settings of the members of the score."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from node_anomaly_core.clusters import MAX_CENTROIDS
from node_anomaly_trainer.settings import Bounds, Choice, InvalidValueError

Positive = Annotated[int, Bounds(1)]

MEMBERS = (
    "isolation_forest",
    "isolation_forest_absolute",
    "random_forest",
    "lstm",
    "kmeans",
    "autoregression",
    "log_errors",
)


@dataclass(frozen=True, slots=True)
class IsolationForestConfig:
    """Arguments of scikit-learn's IsolationForest."""

    n_estimators: Annotated[int, Bounds(1, 500)] = 100
    max_samples: Annotated[int, Bounds(2)] = 2048
    max_features: Annotated[float, Bounds(0.01, 1.0)] = 0.5


@dataclass(frozen=True, slots=True)
class RandomForestConfig:
    """Arguments of scikit-learn's RandomForestClassifier.

    Where real incidents teach it alone, it is another forest, and only `class_weight` counts (docs/adr/0030).
    """

    n_estimators: Annotated[int, Bounds(1, 500)] = 100
    max_depth: Annotated[int, Bounds(1, 30)] = 10
    min_samples_leaf: Positive = 10
    class_weight: Annotated[str, Choice("balanced", "balanced_subsample")] = "balanced_subsample"


@dataclass(frozen=True, slots=True)
class LstmConfig:
    """Shape and training of the forecaster."""

    units: tuple[Annotated[int, Bounds(1, 512)], ...] = (50, 25)
    sequence_length: Annotated[int, Bounds(2, 2000)] = 60
    epochs: Annotated[int, Bounds(1, 1000)] = 20
    batch_size: Positive = 64
    learning_rate: Annotated[float, Bounds(1e-6, 1.0)] = 3e-3

    def __post_init__(self) -> None:
        if len(self.units) != 2:
            raise InvalidValueError(f"units: expected two sizes such as [50, 25], got {list(self.units)}")


@dataclass(frozen=True, slots=True)
class KMeansConfig:
    """Centroids of windows of forty minutes."""

    centroids: Annotated[int, Bounds(1, MAX_CENTROIDS)] = 30
    max_windows: Positive = 20_000
    """How many windows of all nodes together the centroids are fitted on; more changes little."""


@dataclass(frozen=True, slots=True)
class ModelsConfig:
    """The members of the score and their settings."""

    enabled: tuple[Annotated[str, Choice(*MEMBERS)], ...] = MEMBERS
    isolation_forest: IsolationForestConfig = field(default_factory=IsolationForestConfig)
    random_forest: RandomForestConfig = field(default_factory=RandomForestConfig)
    lstm: LstmConfig = field(default_factory=LstmConfig)
    kmeans: KMeansConfig = field(default_factory=KMeansConfig)

    def __post_init__(self) -> None:
        if not self.enabled or len(set(self.enabled)) != len(self.enabled):
            raise InvalidValueError("enabled: expected at least one model, each named once")
