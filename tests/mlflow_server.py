"""A real MLflow server that asks for a user and a password, as `mlflow server --app-name basic-auth` does."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from rig import PARTS, Service, free_port, service

USER, PASSWORD = "trainer", "correct horse battery staple"
CREDENTIALS = {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}


def authorization(user: str = USER, password: str = PASSWORD) -> Mapping[str, str]:
    """The header of a request."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def need_mlflow() -> Path:
    """The MLflow server's program, in the environment that scripts/real_parts.py makes."""
    program = PARTS / "mlflow" / "bin" / "mlflow"
    if not program.exists():
        message = "MLflow is missing: python scripts/real_parts.py"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return program


@contextlib.contextmanager
def mlflow(folder: Path, *, guarded: bool = True) -> Iterator[Service]:
    """One that also serves artifacts, on a free port; it starts in 7 to 40 s. Only USER may do anything.

    With `guarded` false it asks nobody who they are, which spares half a second of CPU a request.
    """
    program, port = need_mlflow(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    users = folder / "users.ini"
    users.write_text(
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{folder / 'users.db'}\n"
        f"admin_username = {USER}\n"
        f"admin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    command: list[str | Path] = [
        program,
        "server",
        *(["--app-name=basic-auth"] if guarded else []),
        "--host=127.0.0.1",
        f"--port={port}",
        "--workers=1",
        f"--backend-store-uri=sqlite:///{folder / 'mlflow.db'}",
        f"--artifacts-destination={folder / 'artifacts'}",
        "--serve-artifacts",
    ]
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Eight processes that each import MLflow, for judging language models: nobody here asks for that.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(users),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of a test",
    }
    with service(
        "mlflow", command, port, "/health", folder, seconds=180.0, environment=environment
    ) as running:
        yield running
