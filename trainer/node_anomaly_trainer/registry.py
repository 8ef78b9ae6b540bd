"""Every run in MLflow: an experiment's run with one nested run per member, and a version of accepted bundles.

A version's source holds `bundle.tar`, and its tags are those that agents read (docs/distribution.md). A new
one is `challenger` until all nodes are offered it; then it is `champion`. A rejected candidate is a run with
its bundle, and no version: what the registry lists can be deployed.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.channel_tree import Archived
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.config_delivery import MlflowConfig
from node_anomaly_trainer.registry_client import (
    NOT_RECORDED,
    as_training_error,
    open_client,
    reachable,
    shown,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from node_anomaly_trainer.pipeline import TrainingReport

ARCHIVE = "bundle.tar"
BUNDLE_FOLDER, REPORT_FOLDER = "bundle", "report"
CHAMPION, CHALLENGER = "champion", "challenger"
MOST_PER_BATCH = 100
LONGEST_VALUE = 500
SECRET = ("source.prometheus.headers",)
"""May hold a token; everything else that is secret is a file's name in the configuration."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where MLflow has a run, and the version of the registered model if it was accepted."""

    experiment: str
    run: str
    model_version: str = ""


def require(config: MlflowConfig) -> None:
    """Before a run of hours: MLflow answers, where the run must be recorded. Raises TrainingError."""
    if config.required:
        reachable(config)


def record(
    config: TrainConfig,
    report: TrainingReport,
    archived: Archived,
    losses: Mapping[str, tuple[float, ...]],
    note: Callable[[str], None],
) -> Recorded | None:
    """Record a run, and register its bundle if it was accepted; None where it is not recorded.

    Raises TrainingError only where mlflow.required says so; otherwise what is lost is a note.
    """
    if not config.mlflow.tracking_uri:
        note(f"MLFLOW_TRACKING_URI is not set: {NOT_RECORDED}")
        return None
    try:
        return _record(config, report, archived, losses)
    except TrainingError as error:
        if config.mlflow.required:
            raise
        note(f"warning: {error.message}: {NOT_RECORDED}")
        return None


def offered(config: MlflowConfig, version: str, *, all_nodes: bool, note: Callable[[str], None]) -> None:
    """Move the alias to the version of the bundle that is offered now: champion if to all nodes.

    What cannot be moved is a note: the nodes have the bundle already.
    """
    if not config.tracking_uri:
        return
    try:
        client = open_client(config)
        with as_training_error(config):
            found = client.search_model_versions(f"name = '{config.model}'", max_results=1_000)
            numbers = [int(one.version) for one in found if one.tags.get("bundle_version") == version]
            if not numbers:
                note(f"warning: MLflow has no version of {config.model} with bundle {version}")
                return
            number = str(max(numbers))
            client.set_registered_model_alias(config.model, CHAMPION if all_nodes else CHALLENGER, number)
            if all_nodes:
                _drop_challenger(client, config.model, number)
    except TrainingError as error:
        note(f"warning: the alias was not moved: {error.message}")


def _drop_challenger(client: MlflowClient, model: str, number: str) -> None:
    aliases = client.get_registered_model(model).aliases
    if str(aliases.get(CHALLENGER)) == number:
        client.delete_registered_model_alias(model, CHALLENGER)


def _record(
    config: TrainConfig, report: TrainingReport, archived: Archived, losses: Mapping[str, tuple[float, ...]]
) -> Recorded:
    client = open_client(config.mlflow)
    with as_training_error(config.mlflow):
        experiment = experiment_of(client, config.mlflow.experiment)
        tags = {
            "mlflow.runName": archived.version,
            "mlflow.note.content": "\n".join(report.reasons or report.allowances)[:5_000],
            "gate": report.outcome,
            **_bundle_tags(archived),
        }
        run = client.create_run(experiment, tags=tags)
        try:
            _log(client, run.info.run_id, parameters(config), figures(report))
            _members(client, experiment, run.info.run_id, config, report, losses)
            _artifacts(client, run.info.run_id, report, archived)
        except BaseException:
            client.set_terminated(run.info.run_id, "FAILED")
            raise
        number = ""
        if report.outcome == "accepted":
            number = _register(client, config.mlflow.model, run, report, archived)
        client.set_terminated(run.info.run_id, "FINISHED")
    return Recorded(
        f"{shown(config.mlflow.tracking_uri)} {config.mlflow.experiment}", run.info.run_id, number
    )


