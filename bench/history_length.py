"""How much history does it take? The same servers, trained on the last so many ticks of their train part.

    python bench/history_length.py DATA [--datasets smd,asd] [--entities GLOB]
        [--ticks 60,250,1000,4000,0] [--false-alarms-per-day 1] [--out DIR] [--jobs N] [--json]

DATA is a folder as `anomaly-trainer bench` takes it (docs/bench-data.md); single series have no train part
that could be cut and are left out. For each length the folder is written with shorter train parts, 0 stands
for all of it, and benched as it would be by hand. Printed: the score and two rivals, each as in the bench's
own table. With --out what was done is kept, and the same call goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer.bench.data import MANIFEST, Entry, choose, load, read_manifest
from node_anomaly_trainer.bench.metrics import Summary, summarise
from node_anomaly_trainer.bench.record import OURS
from node_anomaly_trainer.bench.run import Options, Outcome, run
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.whole_file import write_whole

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bench.ablation import on_data

HEAD = (
    "| data | ticks of train | detector | VUS-PR | recall | false alarms a day | in alarm |",
    "|---|---:|---|---:|---:|---:|---:|",
)
SHOWN = {OURS: "node-anomaly", "pca": "PCA residual", "kmeans": "windowed k-means"}


def shortened(entries: Sequence[Entry], ticks: int, folder: Path) -> int:
    """Write a folder of the entities with a train part, cut to its last `ticks` (0 = all); how many.

    Raises SourceError for a file that is not as the format wants it.
    """
    manifest = []
    for number, entry in enumerate(entries):
        series, label = load(entry)
        if not series.has_train_part:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(
            folder / f"{number}.npz",
            train=series.train[-ticks:],
            test=series.test,
            label=label,
            columns=np.array(series.columns),
            interval_s=np.array(series.interval_s),
        )
        manifest.append({"dataset": entry.dataset, "entity": entry.entity, "path": f"{number}.npz"})
    if manifest:
        write_whole(folder / MANIFEST, json.dumps(manifest).encode())
    return len(manifest)


def lines_of(ticks: int, outcome: Outcome) -> list[str]:
    """Rows of the table, one for each data set and detector."""
    lines = []
    for dataset in dict.fromkeys(entity.entry.dataset for entity in outcome.entities):
        of = [entity for entity in outcome.entities if entity.entry.dataset == dataset]
        refused = sum(bool(entity.record.refused) for entity in of)
        for name, title in SHOWN.items():
            row = summarise([entity.figures[name] for entity in of])
            length = str(ticks) if ticks else "all"
            note = f" ({refused} refused)" if refused and name == OURS else ""
            lines.append(f"| {dataset} | {length} | {title}{note} | {' | '.join(cells_of(row))} |")
    return lines


def cells_of(row: Summary) -> list[str]:
    """VUS-PR, recall, false alarms a day and time in alarm."""
    numbers = (row.vus_pr, row.recall, row.false_alarms_per_day)
    shown = ["-" if number is None else f"{number:.3f}" for number in numbers]
    return [*shown, "-" if row.alarm_share is None else f"{100 * row.alarm_share:.1f} %"]


def measure(arguments: argparse.Namespace, out: Path, progress: Progress) -> bool:
    """Bench each length, and print; whether every entity is in the table. Raises AnomalyError."""
    entries = choose(read_manifest(arguments.data), arguments.datasets, arguments.entities)
    document: dict[str, dict[str, Any]] = {}
    whole = True
    for ticks in arguments.ticks:
        folder = out / f"data-{ticks}"
        if not shortened(entries, ticks, folder):
            raise AnomalyError(f"{arguments.data}: no entity has a train part", "choose other --datasets")
        outcome = run(
            Options(
                folder,
                out / f"scores-{ticks}",
                false_alarms_per_day=arguments.false_alarms_per_day,
                jobs=arguments.jobs,
            ),
            TrainConfig(),
            progress,
        )
        whole = whole and not outcome.failed
        if not arguments.json:
            head = [] if document else HEAD
            print("\n".join([*head, *lines_of(ticks, outcome)]), flush=True)
        document[str(ticks)] = {
            entity.entry.name: {name: asdict(entity.figures[name]) for name in SHOWN}
            | {"refused": entity.record.refused}
            for entity in outcome.entities
        }
    if arguments.json:
        print(json.dumps(document))
    return whole


def parser_for(first_line: str, option: str, numbers: str) -> argparse.ArgumentParser:
    """Of a program that benches the same servers in several ways, which `option` lists; `numbers` without."""
    parser = argparse.ArgumentParser(description=first_line)
    parser.add_argument("data", type=Path, help="a folder with manifest.json")
    parser.add_argument("--datasets", type=lambda text: tuple(text.split(",")), default=("smd", "asd"))
    parser.add_argument("--entities", default="", help="a glob over names of entities")
    parser.add_argument(option, type=lambda text: [int(one) for one in text.split(",")], default=numbers)
    parser.add_argument("--false-alarms-per-day", type=float, default=1.0)
    parser.add_argument("--out", type=Path, help="keep here what was done")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def main() -> int:
    """Read the command line; 1 where the data cannot be used, or an entity is not in the table."""
    parser = parser_for(__doc__.splitlines()[0], "--ticks", "60,250,1000,4000,0")
    arguments = parser.parse_args()
    if min(arguments.ticks) < 0:
        parser.error("--ticks: a length is a number of ticks, or 0 for all of them")
    return on_data(measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
