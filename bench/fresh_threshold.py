"""The first days of a node's own threshold, where what training promised fits the node and where not.

    python bench/fresh_threshold.py DATA [--datasets smd,asd] [--entities GLOB] [--out DIR] [--jobs N]

DATA and DIR as bench/ablation.py has them; what members said there is taken from there. A node begins with an
empty window every 41 hours of the test, and the level that it was promised is what its own calibration found,
or 0.6 or 2.5 times that: a bundle that was trained on calmer nodes, or on louder ones, as the starter is for
an idle host. Printed: events found and false alarms a week in the first day, and in the rest of a window of
three and a half days, with one false alarm a week and one a day asked for. Events are counted as often as a
start has them before it.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import Tail, fit_tail
from node_anomaly_core.threshold import LONG_WINDOW_S, rolling_scores, tight
from node_anomaly_trainer.bench.data import Entry, choose, load, read_manifest
from node_anomaly_trainer.bench.metrics import DAY_S, Figures, judge, summarise
from node_anomaly_trainer.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.ablation import measured_entities, on_data, parser_of
from bench.ablation_variants import HOUR_S, PRODUCT, Evidence, Measured, Variant, evidence_of

BUDGETS = {"a week": 1.0, "a day": 7.0}
FACTORS = (0.6, 1.0, 2.5)
EVERY_S = 41 * HOUR_S
SPANS = {"first day": (0.0, DAY_S), "until 3.5 days": (DAY_S, LONG_WINDOW_S)}

Key = tuple[str, float, str]


def stretched(tail: Tail, factor: float) -> Tail:
    """What training would have found on nodes whose evidence is this many times as large."""
    return replace(tail, knots=tuple(factor * knot for knot in tail.knots))


def lived_from(
    start: int, ticks: int, lived: Evidence, tail: Tail, per_week: float, interval_s: float
) -> NDArray[np.float64]:
    """Scores (ticks,) of a node whose window is empty at `start`."""
    piece = slice(start, start + ticks)
    return rolling_scores(tail, lived.counted[piece], per_week, interval_s, whole=lived.whole[piece])


def figures_of(entry: Entry, measured: Measured) -> dict[Key, list[Figures]]:
    """Of one entity, by budget, factor and span: one for each start."""
    series, label = load(entry)
    every, ticks = (round(seconds / series.interval_s) for seconds in (EVERY_S, LONG_WINDOW_S))
    found: dict[Key, list[Figures]] = {}
    for budget, per_week in BUDGETS.items():
        calibration, lived = evidence_of(measured, Variant("the product", PRODUCT))
        if not tight(per_week):
            calibration, lived = (Evidence(one.whole, one.whole) for one in (calibration, lived))
        own, begin = fit_tail([calibration.whole], series.interval_s, per_week), len(calibration.whole)
        for factor in FACTORS:
            tail = stretched(own, factor)
            for start in range(0, len(label) - ticks, every):
                scores = lived_from(begin + start, ticks, lived, tail, per_week, series.interval_s)
                for span, edges in SPANS.items():
                    at = slice(*(round(edge / series.interval_s) for edge in edges))
                    judged = judge(label[start : start + ticks][at], scores[at], series.interval_s)
                    found.setdefault((budget, factor, span), []).append(judged)
    return found


def lines_of(dataset: str, figures: Mapping[Key, Sequence[Figures]]) -> list[str]:
    """Rows of the table: what was asked for, and what the promise is of what would fit."""
    lines = []
    for budget in BUDGETS:
        for factor in FACTORS:
            cells = []
            for span in SPANS:
                whole = summarise(figures[budget, factor, span])
                shown = (whole.recall, whole.false_alarms_per_week)
                cells += ["-" if value is None else f"{value:.2f}" for value in shown]
            lines.append(f"| {dataset} | {budget} | {factor:g} | {' | '.join(cells)} |")
    return lines


def run(arguments: Namespace, out: Path, progress: Progress) -> bool:
    """Measure what is not there yet, and print; whether every entity is in the table. Raises AnomalyError."""
    entries = choose(read_manifest(arguments.data), arguments.datasets, arguments.entities)
    measured = measured_entities(entries, arguments.labels_from, out, arguments.jobs, progress)
    heads = [f"{what}, {span}" for span in SPANS for what in ("recall", "false alarms a week")]
    print(f"| data | asked for | promise | {' | '.join(heads)} |")
    print(f"|---|---|---:|{'---:|' * len(heads)}")
    for dataset in dict.fromkeys(entry.dataset for entry in entries):
        together: dict[Key, list[Figures]] = {}
        with progress.phase(f"live {dataset}") as report:
            there = [entry for entry in entries if entry.dataset == dataset and entry.name in measured]
            for number, entry in enumerate(there):
                report(number / len(there), entry.name)
                for key, figures in figures_of(entry, measured[entry.name]).items():
                    together.setdefault(key, []).extend(figures)
        if together:
            print("\n".join(lines_of(dataset, together)))
    return len(measured) == len(entries)


def main() -> int:
    """Read the command line; 1 where the data cannot be used, or an entity is not in the table."""
    return on_data(run, parser_of(__doc__.splitlines()[0]).parse_args())


if __name__ == "__main__":
    sys.exit(main())
