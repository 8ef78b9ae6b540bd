"""The commands of `anomaly-trainer`, their options, what they print and how they exit."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from node_anomaly_core.errors import AnomalyError, ConfigError
from node_anomaly_trainer.config import (
    LONGEST_INTERVAL_S,
    SHORTEST_INTERVAL_S,
    TrainConfig,
    load_config,
    with_options,
)
from node_anomaly_trainer.progress import open_progress
from node_anomaly_trainer.settings import InvalidValueError, parse_duration

ACCEPTED, FAILED, USAGE, REJECTED, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="anomaly-trainer",
    help="Train the models that anomaly-agent runs on every node.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Output(StrEnum):
    """How the result is printed."""

    table = "table"
    json = "json"


class Source(StrEnum):
    """Where history comes from."""

    synthetic = "synthetic"
    file = "file"
    prometheus = "prometheus"


@app.callback()
def root() -> None:
    """Train the models that anomaly-agent runs on every node."""


@app.command()
def train(
    config: Annotated[Path | None, typer.Option(help="YAML configuration; defaults without one.")] = None,
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet file to train on.")] = None,
    source: Annotated[Source | None, typer.Option(help="Where history comes from.")] = None,
    interval: Annotated[str | None, typer.Option(help="Tick of the models, e.g. 15s.")] = None,
    publish: Annotated[Path | None, typer.Option(help="Directory for accepted bundles.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Same seed and history, same models.")
    ] = None,
    output: Annotated[Output, typer.Option(help="How to print the result.")] = Output.table,
) -> None:
    """Train on history, judge the result, and publish it if it passes.

    Exit codes: 0 accepted and published, 3 rejected by the gate, 1 failed, 2 wrong usage or configuration.
    """
    # TensorFlow logs to standard error from native code before any Python setting reaches it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        settings = with_options(
            load_config(config, os.environ),
            data=str(data) if data else None,
            source=source.value if source else None,
            interval=_interval(interval),
            publish=str(publish) if publish else None,
            seed=seed,
        )
        raise typer.Exit(_train(settings, output))
    except ConfigError as error:
        _fail(error, USAGE)
    except AnomalyError as error:
        _fail(error, FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("anomaly-trainer: interrupted, nothing was published\n")
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def validate(
    config: Annotated[Path | None, typer.Option(help="YAML configuration; defaults without one.")] = None,
    output: Annotated[Output, typer.Option(help="How to print the result.")] = Output.table,
) -> None:
    """Check everything a training run depends on; change nothing.

    Exit codes: 0 a run can start, 1 there is a problem.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # see train
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


@app.command()
def fetch(
    config: Annotated[Path | None, typer.Option(help="YAML configuration; defaults without one.")] = None,
    since: Annotated[str | None, typer.Option(help="How far back, e.g. 14d.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Directory that keeps what was read.")] = None,
    interval: Annotated[str | None, typer.Option(help="Tick of the models, e.g. 15s.")] = None,
    output: Annotated[Output, typer.Option(help="How to print the result.")] = Output.table,
) -> None:
    """Read history from Prometheus into a cache; a second call reads only what is new.

    Exit codes: 0 all is there, 1 failed (what was read is kept), 2 wrong usage or configuration.
    """
    try:
        from node_anomaly_trainer.fetching import (
            fetch_history,
            fetched_as_json,
            print_fetched,
            with_fetch_options,
        )

        settings = with_options(load_config(config, os.environ), interval=_interval(interval))
        settings = with_fetch_options(settings, since, str(cache) if cache else None)
        fetched = fetch_history(settings, open_progress())
        if output is Output.json:
            sys.stdout.write(fetched_as_json(fetched) + "\n")
        else:
            print_fetched(fetched, settings, Console())
    except ConfigError as error:
        _fail(error, USAGE)
    except AnomalyError as error:
        _fail(error, FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("anomaly-trainer: interrupted; what was read is in the cache, fetch again goes on\n")
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def bench(
    data: Annotated[Path, typer.Argument(help="Folder with manifest.json, see docs/bench-data.md.")],
    scores: Annotated[Path, typer.Option(help="Folder for scores and records; what is done is kept.")],
    labels_from: Annotated[
        Path | None, typer.Option(help="Folder whose other entities' incidents teach the Random Forest.")
    ] = None,
    false_alarms_per_day: Annotated[
        float, typer.Option(min=0.01, max=100.0, help="Budget per node; 0.1429 is one a week.")
    ] = 1.0,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; one for each CPU without it.")] = None,
    datasets: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    entities: Annotated[str | None, typer.Option(help="Only those that fit, e.g. 'machine-1-*'.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML configuration; defaults without one.")] = None,
    output: Annotated[Output, typer.Option(help="How to print the result.")] = Output.table,
) -> None:
    """Train on, score and judge labelled series of other people, as nodes; the same command goes on.

    Exit codes: 0 all are done, 1 one failed (the others are done), 2 wrong usage or configuration.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # see train
    from node_anomaly_trainer.bench.run import Options, run
    from node_anomaly_trainer.bench.table import as_json, print_outcome

    try:
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
        raise typer.Exit(FAILED if outcome.failed else 0)
    except ConfigError as error:
        _fail(error, USAGE)
    except AnomalyError as error:
        _fail(error, FAILED)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"anomaly-trainer: interrupted; what is done is in {scores}, the same command goes on\n"
        )
        raise typer.Exit(INTERRUPTED) from None


def _train(settings: TrainConfig, output: Output) -> int:
    # The pipeline brings scikit-learn with it; a typo in the configuration should not wait for that.
    from node_anomaly_trainer.outcome import as_json, print_outcome
    from node_anomaly_trainer.pipeline import train as run

    report = run(settings, open_progress())
    if output is Output.json:
        sys.stdout.write(as_json(report) + "\n")
    else:
        print_outcome(report, Console())
    return ACCEPTED if report.outcome == "accepted" else REJECTED


def _interval(text: str | None) -> float | None:
    """Seconds of `--interval`, within the limits of the configuration's key of that name."""
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except InvalidValueError as invalid:
        raise ConfigError(
            f"--interval {text}: expected {invalid.expected}", "for example --interval 15s"
        ) from None
    if not SHORTEST_INTERVAL_S <= seconds <= LONGEST_INTERVAL_S:
        raise ConfigError(
            f"--interval {text}: expected {SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g} seconds",
            "for example --interval 15s",
        )
    return seconds


def _fail(error: AnomalyError, code: int) -> NoReturn:
    sys.stderr.write("".join(f"Error: {line}\n" for line in error.message.splitlines()))
    if error.hint:
        sys.stderr.write(f"Try: {error.hint}\n")
    raise typer.Exit(code) from error
