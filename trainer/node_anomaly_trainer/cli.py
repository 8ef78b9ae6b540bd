"""The command `anomaly-trainer`."""

from __future__ import annotations

import importlib.util
import sys

EXTRA = ("typer", "rich", "pandas", "sklearn", "prometheus_api_client")
MISSING_EXTRA = "the trainer needs extra packages: pip install '.[trainer]' in the checkout"


def main() -> None:
    """Run the command line; where the trainer extra is not installed, say so and exit with 1."""
    if any(importlib.util.find_spec(name) is None for name in EXTRA):
        sys.stderr.write(f"anomaly-trainer: {MISSING_EXTRA}\n")
        raise SystemExit(1)
    from node_anomaly_trainer.commands import app

    app()
