"""What each part of the score is worth on labelled series: every member alone, together, and without each.

    python bench/ablation.py DATA [--datasets asd,smd] [--entities GLOB]
        [--labels-from DATA2] [--out DIR] [--picture FILE] [--seed N] [--jobs N] [--json]

DATA is a folder as `anomaly-trainer bench` takes it (docs/bench-data.md). Every entity is trained once; with
--out what its members said is kept, and a second call with the same data and code only tabulates. Weights,
scales and thresholds come from the calibration part; labels of the test are looked at by the judge alone, and
with --labels-from only those of other entities teach a Random Forest.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer.bench.carry_out import carry_out
from node_anomaly_trainer.bench.data import Entry, choose, load, read_manifest
from node_anomaly_trainer.bench.files import sha256
from node_anomaly_trainer.bench.loans import check, lend_out, loans_for, may_lend
from node_anomaly_trainer.bench.metrics import Figures, Summary, judge, summarise
from node_anomaly_trainer.bench.record import fingerprint
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.progress import Progress, open_progress

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench import ablation_measure as measuring
from bench.ablation_asked import asked_figures, asked_lines, beside, curves, draw_curves
from bench.ablation_variants import Measured, scores_of, variants

BUDGETS = {"day": 7.0, "week": 1.0}
"""False alarms per node-week that are asked for."""


def figures_of(entry: Entry, measured: Measured) -> dict[str, dict[str, Figures]]:
    """By variant and budget; a variant of a member that was not measured is left out."""
    series, label = load(entry)
    found = {}
    for group, rows in variants().items():
        for variant in rows:
            if all(name in measured.lived for name in variant.members):
                found[f"{group}: {variant.title}"] = {
                    budget: judge(
                        label,
                        series.judged(scores_of(measured, variant, series.interval_s, per_week)),
                        series.interval_s,
                    )
                    for budget, per_week in BUDGETS.items()
                }
    return found


def tabulated(figures: Sequence[Mapping[str, Mapping[str, Figures]]]) -> dict[str, dict[str, Summary]]:
    """Rows of one data set, by name, then by budget: those that every entity has."""
    names = [name for name in figures[0] if all(name in entity for entity in figures)]
    return {
        name: {budget: summarise([entity[name][budget] for entity in figures]) for budget in BUDGETS}
        for name in names
    }


def lines_of(table: Mapping[str, Mapping[str, Summary]]) -> list[str]:
    """A table in Markdown; the first words of a group stand in a row of their own."""
    lines = [
        "| | VUS-PR | recall | false alarms per day | in alarm | recall | per week | in alarm |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    last = ""
    for name, row in table.items():
        group, _, title = name.partition(": ")
        if group != last:
            lines.append(f"| *{group}* | | | | | | | |")
            last = group
        day, week = row["day"], row["week"]
        cells = (
            _cell(day.vus_pr, ".3f"), _cell(day.recall, ".2f"), _cell(day.false_alarms_per_day, ".2f"),
            _cell(day.alarm_share, ".1%"), _cell(week.recall, ".2f"),
            _cell(week.false_alarms_per_week, ".2f"), _cell(week.alarm_share, ".1%"),
        )  # fmt: skip
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form).replace("%", " %")


def measured_entities(
    entries: Sequence[Entry],
    labels_from: Path | None,
    out: Path,
    jobs: int,
    progress: Progress,
    seed: int | None = None,
) -> dict[str, Measured]:
    """Measure what was not measured yet, and read all of it, by the name of the entity."""
    config = TrainConfig()
    if seed is not None:
        config = replace(config, training=replace(config.training, seed=seed))
    checked = check(entries, "check data", progress)
    lending = check(may_lend(labels_from, entries), "check lenders", progress)
    loans, notes = lend_out(lending, out, config, jobs, progress)
    program = sha256(Path(measuring.__file__).read_bytes())
    paths: dict[str, Path] = {}
    wanted: dict[str, str] = {}
    todo = {}
    for one in checked:
        entry, borrowed = one.entry, loans_for(one, loans)
        parts = {"borrowed": [loan.fingerprint for loan in borrowed], "measured_by": program}
        wanted[entry.name] = fingerprint(one.parts | parts, config, ("training", "labels", "models"))
        path = paths[entry.name] = out / entry.dataset / f"{entry.entity}.npz"
        if measuring.read_measured(path, wanted[entry.name]) is None:
            lenders = tuple(loan.path for loan in borrowed)
            todo[entry.name] = measuring.MeasureEntity(entry, path, config, wanted[entry.name], lenders)
    for line in notes:
        progress.note(line)
    carry_out(todo, {one.entry.name: one.cost for one in checked}, "entities", jobs, progress)
    found = {name: measuring.read_measured(path, wanted[name]) for name, path in paths.items()}
    return {name: measured for name, measured in found.items() if measured is not None}


def run(arguments: Namespace, out: Path, progress: Progress) -> bool:
    """Measure, tabulate and print; whether every entity is in the table.

    Raises AnomalyError for what the user can put right.
    """
    entries = choose(read_manifest(arguments.data), arguments.datasets, arguments.entities)
    measured = measured_entities(
        entries, arguments.labels_from, out, arguments.jobs, progress, arguments.seed
    )
    done = [entry for entry in entries if entry.name in measured]
    figures, asked = {}, {}
    with progress.phase("tabulate") as report:
        for number, entry in enumerate(done):
            report(number / len(done), entry.name)
            figures[entry.name] = figures_of(entry, measured[entry.name])
            asked[entry.name] = asked_figures(entry, measured[entry.name])
    document, drawn = {}, {}
    for dataset in dict.fromkeys(entry.dataset for entry in done):
        names = [entry.name for entry in done if entry.dataset == dataset]
        table = tabulated([figures[name] for name in names])
        events = sum(next(iter(figures[name].values()))["day"].events for name in names)
        found = drawn[dataset] = curves([asked[name] for name in names])
        document[dataset] = {
            "events": events,
            "rows": {
                name: {budget: asdict(one) for budget, one in row.items()} for name, row in table.items()
            },
            "asked_for": {
                name: {f"{per_day:g}": asdict(one) for per_day, one in points.items()}
                for name, points in found.items()
            },
            "learned_weights": {name: measured[name].learned for name in names},
        }
        if not arguments.json:
            print(f"\n{dataset}: {len(names)} entities, {events} events, {len(table)} rows\n")
            print("\n".join(lines_of(table)), "\n")
            print("\n".join([*asked_lines(found), "", *beside(found)]))
    if arguments.picture and drawn:
        draw_curves(drawn, arguments.picture)
    if arguments.json:
        print(json.dumps(document, indent=1, allow_nan=False))
    return len(done) == len(entries)


def on_data(run: Callable[[Namespace, Path, Progress], bool], arguments: Namespace) -> int:
    """What a program returns that measures into `--out`, or a folder that is gone afterwards, and prints.

    0 where `run` says that all is in its table.
    """
    progress = open_progress()
    try:
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        progress.note(f"--out {arguments.out}: {error.strerror}; choose a folder that can be written to")
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as scratch:
            return 0 if run(arguments, arguments.out or Path(scratch), progress) else 1
    except AnomalyError as error:
        progress.note(f"{error.message}; {error.hint}" if error.hint else error.message)
        return 1


def parser_of(first_line: str, datasets: tuple[str, ...] = ("smd", "asd")) -> argparse.ArgumentParser:
    """Of a program that works on what `measured_entities` gives; no `datasets` = all that there are."""
    parser = argparse.ArgumentParser(description=first_line)
    parser.add_argument("data", type=Path, help="a folder with manifest.json")
    parser.add_argument("--datasets", type=lambda text: tuple(text.split(",")), default=datasets)
    parser.add_argument("--entities", default="", help="a glob over names of entities")
    parser.add_argument("--labels-from", type=Path, help="a folder whose other entities lend labels")
    parser.add_argument("--out", type=Path, help="keep here what was measured, or take it from here")
    parser.add_argument("--jobs", type=int, default=1)
    return parser


def main() -> int:
    """Read the command line; 1 where the data cannot be used, or an entity is not in the table."""
    parser = parser_of(__doc__.splitlines()[0], ())
    parser.add_argument("--picture", type=Path, help="an SVG: events found over false alarms realised")
    parser.add_argument("--seed", type=int, help="of the models, instead of the default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    try:
        if arguments.picture:
            arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(
            f"--picture {arguments.picture}: {error.strerror}; choose a folder that can be written to"
        )
    return on_data(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
