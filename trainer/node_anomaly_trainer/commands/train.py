"""`anomaly-trainer train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node_anomaly_trainer.commands.common import (
    ACCEPTED,
    REJECTED,
    ConfigOption,
    IntervalOption,
    Output,
    OutputOption,
    Source,
    exits,
    interval_of,
    open_run,
    quiet_tensorflow,
)
from node_anomaly_trainer.config import TrainConfig, load_config, with_options
from node_anomaly_trainer.progress import Progress


def train(
    config: ConfigOption = None,
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet file to train on.")] = None,
    source: Annotated[Source | None, typer.Option(help="Where history comes from.")] = None,
    interval: IntervalOption = None,
    publish: Annotated[Path | None, typer.Option(help="Directory for accepted bundles.")] = None,
    deploy: Annotated[
        bool, typer.Option("--deploy/--no-deploy", help="Publish what the gate accepts, or only report.")
    ] = True,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Same seed and history, same models.")
    ] = None,
    output: OutputOption = Output.table,
) -> None:
    """Train on history, judge the result, and publish it if it passes.

    Exit codes: 0 accepted and published, 3 rejected by the gate, 1 failed, 2 wrong usage or configuration.
    """
    quiet_tensorflow()
    with exits(", nothing was published"):
        settings = with_options(
            load_config(config, os.environ),
            data=str(data) if data else None,
            source=source.value if source else None,
            interval=interval_of(interval),
            publish=str(publish) if publish else None,
            seed=seed,
        )
        raise typer.Exit(_train(settings, open_run(config), output, deploy))


def _train(settings: TrainConfig, progress: Progress, output: Output, deploy: bool) -> int:
    # The pipeline brings scikit-learn with it; a typo in the configuration should not wait for that.
    from node_anomaly_trainer.outcome import as_json, print_outcome
    from node_anomaly_trainer.pipeline import train as run

    report = run(settings, progress, deploy=deploy)
    if output is Output.json:
        sys.stdout.write(as_json(report) + "\n")
    else:
        print_outcome(report, Console())
    return ACCEPTED if report.outcome == "accepted" else REJECTED
