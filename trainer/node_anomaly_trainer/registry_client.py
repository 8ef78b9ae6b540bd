"""The door to MLflow: imported when first needed, configured by the trainer's settings, errors as ours."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.config_delivery import MlflowConfig

if TYPE_CHECKING:  # its import takes seconds
    from mlflow import MlflowClient

NOT_RECORDED = "parameters, figures, the report and the bundle of this run are on this disk only"


def open_client(config: MlflowConfig) -> MlflowClient:
    """A client of the configured store or server. Raises TrainingError where MLflow is not installed."""
    # Only what nobody has set: an operator's environment is more deliberate than this program.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{max(1, round(config.timeout))}")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own 7 wait for minutes
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    if urlsplit(config.tracking_uri).scheme in ("", "file"):
        # MLflow 3 asks for this word before it writes folders; naming one as tracking_uri is that word.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise TrainingError(
            f"mlflow cannot be imported ({error})", "pip install 'node-anomaly[trainer]'"
        ) from error
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with as_training_error(config):
        return MlflowClient(tracking_uri=config.tracking_uri, registry_uri=config.tracking_uri)


def shown(uri: str) -> str:
    """The address without a user or a password."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return uri if "@" not in uri else f"{parts.scheme}://..."
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


@contextmanager
def as_training_error(config: MlflowConfig) -> Iterator[None]:
    """Turn whatever MLflow and the stores under it raise into a TrainingError."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"MLflow at {shown(config.tracking_uri)}: {type(error).__name__}: {said}",
            "check that it is up, mlflow.tracking_uri, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ) from error


def reachable(config: MlflowConfig) -> None:
    """Ask for one experiment, with the credentials of the environment. Raises TrainingError."""
    client = open_client(config)
    with as_training_error(config):
        client.search_experiments(max_results=1)
