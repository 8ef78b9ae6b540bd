"""The door to MLflow: imported when first needed, configured by the trainer's settings, errors as ours."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.config_delivery import MlflowConfig

if TYPE_CHECKING:  # its import takes seconds
    from mlflow import MlflowClient

_TRACKING_URI = "MLFLOW_TRACKING_URI"
_NO_ACCESS = (401, 403)
_NO_ACCESS_IN_TEXT = re.compile(r"error code (?:401|403)\b")

NOT_RECORDED = "parameters, figures, the report and the bundle of this run are on this disk only"


def open_client(config: MlflowConfig) -> MlflowClient:
    """A client of the configured store or server. Raises TrainingError where MLflow is not installed."""
    # Only what nobody has set: an operator's environment is more deliberate than this program.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{max(1, round(config.timeout))}")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own 7 wait for minutes
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    of_files = urlsplit(config.tracking_uri).scheme in ("", "file")
    if of_files:
        # MLflow 3 asks for this word before it writes folders; naming one as tracking_uri is that word.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        from mlflow import MlflowClient, set_tracking_uri
    except ImportError as error:
        raise TrainingError(
            f"mlflow cannot be imported ({error})", "pip install '.[trainer]' in the checkout"
        ) from error
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with as_training_error(config):
        if of_files:
            # For each version of a model this store asks a client of its own, whose store is otherwise a
            # database in the working directory: where none can be made, that is tried for ten minutes.
            environment = os.environ.get(_TRACKING_URI)
            set_tracking_uri(config.tracking_uri)
            if environment is None:  # it sets this, too, which our own settings are read from
                os.environ.pop(_TRACKING_URI, None)
            else:
                os.environ[_TRACKING_URI] = environment
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
        if _refused(error):
            raise TrainingError(
                f"MLflow at {shown(config.tracking_uri)} refuses {_who()}",
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to a user who may write there",
            ) from error
        said = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"MLflow at {shown(config.tracking_uri)}: {type(error).__name__}: {said}",
            "check that it is up, mlflow.tracking_uri, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        ) from error


def _refused(error: Exception) -> bool:
    """Whether a server wants other credentials; behind a proxy it may be that which says so."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    denied = getattr(error, "error_code", "") in ("PERMISSION_DENIED", "UNAUTHENTICATED")
    return denied or status in _NO_ACCESS or bool(_NO_ACCESS_IN_TEXT.search(str(error)[:500]))


def _who() -> str:
    user, token = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "TOKEN"))
    if user:
        return f"user {user} with the password of MLFLOW_TRACKING_PASSWORD, or does not let it do this"
    if token:
        return "the token of MLFLOW_TRACKING_TOKEN, or does not let it do this"
    return "requests without a user, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are not set"


def reachable(config: MlflowConfig) -> None:
    """Ask for one experiment, with the credentials of the environment. Raises TrainingError."""
    client = open_client(config)
    with as_training_error(config):
        client.search_experiments(max_results=1)
