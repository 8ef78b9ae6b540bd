"""What a longer scrape interval costs, and whether windows belong in seconds or in ticks.

    python bench/intervals.py DATA [--datasets smd,asd] [--entities GLOB]
        [--every 1,2,5] [--false-alarms-per-day 1] [--out DIR] [--jobs N] [--json]

DATA is a folder as `anomaly-trainer bench` takes it (docs/bench-data.md); single series are left out. Each
server is scraped at every n-th of its ticks only, train and test, and benched as it would be by hand; an
event is one where any of the ticks left out was. Once with its windows in seconds, as the product has them
(never fewer ticks than the recipe's, core/node_anomaly_core/windows.py), and once in as many ticks as before,
which is what the same data say they are if they claim the old interval. With --out what was done is kept,
and the same call goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer.bench.data import MANIFEST, Entry, choose, load, read_manifest
from node_anomaly_trainer.bench.metrics import Figures, summarise
from node_anomaly_trainer.bench.run import Options, Outcome, run
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.whole_file import write_whole

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.ablation import on_data
from bench.history_length import SHOWN, cells_of, parser_for

HEAD = (
    "| data | every | windows in | detector | VUS-PR | recall | false alarms a day | in alarm |",
    "|---|---:|---|---|---:|---:|---:|---:|",
)
SECONDS, TICKS = "seconds", "ticks"


def thinned(entries: Sequence[Entry], every: int, windows: str, folder: Path) -> int:
    """Write a folder of the entities with a train part, with each `every`-th of their ticks; how many.

    Raises SourceError for a file that is not as the format wants it.
    """
    manifest = []
    for number, entry in enumerate(entries):
        series, label = load(entry)
        if not series.has_train_part:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        ticks = len(series.test) // every
        np.savez(
            folder / f"{number}.npz",
            train=series.train[every - 1 :: every],
            test=series.test[every - 1 :: every],
            label=label[: ticks * every].reshape(ticks, every).max(axis=1),
            columns=np.array(series.columns),
            interval_s=np.array(series.interval_s * (every if windows == SECONDS else 1)),
        )
        manifest.append({"dataset": entry.dataset, "entity": entry.entity, "path": f"{number}.npz"})
    if manifest:
        write_whole(folder / MANIFEST, json.dumps(manifest).encode())
    return len(manifest)


def in_real_days(figures: Figures, days: int) -> Figures:
    """The figures by real days, where one that was claimed is so many."""
    rate = figures.false_alarms_per_day
    return replace(
        figures,
        days=figures.days * days,
        false_alarms_per_day=None if rate is None else rate / days,
    )


def lines_of(every: int, windows: str, outcome: Outcome) -> list[str]:
    """Rows of the table, one for each data set and detector."""
    lines = []
    days = every if windows == TICKS else 1
    for dataset in dict.fromkeys(entity.entry.dataset for entity in outcome.entities):
        of = [entity for entity in outcome.entities if entity.entry.dataset == dataset]
        seconds = days * load(of[0].entry)[0].interval_s
        for name, title in SHOWN.items():
            row = summarise([in_real_days(entity.figures[name], days) for entity in of])
            cells = [dataset, f"{seconds:g} s", windows, title, *cells_of(row)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def measure(arguments: argparse.Namespace, out: Path, progress: Progress) -> bool:
    """Bench each interval, and print; whether every entity is in the table. Raises AnomalyError."""
    entries = choose(read_manifest(arguments.data), arguments.datasets, arguments.entities)
    document: dict[str, dict[str, Any]] = {}
    whole = True
    for every in arguments.every:
        for windows in (SECONDS, TICKS) if every > 1 else (SECONDS,):
            folder = out / f"data-{every}-{windows}"
            if not thinned(entries, every, windows, folder):
                raise AnomalyError(f"{arguments.data}: no entity has a train part", "choose other --datasets")
            days = every if windows == TICKS else 1
            asked = arguments.false_alarms_per_day * days
            scores = out / f"scores-{every}-{windows}"
            options = Options(folder, scores, false_alarms_per_day=asked, jobs=arguments.jobs)
            outcome = run(options, TrainConfig(), progress)
            whole = whole and not outcome.failed
            if not arguments.json:
                head = [] if document else HEAD
                print("\n".join([*head, *lines_of(every, windows, outcome)]), flush=True)
            document[f"{every} {windows}"] = {
                entity.entry.name: {name: asdict(in_real_days(entity.figures[name], days)) for name in SHOWN}
                for entity in outcome.entities
            }
    if arguments.json:
        print(json.dumps(document))
    return whole


def main() -> int:
    """Read the command line; 1 where the data cannot be used, or an entity is not in the table."""
    parser = parser_for(__doc__.splitlines()[0], "--every", "1,2,5")
    arguments = parser.parse_args()
    if min(arguments.every) < 1:
        parser.error("--every: each so many-th tick, from 1 on")
    return on_data(measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
