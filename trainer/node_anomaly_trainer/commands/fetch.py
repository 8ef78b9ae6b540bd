"""`anomaly-trainer fetch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node_anomaly_trainer.commands.common import (
    ConfigOption,
    IntervalOption,
    Output,
    OutputOption,
    exits,
    interval_of,
)
from node_anomaly_trainer.config import load_config, with_options
from node_anomaly_trainer.progress import open_progress


def fetch(
    config: ConfigOption = None,
    since: Annotated[str | None, typer.Option(help="How far back, e.g. 14d.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Directory that keeps what was read.")] = None,
    interval: IntervalOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Read history from Prometheus into a cache; a second call reads only what is new.

    Exit codes: 0 all is there, 1 failed (what was read is kept), 2 wrong usage or configuration.
    """
    with exits("; what was read is in the cache, fetch again goes on"):
        from node_anomaly_trainer.fetching import (
            fetch_history,
            fetched_as_json,
            print_fetched,
            with_fetch_options,
        )

        settings = with_options(load_config(config, os.environ), interval=interval_of(interval))
        settings = with_fetch_options(settings, since, str(cache) if cache else None)
        fetched = fetch_history(settings, open_progress())
        if output is Output.json:
            sys.stdout.write(fetched_as_json(fetched) + "\n")
        else:
            print_fetched(fetched, settings, Console())
