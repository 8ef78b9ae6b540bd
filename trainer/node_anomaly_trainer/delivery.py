"""What becomes of a judged candidate: its run is recorded, and it is published if it was accepted."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from node_anomaly_core.archive import archive_bundle
from node_anomaly_core.bundle import write_bundle
from node_anomaly_core.signing import sign
from node_anomaly_trainer import registry
from node_anomaly_trainer.assess import Assessed
from node_anomaly_trainer.candidate import part_of
from node_anomaly_trainer.channel_tree import STABLE, Archived
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.deliver import deliver
from node_anomaly_trainer.drift import summarise, write_reference
from node_anomaly_trainer.models.lstm import LSTMModel
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.signing_keys import read_keys


@dataclass(frozen=True, slots=True)
class Sealed:
    """A candidate as the bytes that would be published, and its learning curves per member."""

    archived: Archived
    losses: Mapping[str, tuple[float, ...]]


def require(config: TrainConfig) -> None:
    """What has to hold before a run of hours: keys can be read, MLflow answers where it must.

    Raises ConfigError or TrainingError.
    """
    read_keys(config.publish.key_file)
    registry.require(config.mlflow)


def seal(config: TrainConfig, assessed: Assessed) -> Sealed:
    """The archive of a candidate, signed where there is a key; it is written to a scratch directory."""
    keys = read_keys(config.publish.key_file)
    made = assessed.candidate
    with tempfile.TemporaryDirectory() as scratch:
        path = write_bundle(
            Path(scratch), made.manifest, made.files, (lambda content: sign(content, keys)) if keys else None
        )
        archived = Archived(path.name, made.manifest.trained_at, archive_bundle(path))
    models = made.models.items()
    return Sealed(
        archived, {name: tuple(model.losses) for name, model in models if isinstance(model, LSTMModel)}
    )


def publish_candidate(config: TrainConfig, assessed: Assessed, note: Note) -> Path:
    """Publish, keep the distributions it was trained on, move MLflow's alias; the bundle's directory."""
    made, parts = assessed.candidate, assessed.parts
    done = deliver(config.publish, made.manifest, made.files)
    normal = parts.normal[parts.fit]
    write_reference(
        Path(config.publish.directory), done.version, summarise(part_of(parts, parts.fit), normal)
    )
    document = done.channel
    everybody = document is None or (document.percent == 100.0 and document.channel == STABLE)
    registry.offered(config.mlflow, done.version, all_nodes=everybody, note=note)
    return done.path if done.path is not None else Path(config.publish.directory) / done.version
