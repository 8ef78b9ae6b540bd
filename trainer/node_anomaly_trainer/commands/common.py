"""What the commands share: exit codes, options, and how an error is told."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from node_anomaly_core.errors import AnomalyError, ConfigError
from node_anomaly_trainer.config import LONGEST_INTERVAL_S, SHORTEST_INTERVAL_S, configuration_notes
from node_anomaly_trainer.progress import Progress, open_progress
from node_anomaly_trainer.settings import InvalidValueError, parse_duration

ACCEPTED, FAILED, USAGE, REJECTED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143


class Output(StrEnum):
    """How the result is printed."""

    table = "table"
    json = "json"


class Source(StrEnum):
    """Where history comes from."""

    synthetic = "synthetic"
    file = "file"
    prometheus = "prometheus"


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        envvar="ANOMALY_TRAINER_CONFIG", help="YAML configuration; defaults without one.", show_envvar=True
    ),
]
OutputOption = Annotated[Output, typer.Option(help="How to print the result.")]
IntervalOption = Annotated[str | None, typer.Option(help="Tick of the models, e.g. 15s.")]


class Terminated(KeyboardInterrupt):
    """SIGTERM, from within `terminable`."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends what runs within as Ctrl-C does: by an exception, so that it leaves nothing behind.

    A process that was started with SIGTERM ignored goes on ignoring it.
    """
    before = signal.getsignal(signal.SIGTERM)
    if before != signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> NoReturn:
        # timeout(1) sends one to the process and one to its group: the second would end the tidying up
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def exits(interrupted: str) -> Iterator[None]:
    """End the command with its exit code: 2 for a wrong setting, 1 for what failed, 130 for Ctrl-C.

    143 for SIGTERM, where `terminable` is within. `interrupted` says what has become of the work.
    """
    try:
        yield
    except ConfigError as error:
        fail(error, USAGE)
    except AnomalyError as error:
        fail(error, FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(
            AnomalyError(
                f"{where}{error.strerror or error}", "check the path, its permissions and free space"
            ),
            FAILED,
        )
    except Terminated:
        sys.stderr.write(f"anomaly-trainer: terminated{interrupted}\n")
        raise typer.Exit(TERMINATED) from None
    except KeyboardInterrupt:
        sys.stderr.write(f"anomaly-trainer: interrupted{interrupted}\n")
        raise typer.Exit(INTERRUPTED) from None


def open_run(config: Path | None) -> Progress:
    """Progress of a long command, which first says what keys of an old configuration mean now."""
    progress = open_progress()
    for note in configuration_notes(config, os.environ):
        progress.note(f"note: {note}")
    return progress


def quiet_tensorflow() -> None:
    """TensorFlow logs to standard error from native code before any Python setting reaches it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def interval_of(text: str | None) -> float | None:
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


def fail(error: AnomalyError, code: int) -> NoReturn:
    """Say what, where and what to do next on standard error, and exit."""
    sys.stderr.write("".join(f"Error: {line}\n" for line in error.message.splitlines()))
    if error.hint:
        sys.stderr.write(f"Try: {error.hint}\n")
    raise typer.Exit(code) from error
