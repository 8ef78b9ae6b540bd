"""`anomaly-trainer drift`."""

from __future__ import annotations

import json
import math
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from node_anomaly_core.bundle import resolve_current
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.commands.common import ConfigOption, Output, OutputOption, exits
from node_anomaly_trainer.config import TrainConfig, load_config, with_options
from node_anomaly_trainer.progress import open_progress
from node_anomaly_trainer.since import seconds_since

DRIFTED = 3
MOVED = 0.25
"""Population stability index from which a feature counts as moved; see drift."""


def drift(
    config: ConfigOption = None,
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet file instead of the source.")] = None,
    since: Annotated[str, typer.Option(help="How far back, e.g. 1d; Prometheus only.")] = "1d",
    limit: Annotated[float, typer.Option(min=0.0, help="Index from which a feature has moved.")] = MOVED,
    output: OutputOption = Output.table,
) -> None:
    """Compare what nodes do now with what the current bundle was trained on; a rule can ask for retraining.

    Exit codes: 0 nothing moved, 3 some feature did, 1 failed, 2 wrong usage or configuration.
    """
    with exits(""):
        settings = with_options(load_config(config, os.environ), data=str(data) if data else None)
        raise typer.Exit(_drift(_recent(settings, since), limit, output))


def _recent(settings: TrainConfig, since: str) -> TrainConfig:
    source = settings.source
    recent = replace(source.prometheus, range=max(seconds_since(since, "1d"), settings.interval))
    return replace(settings, source=replace(source, prometheus=recent))


def _drift(settings: TrainConfig, limit: float, output: Output) -> int:
    from node_anomaly_trainer.drift import MOST_TOLD, compare, read_reference
    from node_anomaly_trainer.drift_metrics import drift_registry
    from node_anomaly_trainer.memory import admission_to_read
    from node_anomaly_trainer.run_metrics import export
    from node_anomaly_trainer.sources import fetch

    root = Path(settings.publish.directory)
    current = resolve_current(root) if root.is_dir() else None
    if current is None:
        raise TrainingError(
            f"nothing is published in {root.absolute()}", "train first, or set publish.directory"
        )
    reference = read_reference(root, current.name)
    progress = open_progress()
    with progress.phase("history") as report:
        admit = admission_to_read(settings.training)
        found = compare(reference, fetch(settings, report, progress.note, admit))
    export(settings.metrics, drift_registry(found, limit), progress.note)
    moved = [one for one in found if one.psi >= limit]
    if output is Output.json:
        rows = [
            {
                key: None if isinstance(item, float) and math.isnan(item) else item
                for key, item in asdict(one).items()
            }
            for one in found
        ]
        sys.stdout.write(
            json.dumps({"version": current.name, "limit": limit, "features": rows}, indent=2) + "\n"
        )
    else:
        for one in found[:MOST_TOLD]:
            known = (
                f"PSI {one.psi:.3f}  KS {one.ks:.3f}"
                if one.values and not math.isnan(one.psi)
                else "too few values"
            )
            sys.stdout.write(f"{one.feature:<45} {known}\n")
        sys.stdout.write(f"{len(moved)} of {len(found)} features moved since {current.name} was trained\n")
    return DRIFTED if moved else 0
