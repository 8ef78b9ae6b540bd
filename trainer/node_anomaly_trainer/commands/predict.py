"""`anomaly-trainer predict` and `anomaly-trainer explain`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node_anomaly_core.errors import ConfigError, SourceError
from node_anomaly_trainer.commands.common import ConfigOption, Output, OutputOption, exits
from node_anomaly_trainer.config import load_config
from node_anomaly_trainer.labels import time_of
from node_anomaly_trainer.progress import open_progress

InputOption = Annotated[
    Path, typer.Option("--input", help="CSV or Parquet: timestamp, node, one column per feature.")
]
BundleOption = Annotated[
    Path | None,
    typer.Option(help="A bundle, or a directory of them; publish.directory without."),
]


def predict(
    input: InputOption,  # noqa: A002  # the option's name
    output_file: Annotated[
        Path, typer.Option("--output", help="CSV or Parquet with timestamp, node and score of every row.")
    ],
    model: Annotated[
        str, typer.Option(help="A member whose own score is wanted, e.g. random_forest.")
    ] = "combined",
    bundle: BundleOption = None,
    alarm: Annotated[bool, typer.Option(help="Add the column alarm, 0 or 1.")] = False,
    reasons: Annotated[int, typer.Option(min=0, max=20, help="Add the column reasons with so many.")] = 0,
    config: ConfigOption = None,
    summary: Annotated[Output, typer.Option("--summary", help="How to print what was done.")] = Output.table,
) -> None:
    """Score every row of a file with a published bundle, each node as its agent would have.

    Exit codes: 0 written, 1 failed (nothing is written), 2 wrong usage or configuration.
    """
    with exits(", nothing was written"):
        from node_anomaly_trainer.predicting import as_json, open_bundle, predict_file, print_written

        published = Path(load_config(config, os.environ).publish.directory)
        written = predict_file(
            open_bundle(bundle, published),
            input,
            output_file,
            open_progress(),
            model=model,
            reasons=reasons,
            alarm=alarm,
        )
        if summary is Output.json:
            sys.stdout.write(as_json(written) + "\n")
        else:
            print_written(written, Console())


def explain(
    input: InputOption,  # noqa: A002  # the option's name
    at: Annotated[str | None, typer.Option(help="The rows nearest to this time, one of each node.")] = None,
    node: Annotated[str | None, typer.Option(help="Only rows of this node.")] = None,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="How many; the highest scores first.")] = 3,
    top: Annotated[int, typer.Option(min=1, max=100, help="Features named for each row.")] = 5,
    bundle: BundleOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Say which features make the highest scores of a file, or those at a moment.

    Exit codes: 0 explained, 1 failed, 2 wrong usage or configuration.
    """
    with exits(""):
        from node_anomaly_trainer.predicting import as_json, explain_file, open_bundle, print_explained

        published = Path(load_config(config, os.environ).publish.directory)
        found, notes = explain_file(
            open_bundle(bundle, published),
            input,
            open_progress(),
            rows=rows,
            at=None if at is None else _moment(at),
            node=node,
            top=top,
        )
        if output is Output.json:
            sys.stdout.write(as_json(found) + "\n")
        else:
            print_explained(found, notes, Console())


def _moment(text: str) -> float:
    try:
        return time_of(text, f"--at {text}", "it")
    except SourceError as error:
        raise ConfigError(error.message, error.hint) from error
