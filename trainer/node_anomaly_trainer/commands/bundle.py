"""`anomaly-trainer bundle show` and `bundle diff`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from node_anomaly_trainer.bundle_words import describe, differences, open_bundle
from node_anomaly_trainer.commands.common import Output, OutputOption, exits
from node_anomaly_trainer.moment import moment

bundle_app = typer.Typer(help="What is in a bundle, and what two differ in.", no_args_is_help=True)
DIFFERENT = 3
MOMENTS = ("trained_at", "from", "to")
LONG = ("digests", "nodes", "features")
"""Sections of which the table shows only how many there are."""

PathArgument = Annotated[
    Path, typer.Argument(help="A bundle's directory, its .tar, or a published directory.")
]


@bundle_app.command()
def show(path: PathArgument, output: OutputOption = Output.table) -> None:
    """Features, weights, thresholds, provenance and files of a bundle whose digests hold.

    Exit codes: 0 shown, 1 it is no bundle or was changed.
    """
    with exits(""):
        known = describe(*open_bundle(path))
        if output is Output.json:
            sys.stdout.write(json.dumps(known, indent=2) + "\n")
            return
        for key, value in known.items():
            if not isinstance(value, Mapping):
                sys.stdout.write(f"{key}: {_shown(key, value)}\n")
            elif key in LONG:
                sys.stdout.write(f"{key}: {len(value)}\n")
            else:
                sys.stdout.write(
                    f"{key}:\n" + "".join(f"  {name}: {_shown(name, item)}\n" for name, item in value.items())
                )


@bundle_app.command()
def diff(
    first: PathArgument,
    second: PathArgument,
    output: OutputOption = Output.table,
) -> None:
    """What a bundle has that another has not: features, weights, thresholds, provenance, files.

    Exit codes: 0 they are equal, 3 they differ, 1 one is no bundle or was changed.
    """
    with exits(""):
        changed = differences(describe(*open_bundle(first)), describe(*open_bundle(second)))
        if output is Output.json:
            sys.stdout.write(json.dumps({key: list(pair) for key, pair in changed.items()}, indent=2) + "\n")
        else:
            for key, (was, now) in changed.items():
                sys.stdout.write(f"{key}: {_word(key, was)} -> {_word(key, now)}\n")
            sys.stdout.write("equal\n" if not changed else f"{len(changed)} differences\n")
        raise typer.Exit(DIFFERENT if changed else 0)


def _shown(key: str, value: object) -> str:
    """As people read it: a moment instead of unix seconds, numbers without their tail."""
    if isinstance(value, float):
        return moment(value) if key in MOMENTS else f"{value:.6g}"
    return str(value)


def _word(path: str, value: object) -> str:
    return "-" if value is None else _shown(path.rpartition(".")[2], value)
