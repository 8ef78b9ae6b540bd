"""`anomaly-trainer compare`."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from node_anomaly_trainer.commands.common import (
    ConfigOption,
    IntervalOption,
    Output,
    OutputOption,
    exits,
    interval_of,
    open_run,
    quiet_tensorflow,
)
from node_anomaly_trainer.config import load_config, with_options

if TYPE_CHECKING:  # it brings scikit-learn with it
    from node_anomaly_trainer.compare import Comparison

LISTS = ("--models", "--scenarios")


class SpreadLists(TyperCommand):
    """Lets `--scenarios standard drift` mean `--scenarios standard --scenarios drift`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each further word."""
        return super().parse_args(ctx, spread(args))


def spread(args: Sequence[str]) -> list[str]:
    """`args` with each word after the first value of a list option given that option again."""
    result: list[str] = []
    option, values = "", 0
    for arg in args:
        if arg.startswith("-"):
            option, values = (arg if arg in LISTS else ""), 0
        elif option:
            values += 1
            if values > 1:
                result.append(option)
        result.append(arg)
    return result


def compare(
    models: Annotated[
        list[str] | None, typer.Option(help="Members to compare, one or more; all of them without.")
    ] = None,
    scenarios: Annotated[
        list[str] | None,
        typer.Option(help="One or more of standard, high_anomaly, drift, noisy, gaps; standard without."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet file to compare on.")] = None,
    interval: IntervalOption = None,
    config: ConfigOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Fit every member under each scenario and set it beside PCA and k-means at the same false alarms.

    Exit codes: 0 compared, 1 failed, 2 wrong usage or configuration. Nothing is published.
    """
    quiet_tensorflow()
    with exits(", nothing was compared"):
        from node_anomaly_trainer.compare import Comparator

        settings = with_options(
            load_config(config, os.environ), data=str(data) if data else None, interval=interval_of(interval)
        )
        comparator = Comparator(settings, models or ("all",))
        found = comparator.compare(scenarios or ("standard",), open_run(config))
        if output is Output.json:
            sys.stdout.write(json.dumps(_plain(asdict(found)), indent=2, allow_nan=False) + "\n")
        else:
            print_comparison(found, Console())


def print_comparison(found: Comparison, console: Console) -> None:
    """One table for each scenario, and the recommendation."""
    for scenario, faults in found.faults.items():
        table = Table(title=f"{scenario}: {faults} faults in held-back data, equal realised false alarms")
        table.add_column("detector")
        for name in ("faults found", "false alarms / week", "VUS-PR", "AUC-PR", "ROC AUC", "ms / tick"):
            table.add_column(name, justify="right")
        for row in found.rows:
            if row.scenario == scenario:
                table.add_row(
                    row.detector.replace("_", " "),
                    "unknown" if math.isnan(row.recall) else f"{row.recall:.0%}",
                    _number(row.false_alarms, 1),
                    _number(row.vus_pr),
                    _number(row.auc_pr),
                    _number(row.auc_roc),
                    _number(row.tick_ms),
                    style="bold" if row.detector == found.recommended else "",
                )
        console.print(table)
    console.print(f"recommended: {found.recommended}", style="bold green")
    console.print(f"{found.why} ({found.seconds:.0f} s)", markup=False, highlight=False, soft_wrap=True)


def _number(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
