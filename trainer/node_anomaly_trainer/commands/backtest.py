"""`anomaly-trainer backtest`."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from node_anomaly_trainer.commands.common import ConfigOption, Output, OutputOption, exits, open_run
from node_anomaly_trainer.commands.predict import BundleOption
from node_anomaly_trainer.config import TrainConfig, load_config, with_options
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.since import seconds_since

if TYPE_CHECKING:
    from node_anomaly_trainer.backtest.report import Written
    from node_anomaly_trainer.backtest.run import Backtest


def backtest(
    config: ConfigOption = None,
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet file instead of the source.")] = None,
    since: Annotated[
        str | None, typer.Option(help="How far back, e.g. 30d; the source's range without.")
    ] = None,
    bundle: BundleOption = None,
    rules: Annotated[
        Path | None,
        typer.Option(help="Directory with recording.yml and alerts.yml; the shipped ones without."),
    ] = None,
    promtool: Annotated[
        str | None, typer.Option(help="Prometheus' promtool, where it is not on PATH.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Directory for the report; report.directory/backtests without.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 is one for each CPU.")] = 0,
    output: OutputOption = Output.table,
) -> None:
    """Replay history through a bundle and the shipped alert rules: what would have fired, and was it right?

    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
    """
    with exits(", no report was written"):
        settings = with_options(load_config(config, os.environ), data=str(data) if data else None)
        seconds = None if since is None else seconds_since(since, "30d")
        _backtest(
            settings if seconds is None else _reaching_back(settings, seconds),
            open_run(config),
            seconds,
            bundle,
            rules,
            promtool,
            report,
            jobs,
            output,
        )


def _reaching_back(settings: TrainConfig, seconds: float) -> TrainConfig:
    """A server is asked for no more than is wanted; a file is cut when it has been read."""
    source = settings.source
    return replace(
        settings,
        source=replace(
            source,
            prometheus=replace(source.prometheus, range=seconds),
            synthetic=replace(source.synthetic, range=seconds),
        ),
    )


def _backtest(
    settings: TrainConfig,
    progress: Progress,
    seconds: float | None,
    bundle: Path | None,
    rules: Path | None,
    promtool: str | None,
    report: Path | None,
    jobs: int,
    output: Output,
) -> None:
    from node_anomaly_trainer.backtest.promtool import find_promtool
    from node_anomaly_trainer.backtest.record import record
    from node_anomaly_trainer.backtest.report import write_backtest
    from node_anomaly_trainer.backtest.rules import find_rules, read_rules
    from node_anomaly_trainer.backtest.run import backtest as run
    from node_anomaly_trainer.labelling import label
    from node_anomaly_trainer.memory import admission_to_read
    from node_anomaly_trainer.predicting import open_bundle
    from node_anomaly_trainer.sources import fetch

    # Everything that can be wrong with the call is said before hours of history are read.
    program, wanted = find_promtool(promtool), read_rules(find_rules(rules))
    chosen = open_bundle(bundle, Path(settings.publish.directory))
    with progress.phase("history") as told:
        history = fetch(settings, told, progress.note, admission_to_read(settings.training))
    if seconds is not None and seconds < history.duration_s:
        history = history.between(1.0 - seconds / history.duration_s, 1.0)
    history = label(history, settings, progress.note, fitted=False).history
    result, lived = run(chosen, history, wanted, program, jobs, progress)
    root = report or Path(settings.report.directory) / "backtests"
    with progress.phase("report"):
        written = write_backtest(root, result, lived, history)
    record(settings.mlflow, result, written, progress.note)
    if output is Output.json:
        from node_anomaly_trainer.report.write import plain

        document = plain(asdict(result) | {"caught": result.caught, "report": str(written.html)})
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _print(result, written, Console())


def _print(result: Backtest, written: Written, console: Console) -> None:
    table = Table(title=f"What would have fired in {result.node_weeks:.2f} node-weeks with a score")
    table.add_column("alert")
    table.add_column("severity")
    for name in ("fired", "per node-week", "at no known incident"):
        table.add_column(name, justify="right")
    for rate in result.rates:
        weekly = "" if math.isnan(rate.per_node_week) else f"{rate.per_node_week:.2f}"
        table.add_row(rate.name, rate.severity, str(rate.alerts), weekly, str(rate.false))
    console.print(table)
    lines = [
        f"incidents: an alert fired at {result.caught} of {len(result.incidents)} that are known",
        f"budget of the bundle: {result.budget_per_week:g} false alarms per node-week",
        *(f"note: {note}" for note in result.notes),
        f"report {written.html}",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
