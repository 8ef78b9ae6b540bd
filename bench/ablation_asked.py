"""The same detectors under several budgets: what each finds at the false alarms that it then really raises.

One budget does not compare detectors, for what they realise of it differs by a factor of two. No threshold is
chosen on the test: a point of a curve is a budget that was asked for, and what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from bench.ablation_variants import BASELINE, PRODUCT, TAUGHT, Measured, Variant, alone, scores_of
from matplotlib.axes import Axes

from node_anomaly_trainer.bench.data import Entry, load
from node_anomaly_trainer.bench.metrics import Figures, Summary, judge, summarise
from node_anomaly_trainer.report.pictures import OURS, THEIRS, WARN, drawing
from node_anomaly_trainer.whole_file import write_whole

PER_DAY = (2.0, 1.0, 0.75, 0.5, 0.25)
"""False alarms per node-day that are asked for."""

NODE_ANOMALY = "node-anomaly"
DETECTORS = (
    Variant(NODE_ANOMALY, PRODUCT),
    Variant("with labels of other servers", TAUGHT),
    alone(BASELINE + "pca", "PCA residual"),
    alone(BASELINE + "kmeans", "windowed k-means"),
)
RIVALS = tuple(one.title for one in DETECTORS[2:])
STYLES = dict(
    zip(
        (one.title for one in DETECTORS),
        ((OURS, "-"), (OURS, ":"), (THEIRS, "-"), (WARN, "-")),
        strict=True,
    )
)

Curves = Mapping[str, Mapping[float, Summary]]
"""By detector, then by what was asked for, the lowest last."""


def asked_figures(entry: Entry, measured: Measured) -> dict[str, dict[float, Figures]]:
    """One entity, by detector and budget; a detector that was not measured is left out."""
    series, label = load(entry)
    return {
        detector.title: {
            per_day: judge(
                label,
                series.judged(scores_of(measured, detector, series.interval_s, 7.0 * per_day)),
                series.interval_s,
            )
            for per_day in PER_DAY
        }
        for detector in DETECTORS
        if all(name in measured.lived for name in detector.members)
    }


def curves(figures: Sequence[Mapping[str, Mapping[float, Figures]]]) -> Curves:
    """Entities of one data set together: the detectors that every one of them has."""
    names = [name for name in figures[0] if all(name in entity for entity in figures)]
    return {
        name: {per_day: summarise([entity[name][per_day] for entity in figures]) for per_day in PER_DAY}
        for name in names
    }


def asked_lines(found: Curves) -> list[str]:
    """A table in Markdown: recall at the false alarms a day that a detector really raised."""
    lines = [f"| asked for a day | {' | '.join(found)} |", f"|---:|{'---:|' * len(found)}"]
    for per_day in PER_DAY:
        cells = (_cell(points[per_day]) for points in found.values())
        lines.append(f"| {per_day:g} | {' | '.join(cells)} |")
    return lines


def beside(found: Curves, per_day: float = 1.0) -> list[str]:
    """For each rival a sentence: what node-anomaly finds at the false alarms that the rival raised."""
    ours = found.get(NODE_ANOMALY, {})
    lines = []
    for title, points in found.items():
        rival = points[per_day]
        if title not in RIVALS or rival.false_alarms_per_day is None or rival.recall is None:
            continue
        recall = found_at(ours, rival.false_alarms_per_day)
        said = "was not asked for so few or so many" if np.isnan(recall) else f"finds {recall:.2f}"
        lines.append(
            f"At the {rival.false_alarms_per_day:.2f} a day that {title} raises, finding {rival.recall:.2f}, "
            f"{NODE_ANOMALY} {said}."
        )
    return lines


def found_at(points: Mapping[float, Summary], false_alarms_per_day: float) -> float:
    """Recall between the points of a detector; NaN beyond its ends, where nobody has looked."""
    known = sorted(
        (one.false_alarms_per_day, one.recall)
        for one in points.values()
        if one.false_alarms_per_day is not None and one.recall is not None
    )
    if not known:
        return math.nan
    at, recall = zip(*known, strict=True)
    return float(np.interp(false_alarms_per_day, at, recall, left=np.nan, right=np.nan))


def draw_curves(found: Mapping[str, Curves], path: Path) -> None:
    """One panel per data set as an SVG, which appears whole."""

    def draw(axes: Axes) -> None:
        figure = axes.figure
        axes.remove()
        panels = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
        for panel, (dataset, detectors) in zip(panels, found.items(), strict=True):
            for title, points in detectors.items():
                colour, line = STYLES[title]
                panel.plot(
                    [point.false_alarms_per_day for point in points.values()],
                    [point.recall for point in points.values()],
                    line,
                    color=colour,
                    marker="o",
                    markersize=3.5,
                    label=title,
                )
            panel.set_title(dataset.upper())
            panel.set_xlim(left=0.0)
            panel.set_ylim(0.0, 1.0)
            panel.set_xlabel("false alarms a node and day, realised")
        panels[0].set_ylabel("events found")
        panels[0].legend(frameon=False, loc="lower right", fontsize=8)

    write_whole(path, drawing(3.6 * len(found), 3.0, draw, opaque=True).encode())


def _cell(point: Summary) -> str:
    if point.recall is None or point.false_alarms_per_day is None:
        return "-"
    return f"{point.recall:.2f} at {point.false_alarms_per_day:.2f}"