def experiment_of(client: MlflowClient, name: str) -> str:
    """The experiment of that name, made if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another trainer was faster
        if found is None:
            raise
        return str(found.experiment_id)


def _members(
    client: MlflowClient,
    experiment: str,
    parent: str,
    config: TrainConfig,
    report: TrainingReport,
    losses: Mapping[str, tuple[float, ...]],
) -> None:
    """One nested run for each detector that was compared: members, the combined score, the baselines."""
    settings = parameters(config)
    evaluation = report.evaluation
    for name in evaluation.fault_recall:
        run = client.create_run(experiment, tags={"mlflow.runName": name, "mlflow.parentRunId": parent})
        own = {key: value for key, value in settings.items() if key.startswith(f"models.{name}.")}
        known = {
            "fault_recall": evaluation.fault_recall.get(name, math.nan),
            "false_alarms_per_node_week": evaluation.false_alarms.get(name, math.nan),
            "weight": evaluation.weights.get(name, math.nan),
        }
        _log(
            client, run.info.run_id, own, {key: value for key, value in known.items() if math.isfinite(value)}
        )
        for step, loss in enumerate(losses.get(name, ())):
            client.log_metric(run.info.run_id, "validation_loss", loss, step=step)
        client.set_terminated(run.info.run_id)


def _artifacts(client: MlflowClient, run: str, report: TrainingReport, archived: Archived) -> None:
    if report.artifacts is not None:
        client.log_artifacts(run, str(report.artifacts.directory), REPORT_FOLDER)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / ARCHIVE
        path.write_bytes(archived.content)
        client.log_artifact(run, str(path), BUNDLE_FOLDER)


def _register(client: MlflowClient, model: str, run: Any, report: TrainingReport, archived: Archived) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        model,
        source=f"{run.info.artifact_uri}/{BUNDLE_FOLDER}",
        run_id=run.info.run_id,
        tags={**_bundle_tags(archived), "gate": report.outcome},
        description="; ".join(report.allowances)[:5_000],
    )
    client.set_registered_model_alias(model, CHALLENGER, made.version)
    return str(made.version)


def _bundle_tags(archived: Archived) -> dict[str, str]:
    """As agents read them from a version."""
    return {
        "bundle_version": archived.version,
        "bundle_trained_at": f"{archived.trained_at:.0f}",
        "archive_size": str(len(archived.content)),
        "archive_sha256": hashlib.sha256(archived.content).hexdigest(),
    }


def _log(client: MlflowClient, run: str, settings: Mapping[str, str], known: Mapping[str, float]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1_000)
    params = [Param(key, value) for key, value in settings.items()]
    metrics = [Metric(key, value, now, 0) for key, value in known.items()]
    for start in range(0, len(params), MOST_PER_BATCH):
        client.log_batch(run, params=params[start : start + MOST_PER_BATCH])
    for start in range(0, len(metrics), MOST_PER_BATCH):
        client.log_batch(run, metrics=metrics[start : start + MOST_PER_BATCH])


def parameters(config: TrainConfig) -> dict[str, str]:
    """The whole configuration, flat: path of the key -> value, without what may be secret."""
    flat = _flat(asdict(config), "")
    return {
        path: str(value)[:LONGEST_VALUE]
        for path, value in flat
        if not path.startswith(SECRET) and value != ""
    }


def figures(report: TrainingReport) -> dict[str, float]:
    """Every number of the evaluation that is known: path -> value."""
    found = {path: value for path, value in _flat(asdict(report.evaluation), "") if _finite(value)}
    plain = {path.replace(" ", "_"): float(value) for path, value in found.items()}
    for one in report.forecast:
        ahead = {"skill": one.skill, "shown_skill": one.shown_skill, "shown_features": len(one.features)}
        plain |= {f"forecast_{one.horizon_s:g}s.{name}": v for name, v in ahead.items() if _finite(v)}
    return {**plain, "seconds": report.seconds, "samples": float(report.samples)}


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _flat(value: object, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, list(value) if isinstance(value, tuple) else value
