"""What the gate says of real servers, trained on with the trainer's defaults and nothing labelled.

    python bench/gate.py DATA [--datasets smd,asd] [--alone] [--jobs 1] [--json]

DATA is a folder as `anomaly-trainer bench` takes it (docs/bench-data.md); only train parts are read. The
servers of a data set are one fleet with one bundle, or each a fleet of its own with --alone. Nothing is
published.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer import gate
from node_anomaly_trainer.bench.data import Entry, choose, load, read_manifest, require_fleet
from node_anomaly_trainer.bench.plan import features_of, values_of
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import NORMAL, History
from node_anomaly_trainer.pipeline import build
from node_anomaly_trainer.progress import SilentProgress


@dataclass(frozen=True, slots=True)
class Row:
    """One fleet before the gate."""

    fleet: str
    outcome: str
    recall: float
    pca: float
    kmeans: float
    faults: int
    alarms: int
    node_weeks: float
    worst: tuple[str, ...]
    """The nodes with most alarms on held-back data, and how many."""
    reasons: tuple[str, ...]
    allowances: tuple[str, ...]


def history_of(entries: Sequence[Entry]) -> History:
    """Their train parts on one grid that ends where they do; shorter ones begin later."""
    loaded = [load(entry)[0] for entry in entries]
    require_fleet(loaded)
    first = loaded[0]
    ticks = max(len(one.train) for one in loaded)
    values = np.full((ticks, len(loaded), len(first.columns)), np.nan)
    for number, one in enumerate(loaded):
        values[ticks - len(one.train) :, number] = values_of(one.train)
    return History(
        features=features_of(first.columns),
        interval_s=first.interval_s,
        nodes=tuple(one.entry.name for one in loaded),
        timestamps=first.start_s + first.interval_s * np.arange(ticks, dtype=np.float64),
        values=values,
        labels=np.full((ticks, len(loaded)), NORMAL, dtype=np.int8),
        origin={"source": "bench"},
    )


def judged(name: str, entries: Sequence[Entry], config: TrainConfig | None = None) -> Row:
    """One fleet, trained and judged as `anomaly-trainer train` does it. Raises AnomalyError or ValueError."""
    config = config or TrainConfig()
    found = build(history_of(entries), config, SilentProgress()).evaluation
    reasons = gate.judge(found, config.limits)
    return Row(
        fleet=name,
        outcome="refused" if reasons else "accepted",
        recall=found.fault_recall["combined"],
        pca=found.fault_recall["pca"],
        kmeans=found.fault_recall["plain_kmeans"],
        faults=found.faults,
        alarms=sum(one.alarms for one in found.by_node),
        node_weeks=found.node_weeks,
        worst=tuple(f"{one.node} {one.alarms}" for one in found.by_node[:3] if one.alarms),
        reasons=reasons,
        allowances=gate.allowances(found, config.limits),
    )


def main() -> int:
    """Judge every fleet and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--datasets", default="smd,asd", help="of those in the folder's manifest")
    parser.add_argument("--alone", action="store_true", help="each server by itself")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    try:
        entries = choose(read_manifest(options.data), tuple(options.datasets.split(",")))
        fleets: dict[str, list[Entry]] = {}
        for entry in entries:
            fleets.setdefault(entry.name if options.alone else entry.dataset, []).append(entry)
        with ProcessPoolExecutor(options.jobs) as pool:
            for row in pool.map(judged, fleets, fleets.values()):
                rows.append(row)
                print(f"{len(rows)} of {len(fleets)}: {row.fleet} {row.outcome}", file=sys.stderr, flush=True)
    except (AnomalyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    print("| fleet | gate | faults found | PCA | k-means | of | alarms held back | node-weeks | most on |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---|")
    for row in rows:
        print(
            f"| {row.fleet} | {row.outcome} | {row.recall:.2f} | {row.pca:.2f} | {row.kmeans:.2f} | "
            f"{row.faults} | {row.alarms} | {row.node_weeks:.2f} | {', '.join(row.worst)} |"
        )
    for row in rows:
        for line in (*row.reasons, *(f"let pass: {line}" for line in row.allowances)):
            print(f"\n{row.fleet}: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
