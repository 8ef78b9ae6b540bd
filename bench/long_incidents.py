"""What a node says of an incident that outlasts its alarm, and how often it says so where nothing was marked.

    python bench/long_incidents.py DATA [--datasets smd,asd] [--entities GLOB] [--labels-from DATA2]
        [--out DIR] [--times N] [--jobs N] [--json]

DATA is a folder as `anomaly-trainer bench` takes it (docs/bench-data.md). What bench/ablation.py has kept
under DIR is used again where data and code are the same. A node lives each test as it is; and once more with
an incident laid over it, which lifts the product's evidence by three times (`--times`) the level promised for
an alarm, for a day or two, from a third of the test on.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import fit_tail
from node_anomaly_core.threshold import RollingThreshold, tight
from node_anomaly_trainer.bench.data import Entry, choose, load, read_manifest
from node_anomaly_trainer.progress import Progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.ablation import BUDGETS, measured_entities, on_data, parser_of
from bench.ablation_variants import PRODUCT, Measured, Variant, evidence_of

HOURS = (24, 48)
TIMES = 3.0
"""What an incident adds, as a multiple of the promised level, if not told otherwise."""

NEAR_S = 86_400.0
"""An alarm that was outgrown belongs to an incident that ended no longer ago than this."""

Flags = NDArray[np.bool_]


class Told(NamedTuple):
    """Of the ticks (t,) of a test."""

    alarm: Flags
    outgrown: Flags


class Usual(NamedTuple):
    """A test as it is."""

    days: float
    begun: int
    after_incident: int
    normal_share: float


class LaidOver(NamedTuple):
    """An incident that was laid over a test; whether it was an alarm at all decides whether it counts."""

    alarm_hours: float
    told_share: float
    hours_after: float


def told(
    measured: Measured, interval_s: float, per_week: float, lifted: slice = slice(0), times: float = TIMES
) -> Told:
    """What a node says, tick by tick, whose evidence is lifted for these ticks of the test."""
    calibration, lived = evidence_of(measured, Variant("the product", PRODUCT))
    tail = fit_tail([calibration.whole], interval_s, per_week)
    begin = len(calibration.whole)
    whole, counted = lived.whole.copy(), (lived.counted if tight(per_week) else lived.whole).copy()
    for evidence in (whole, counted):
        evidence[begin:][lifted] += times * tail.alarm_level()
    threshold = RollingThreshold(tail, per_week, interval_s)
    alarm, outgrown = np.zeros(len(whole), dtype=bool), np.zeros(len(whole), dtype=bool)
    for tick, (counts, shows) in enumerate(zip(counted.tolist(), whole.tolist(), strict=True)):
        threshold.step(counts, shows)
        alarm[tick], outgrown[tick] = threshold.reached, threshold.outgrown.now
    return Told(alarm[begin:], outgrown[begin:])


def usual(said: Told, label: NDArray[np.integer], interval_s: float) -> Usual:
    """How often an alarm was outgrown, and for how much of the time in which no incident was marked."""
    starts = np.flatnonzero(np.diff(said.outgrown.astype(np.int8), prepend=0) == 1)
    near = round(NEAR_S / interval_s)
    after = sum(bool(label[max(0, start - near) : start + 1].any()) for start in starts)
    days = len(label) * interval_s / 86_400
    return Usual(days, len(starts), after, float(said.outgrown[label == 0].mean()))


def laid_over(
    measured: Measured, ticks: int, interval_s: float, per_week: float, hours: int, times: float = TIMES
) -> LaidOver:
    """What is told of an incident of so many hours."""
    begin = ticks // 3
    end = begin + round(hours * 3_600 / interval_s)
    said = told(measured, interval_s, per_week, slice(begin, end), times)
    quiet = np.flatnonzero(~said.outgrown[end:])
    after = float(quiet[0]) if len(quiet) else float(ticks - end)
    either = said.alarm | said.outgrown
    return LaidOver(
        said.alarm[begin:end].sum() * interval_s / 3_600, either[begin:end].mean(), after * interval_s / 3_600
    )


def figures_of(entry: Entry, measured: Measured, times: float) -> dict[str, dict[str, Usual | LaidOver]]:
    """Of one entity, by budget."""
    series, label = load(entry)
    found: dict[str, dict[str, Usual | LaidOver]] = {}
    for budget, per_week in BUDGETS.items():
        said = told(measured, series.interval_s, per_week)
        found[budget] = {"usual": usual(said, label, series.interval_s)} | {
            f"{hours} h": laid_over(measured, len(label), series.interval_s, per_week, hours, times)
            for hours in HOURS
            if len(label) * series.interval_s > 3 * hours * 3_600
        }
    return found


def lines_of(name: str, entities: Sequence[dict[str, dict[str, Usual | LaidOver]]]) -> list[str]:
    """Rows of one data set; incidents that raised no alarm at all are counted, and in no median."""
    lines = []
    for budget in BUDGETS:
        rows = [row for entity in entities if isinstance(row := entity[budget]["usual"], Usual)]
        weeks, begun = sum(row.days for row in rows) / 7, sum(row.begun for row in rows)
        share = float(np.mean([row.normal_share for row in rows]))
        cells = [f"one a {budget}", f"{begun / weeks:.2f}"]
        cells += [f"{sum(row.after_incident for row in rows)} of {begun}", f"{100 * share:.2f} %"]
        for hours in HOURS:
            cells += _laid_cells([entity[budget].get(f"{hours} h") for entity in entities])
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _laid_cells(found: Sequence[Usual | LaidOver | None]) -> list[str]:
    laid = [one for one in found if isinstance(one, LaidOver)]
    seen = [one for one in laid if one.alarm_hours > 0]
    if not seen:
        return [f"0 of {len(laid)}", "-", "-", "-"]
    alarm, share, after = np.median(np.array(seen), axis=0)
    return [f"{len(seen)} of {len(laid)}", f"{alarm:.1f} h", f"{100 * share:.0f} %", f"{60 * after:.0f} min"]


def run(arguments: Namespace, out: Path, progress: Progress) -> bool:
    """Measure what was not measured yet, and print; whether every entity is in the table."""
    entries = choose(read_manifest(arguments.data), arguments.datasets, arguments.entities)
    measured = measured_entities(entries, arguments.labels_from, out, arguments.jobs, progress)
    done = [entry for entry in entries if entry.name in measured]
    found = {}
    with progress.phase("tabulate") as report:
        for number, entry in enumerate(done):
            report(number / len(done), entry.name)
            found[entry.name] = figures_of(entry, measured[entry.name], arguments.times)
    if arguments.json:
        plain = {
            name: {budget: {key: one._asdict() for key, one in row.items()} for budget, row in entity.items()}
            for name, entity in found.items()
        }
        print(json.dumps(plain, indent=1, allow_nan=False))
        return len(done) == len(entries)
    laid = "".join(f" {hours} h: seen | an alarm for | it or outgrown | after it |" for hours in HOURS)
    print(f"| data | asked for | outgrown a week | after an incident | of normal time |{laid}")
    print("|---|---|---:|---:|---:|" + "---:|" * 4 * len(HOURS))
    for dataset in dict.fromkeys(entry.dataset for entry in done):
        print("\n".join(lines_of(dataset, [found[one.name] for one in done if one.dataset == dataset])))
    return len(done) == len(entries)


def main() -> int:
    """Read the command line; 1 where the data cannot be used, or an entity is not in the table."""
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--times", type=float, default=TIMES, help="what the incident adds, in levels")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return on_data(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
