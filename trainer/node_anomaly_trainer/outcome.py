"""How a finished training run is shown: a table for people, JSON for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from node_anomaly_trainer.forecast_figures import duration
from node_anomaly_trainer.pipeline import TrainingReport


def print_outcome(report: TrainingReport, console: Console) -> None:
    """Per detector recall at equal false alarms, then the verdict, its reasons and where the bundle is."""
    evaluation = report.evaluation
    table = Table(
        title=f"{evaluation.faults} faults in held-back data, thresholds set for equal false alarms",
        caption=f"compared at {evaluation.comparison_budget:.0f} a node-week, as few as this data can tell, "
        "or at what the quietest detector can raise",
    )
    table.add_column("detector")
    table.add_column("faults found", justify="right")
    table.add_column("false alarms, comparison", justify="right")
    for name, recall in evaluation.fault_recall.items():
        style = "bold" if name == "combined" else ""
        alarms = evaluation.false_alarms.get(name, math.nan)
        table.add_row(name.replace("_", " "), _share(recall), _number(alarms), style=style)
    console.print(table)
    kinds = ", ".join(
        f"{kind.replace('_', ' ')} {_share(recall)}" for kind, recall in evaluation.recall_by_kind.items()
    )
    _line(console, f"found by kind: {kinds}")
    _line(
        console,
        f"with the bundle's own threshold: {_number(evaluation.false_alarms_per_node_week)} false alarms "
        f"per node-week in {evaluation.node_weeks:.2f} node-weeks, budget {evaluation.budget:g} "
        f"(up to {_number(evaluation.false_alarms_on_noise)} where nothing happens)",
    )
    _line(
        console,
        f"weights: {', '.join(f'{name} {weight:.2g}' for name, weight in evaluation.weights.items())}; "
        f"one tick costs {_number(evaluation.tick_cpu_seconds * 1e3)} ms CPU; "
        f"bundle {evaluation.bundle_bytes / 2**20:.1f} MiB; "
        f"exported models differ by {evaluation.parity_forest_max:.1g} (forests) "
        f"and {evaluation.parity_lstm_max:.1g} (LSTM)",
    )
    for one in report.forecast:
        shown = f"{_share(one.shown_skill)} over the {len(one.features)} features that nodes show"
        _line(
            console,
            f"forecast {duration(one.horizon_s)} ahead: skill {_share(one.skill)} over all features, "
            f"{shown if one.features else 'nothing is shown'}",
        )
    for line in report.allowances:
        _line(console, f"let pass: {line}")
    for reason in report.reasons:
        console.print("refused: ", style="red", end="")
        _line(console, reason)
    style = "bold green" if report.outcome == "accepted" else "bold red"
    console.print(f"{report.outcome} after {report.seconds:.0f} s", style=style)
    if report.path is not None:
        _line(console, f"published {report.path}")
    else:
        _line(console, "nothing was published; the bundle in use stays")
    if report.artifacts is not None:
        _line(console, f"report {report.artifacts.html.absolute()}")
    if report.recorded is not None:
        number = report.recorded.model_version
        registered = f", registered as version {number}" if number else ""
        _line(console, f"recorded {report.recorded.experiment} run {report.recorded.run}{registered}")


def as_json(report: TrainingReport) -> str:
    """The whole report; a figure that is not known is null."""
    return json.dumps(_plain(report), indent=2, allow_nan=False)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _line(console: Console, text: str) -> None:
    # Paths and names are printed as they are: no markup, no colours guessed from digits, no wrapping.
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _share(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.0%}"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
