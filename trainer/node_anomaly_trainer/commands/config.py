"""`anomaly-trainer config init` and `config check`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from node_anomaly_trainer.commands.common import ConfigOption, Output, OutputOption, exits
from node_anomaly_trainer.config import configuration_notes, load_config
from node_anomaly_trainer.config_file import commented, differences, write_commented

config_app = typer.Typer(help="Write a configuration file, or check one.", no_args_is_help=True)


@config_app.command()
def init(
    output: Annotated[Path | None, typer.Option(help="File to write; standard output without.")] = None,
    force: Annotated[bool, typer.Option(help="Write over a file that is there.")] = False,
) -> None:
    """Write a file with every setting at its default and a comment on each.

    Exit codes: 0 written, 2 a file is in the way or it cannot be written.
    """
    with exits(", nothing was written"):
        if output is None:
            sys.stdout.write(commented())
            return
        write_commented(output, force=force)
        sys.stdout.write(f"wrote {output}; keep only what you change\n")


@config_app.command()
def check(config: ConfigOption = None, output: OutputOption = Output.table) -> None:
    """Read a configuration file, name everything that is wrong, and say what differs from the defaults.

    Exit codes: 0 it can be used, 2 it cannot. Nothing is contacted: that is what `validate` is for.
    """
    with exits(""):
        changed = differences(load_config(config, os.environ))
        notes = configuration_notes(config, os.environ)
        if output is Output.json:
            sys.stdout.write(json.dumps({"ok": True, "changed": changed, "notes": notes}, indent=2) + "\n")
            return
        for key, value in changed.items():
            sys.stdout.write(f"{key}: {value}\n")
        for note in notes:
            sys.stdout.write(f"note: {note}\n")
        sys.stdout.write(f"ok: {len(changed)} settings differ from the defaults\n")
