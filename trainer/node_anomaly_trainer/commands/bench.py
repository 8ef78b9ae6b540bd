"""`anomaly-trainer bench`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node_anomaly_trainer.commands.common import (
    ACCEPTED,
    FAILED,
    REJECTED,
    ConfigOption,
    Output,
    OutputOption,
    exits,
    fail,
    quiet_tensorflow,
    terminable,
)
from node_anomaly_trainer.config import load_config
from node_anomaly_trainer.progress import open_progress


def bench(
    data: Annotated[Path, typer.Argument(help="Folder with manifest.json, see docs/bench-data.md.")],
    scores: Annotated[Path, typer.Option(help="Folder for scores and records; those of other settings go.")],
    labels_from: Annotated[
        Path | None, typer.Option(help="Folder whose other entities' incidents teach the Random Forest.")
    ] = None,
    false_alarms_per_day: Annotated[
        float, typer.Option(min=0.01, max=100.0, help="Budget per node; 0.1429 is one a week.")
    ] = 1.0,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; one for each CPU without it.")] = None,
    datasets: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    entities: Annotated[str | None, typer.Option(help="Only those that fit, e.g. 'machine-1-*'.")] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Train on, score and judge labelled series of other people, as nodes; the same command goes on.

    Exit codes: 0 all are done, 3 all are done, but the trainer refused at least one, which has no scores,
    1 one failed (the others are done), 2 wrong usage or configuration, 130 interrupted, 143 terminated.
    """
    quiet_tensorflow()
    from node_anomaly_trainer.bench.run import Options, run
    from node_anomaly_trainer.bench.table import as_json, print_outcome, without_scores

    with exits(f"; what is done is in {scores}, the same command goes on"), terminable():
        options = Options(
            data=data,
            scores=scores,
            labels_from=labels_from,
            false_alarms_per_day=false_alarms_per_day,
            jobs=jobs or len(os.sched_getaffinity(0)),
            datasets=tuple(name for name in (datasets or "").split(",") if name),
            entities=entities or "",
        )
        outcome = run(options, load_config(config), open_progress())
        if output is Output.json:
            sys.stdout.write(as_json(outcome) + "\n")
        else:
            print_outcome(outcome, Console())
        code = FAILED if outcome.failed else REJECTED
        if outcome.refused:
            fail(without_scores(outcome), code)
        raise typer.Exit(code if outcome.failed else ACCEPTED)
