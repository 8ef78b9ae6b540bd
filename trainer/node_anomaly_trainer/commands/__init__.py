"""The commands of `anomaly-trainer`, one file for each subject; `common` has what they share.

To add one: write its function in a file of its own and add one row to COMMANDS.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from node_anomaly_trainer.commands.backtest import backtest
from node_anomaly_trainer.commands.bench import bench
from node_anomaly_trainer.commands.bundle import bundle_app
from node_anomaly_trainer.commands.compare import SpreadLists, compare
from node_anomaly_trainer.commands.config import config_app
from node_anomaly_trainer.commands.drift import drift
from node_anomaly_trainer.commands.fetch import fetch
from node_anomaly_trainer.commands.keys import keygen
from node_anomaly_trainer.commands.label import label
from node_anomaly_trainer.commands.predict import explain, predict
from node_anomaly_trainer.commands.publish import promote, publish, rollback
from node_anomaly_trainer.commands.replay_logs import replay_logs
from node_anomaly_trainer.commands.train import train
from node_anomaly_trainer.commands.validate import validate

app = typer.Typer(
    name="anomaly-trainer",
    help="Train the models that anomaly-agent runs on every node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS: tuple[Callable[..., None], ...] = (
    train,
    predict,
    explain,
    backtest,
    label,
    validate,
    fetch,
    replay_logs,
    bench,
    publish,
    promote,
    rollback,
    drift,
    keygen,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"anomaly-trainer {version('node-anomaly')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Train the models that anomaly-agent runs on every node."""


for command in COMMANDS:
    app.command()(command)
app.command(cls=SpreadLists)(compare)
app.add_typer(config_app, name="config")
app.add_typer(bundle_app, name="bundle")
