"""Whether a run could be signed, recorded and told: keys, the published tree, MLflow, the Pushgateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.config_delivery import MetricsConfig, MlflowConfig
from node_anomaly_trainer.registry_client import NOT_RECORDED, reachable, shown
from node_anomaly_trainer.signing_keys import read_keys
from node_anomaly_trainer.validate import NOTE, OK, PROBLEM, Check, check_publish


def check_delivery(config: TrainConfig) -> Iterator[Check]:
    """Every check in turn."""
    if config.publish.tree:
        found = check_publish(Path(config.publish.tree), config.publish.keep)
        yield Check("publish.tree", found.status, found.detail, found.fix)
    yield check_key(config.publish.key_file)
    yield check_mlflow(config.mlflow)
    yield from check_metrics(config.metrics)


def check_key(path: str) -> Check:
    """Whether bundles will be signed."""
    try:
        keys = read_keys(path)
    except AnomalyError as error:
        return Check("publish.key_file", PROBLEM, error.message, error.hint)
    if not keys:
        return Check("publish.key_file", OK, "not set, bundles are not signed")
    return Check("publish.key_file", OK, f"{path}, key {keys[0].public.id}")


def check_mlflow(config: MlflowConfig) -> Check:
    """Whether the configured MLflow answers with the credentials of the environment."""
    if not config.tracking_uri:
        return Check("mlflow", OK, f"MLFLOW_TRACKING_URI is not set: {NOT_RECORDED}")
    try:
        reachable(config)
    except AnomalyError as error:
        return Check("mlflow", PROBLEM if config.required else NOTE, error.message, error.hint)
    return Check("mlflow", OK, f"{shown(config.tracking_uri)} answers")


def check_metrics(config: MetricsConfig) -> Iterator[Check]:
    """Whether the Pushgateway answers and the textfile can be written; a run goes on without either."""
    if config.pushgateway:
        yield _check_gateway(config)
    if config.textfile:
        folder = Path(config.textfile).absolute().parent
        if folder.is_dir():
            yield Check("metrics.textfile", OK, f"{config.textfile} will be written")
        else:
            yield Check(
                "metrics.textfile", NOTE, f"{folder} is no directory", "it will be made by the first run"
            )


def _check_gateway(config: MetricsConfig) -> Check:
    import requests

    url = config.pushgateway if "://" in config.pushgateway else f"http://{config.pushgateway}"
    fix = "check metrics.pushgateway (PROMETHEUS_GATEWAY); runs go on without"
    try:
        answer = requests.get(url.rstrip("/") + "/-/ready", timeout=config.timeout)
    except requests.RequestException as error:
        return Check(
            "metrics.pushgateway", NOTE, f"{shown(url)} cannot be reached ({type(error).__name__})", fix
        )
    if not answer.ok:
        return Check("metrics.pushgateway", NOTE, f"{shown(url)} answered HTTP {answer.status_code}", fix)
    return Check("metrics.pushgateway", OK, f"{shown(url)} answers")
