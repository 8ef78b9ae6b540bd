"""The report of a backtest: one HTML page that needs nothing from anywhere, and the same as JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.backtest.replay import Lived
from node_anomaly_trainer.backtest.run import Backtest
from node_anomaly_trainer.dataset import ANOMALOUS, History
from node_anomaly_trainer.report.pictures import OURS, WARN, drawing
from node_anomaly_trainer.report.write import figure, named, plain, share

HTML, JSON = "backtest.html", "backtest.json"
MOST_ROWS = 300
MOST_NODES = 24
COLUMNS = 400


@dataclass(frozen=True, slots=True)
class Written:
    """Where a backtest's report is."""

    html: Path
    json: Path


def write_backtest(root: Path, result: Backtest, lived: Sequence[Lived], history: History) -> Written:
    """Write both files into a directory of their own below `root`, whole or not at all. TrainingError."""
    scratch = root / f".{os.getpid()}"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / HTML).write_text(page(result, lived, history), encoding="utf-8")
        document = plain(asdict(result) | {"caught": result.caught})
        (scratch / JSON).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        directory = named(root, scratch)
    except OSError as error:
        raise TrainingError(
            f"cannot write the report to {root}: {error.strerror or error}", "choose another --report"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Written(directory / HTML, directory / JSON)


def page(result: Backtest, lived: Sequence[Lived], history: History) -> str:
    """The report as one page."""
    environment = Environment(
        loader=PackageLoader("node_anomaly_trainer", "backtest"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"figure": figure, "share": share, "moment": moment, "duration": duration}
    after = [one.after_s for one in result.incidents if one.first_alert]
    return environment.get_template("page.html.j2").render(
        result=result,
        first=next(iter(rate.name for rate in result.rates), ""),
        lead=float(np.median(after)) if after else math.nan,
        most=MOST_ROWS,
        pictures={
            name: Markup(drawn)  # noqa: S704  # drawn by matplotlib, which escapes the names in it
            for name, drawn in _pictures(result, lived, history).items()
        },
    )


def moment(seconds: float) -> str:
    """Unix seconds as a date and a minute, UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use; a minus where something came earlier."""
    if math.isnan(seconds):
        return "unknown"
    size, sign = abs(seconds), "-" if seconds < 0 else ""
    for unit, length in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if size >= length:
            return f"{sign}{size / length:.3g} {unit}"
    return f"{sign}{size:.0f} s"


def _pictures(result: Backtest, lived: Sequence[Lived], history: History) -> Mapping[str, str]:
    drawn = {
        "scores": score_map(result, lived, history),
        "hours": hour_bars(result.hours),
        "nodes": name_bars(result.by_node, "Alerts by node"),
    }
    if result.by_feature:
        drawn["features"] = name_bars(result.by_feature, "Alerts by feature (sum of shares)")
    return drawn


def score_map(result: Backtest, lived: Sequence[Lived], history: History) -> str:
    """Each node a row: its highest score over time, known incidents under it, grey where there was none."""
    order = list(result.by_node)[:MOST_NODES]
    rows = {one.node: at for at, one in enumerate(lived)}
    width = min(COLUMNS, history.ticks)
    edges = np.linspace(0, history.ticks, width + 1).astype(int)
    cells = np.full((len(order), width), np.nan)
    for row, node in enumerate(order):
        scores = lived[rows[node]].scores
        for column in range(width):
            part = scores[edges[column] : edges[column + 1]]
            if np.isfinite(part).any():
                cells[row, column] = np.nanmax(part)

    def draw(axes: Axes) -> None:
        shades = axes.imshow(
            np.ma.masked_invalid(cells), aspect="auto", cmap="YlOrRd", vmin=0.0, vmax=2.0,
            interpolation="nearest", extent=(0, width, len(order), 0),
        )  # fmt: skip
        axes.set_facecolor("#e3e7eb")
        for row, node in enumerate(order):
            label = history.labels[:, rows[node]] == ANOMALOUS
            for column in range(width):
                if label[edges[column] : edges[column + 1]].any():
                    axes.plot([column, column + 1], [row + 0.96] * 2, color=OURS, linewidth=2.5)
        axes.set_yticks(np.arange(len(order)) + 0.5, order)
        marks = np.linspace(0, width, 6)
        span = result.stop - result.start
        axes.set_xticks(marks, [moment(result.start + span * mark / width) for mark in marks], size=7)
        axes.tick_params(axis="y", length=0)
        more = len(result.by_node) - len(order)
        axes.set_title("Highest score (1 is the threshold), known incidents in blue"
                       + (f"; {more} nodes with fewer alerts not drawn" if more else ""))  # fmt: skip
        axes.figure.colorbar(shades, ax=axes, shrink=0.8, pad=0.01)

    return drawing(10.6, 0.9 + 0.28 * max(len(order), 2), draw)


def hour_bars(hours: Sequence[int]) -> str:
    """Alerts by the hour at which they began."""

    def draw(axes: Axes) -> None:
        axes.bar(range(24), hours, color=OURS, width=0.8)
        axes.set_xticks(range(0, 24, 3))
        axes.set_title("Alerts by hour of the day (UTC)")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    return drawing(5.2, 2.4, draw)


def name_bars(counts: Mapping[str, float], title: str) -> str:
    """The largest dozen."""
    chosen = dict(list(counts.items())[:12])

    def draw(axes: Axes) -> None:
        names = list(chosen)[::-1]
        axes.barh(names, [chosen[name] for name in names], color=WARN, height=0.66)
        for at, name in enumerate(names):
            axes.text(chosen[name], at, f" {chosen[name]:.3g}", va="center", size=8)
        axes.set_title(title)
        axes.margins(x=0.12)
        axes.tick_params(axis="y", length=0)

    return drawing(5.2, 0.7 + 0.27 * max(len(chosen), 1), draw)
