"""`anomaly-trainer label`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from node_anomaly_core.errors import ConfigError, SourceError
from node_anomaly_trainer.commands.common import ConfigOption, Output, OutputOption, exits
from node_anomaly_trainer.config import load_config
from node_anomaly_trainer.feedback import FALSE_ALARM, INCIDENT, add_verdict, parse_verdict

DEFAULT_FILE = "labels.yml"


class Word(StrEnum):
    """What a person says about an alarm."""

    false_alarm = FALSE_ALARM
    incident = INCIDENT


def label(
    start: Annotated[str, typer.Option("--from", help="When it began: ISO 8601 (UTC) or unix seconds.")],
    stop: Annotated[str, typer.Option("--to", help="When it was over.")],
    node: Annotated[str, typer.Option(help="The node, as the alert names it.")],
    verdict: Annotated[Word, typer.Option(help="Was it nothing, or was it real?")],
    note: Annotated[str, typer.Option(help="Why; for the next person.")] = "",
    file: Annotated[
        Path | None, typer.Option(help=f"Keep it in git; labels.feedback, or {DEFAULT_FILE}, without.")
    ] = None,
    config: ConfigOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Write down whether an alarm was right; the next training learns from it, and its gate remembers.

    Exit codes: 0 written (or there already), 1 refused, the file stays as it was, 2 wrong usage.
    """
    with exits(", nothing was written"):
        configured = load_config(config, os.environ).labels.feedback
        path = file or Path(configured or DEFAULT_FILE)
        try:
            given = parse_verdict(start, stop, node, verdict.value, note)
        except SourceError as error:
            raise ConfigError(error.message, error.hint) from error
        known = add_verdict(path, given)
        if output is Output.json:
            done = {"file": str(path), "verdict": asdict(given), "verdicts": len(known)}
            sys.stdout.write(json.dumps(done, indent=2) + "\n")
            return
        sys.stdout.write(f"{given}\n{path} now holds {len(known)}\n")
        if not configured:
            sys.stdout.write(f"set labels.feedback: {path} in the configuration, so that training reads it\n")
