"""Where history comes from: a simulated fleet, a file, or Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node_anomaly_core.errors import ConfigError
from node_anomaly_core.features import CATALOGUE, FEATURES_BY_NAME, Feature
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.labels import apply_incidents, read_incidents
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.settings import nearest


def wanted_features(config: TrainConfig) -> tuple[Feature, ...]:
    """The features named in the configuration, all of the catalogue if none is. Raises ConfigError."""
    for name in config.features:
        if name not in FEATURES_BY_NAME and config.source.type != "file":
            raise ConfigError(
                f"features: unknown feature {name}{nearest(name, tuple(FEATURES_BY_NAME))}",
                "anomaly-agent features lists them all",
            )
    if not config.features:
        return CATALOGUE
    return tuple(FEATURES_BY_NAME[name] for name in config.features if name in FEATURES_BY_NAME)


def read_history(config: TrainConfig, progress: Progress) -> History:
    """The history that the configuration asks for, with known incidents labelled.

    Raises SourceError or ConfigError.
    """
    history = _read(config, wanted_features(config), progress)
    if config.labels.incidents:
        incidents = read_incidents(Path(config.labels.incidents))
        history = apply_incidents(history, incidents, config.labels.guard, progress.note)
    return history


def _read(config: TrainConfig, features: Sequence[Feature], progress: Progress) -> History:
    # Each source is imported when it is asked for: pandas and an HTTP client are slow to load.
    source = config.source
    if source.type == "file":
        from node_anomaly_trainer.sources.file import read_file

        history = read_file(source.file, CATALOGUE, config.interval, progress)
        return history.select_features(config.features) if config.features else history
    if source.type == "prometheus":
        from node_anomaly_trainer.sources.prometheus import read_prometheus

        return read_prometheus(source.prometheus, features, config.interval, progress)
    from node_anomaly_trainer.sources.synthetic import read_synthetic

    return read_synthetic(source.synthetic, features, config.interval, config.training.seed, progress)
