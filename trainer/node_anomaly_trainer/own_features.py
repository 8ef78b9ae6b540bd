"""The user's own features, as the trainer takes them: from the file that it shares with the agents."""

from __future__ import annotations

from pathlib import Path

import yaml

from node_anomaly_core.errors import ConfigError
from node_anomaly_core.features import CATALOGUE, FEATURES_BY_NAME, Feature
from node_anomaly_core.own_features import OwnFeature, parse_own_document
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.settings import nearest
from node_anomaly_trainer.yaml_loader import parse_yaml


def read_own_features(path: Path) -> tuple[OwnFeature, ...]:
    """The features described in a YAML file. Raises ConfigError."""
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"own_features: {path}: {error.message}", error.hint) from error
    except OSError as error:
        raise ConfigError(f"own_features: {path}: {error.strerror}", "name an existing file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"own_features: {path}: not YAML: {error}", "check the indentation around that line"
        ) from error
    return parse_own_document(document, str(path))


def known_features(config: TrainConfig) -> tuple[Feature, ...]:
    """The catalogue, then the user's own. Raises ConfigError."""
    if not config.own_features:
        return CATALOGUE
    return CATALOGUE + tuple(own.feature for own in read_own_features(Path(config.own_features)))


def wanted_features(config: TrainConfig) -> tuple[Feature, ...]:
    """The features to train on: those that are named, all known ones if none is. Raises ConfigError.

    The synthetic fleet has only the catalogue's, so there own features must not be asked for by name.
    """
    known = {feature.name: feature for feature in known_features(config)}
    for name in config.features:
        if name not in known and config.source.type != "file":
            raise ConfigError(
                f"features: unknown feature {name}{nearest(name, tuple(known))}",
                "anomaly-agent features lists them all",
            )
    if config.features:
        return tuple(known[name] for name in config.features if name in known)
    if config.source.type == "synthetic":
        return tuple(FEATURES_BY_NAME.values())
    return tuple(known.values())
