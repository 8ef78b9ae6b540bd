"""`anomaly-trainer validate`."""

from __future__ import annotations

import os
import sys

import typer
from rich.console import Console

from node_anomaly_trainer.commands.common import FAILED, ConfigOption, Output, OutputOption, quiet_tensorflow


def validate(
    config: ConfigOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Check everything a training run depends on; change nothing.

    Exit codes: 0 a run can start, 1 there is a problem.
    """
    quiet_tensorflow()
    from node_anomaly_trainer.validate import as_json, passed, print_check
    from node_anomaly_trainer.validate import validate as run

    checks = []
    for check in run(config, os.environ):
        checks.append(check)
        if output is Output.table:
            print_check(check, Console())
    if output is Output.json:
        sys.stdout.write(as_json(checks) + "\n")
    raise typer.Exit(0 if passed(checks) else FAILED)
