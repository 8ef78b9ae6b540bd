"""The command `anomaly-trainer`."""

from __future__ import annotations

import importlib.util
import os
import sys

EXTRA = ("typer", "rich", "pandas", "sklearn", "prometheus_api_client")
MISSING_EXTRA = "the trainer needs extra packages: pip install '.[trainer]' in the checkout"


def main() -> None:
    """Run the command line; where the trainer extra is not installed, say so and exit with 1."""
    if any(importlib.util.find_spec(name) is None for name in EXTRA):
        sys.stderr.write(f"anomaly-trainer: {MISSING_EXTRA}\n")
        raise SystemExit(1)
    from node_anomaly_trainer.commands import app

    code: object = 0
    try:
        app()
    except SystemExit as ended:  # as every command ends
        code = ended.code
    except OSError as error:  # commands tell of theirs: it is of --help or --version
        code = _tell(error)
    raise SystemExit(_flushed(code))


def _flushed(code: object) -> object:
    """The exit code when all is written that was held back; Python itself would only complain of it."""
    if sys.stdout is None:  # whoever started us closed it
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        if not code:  # else it was told why it failed
            code = 1 if isinstance(error, BrokenPipeError) else _tell(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _tell(error: OSError) -> int:
    where = error.filename or "standard output"
    sys.stderr.write(f"Error: {where}: {error.strerror or error}\n")
    sys.stderr.write("Try: free space where it is written to, or write it elsewhere\n")
    return 1
