"""What a training run costs: wall time, CPU time and peak memory of each of its phases.

    python bench/pipeline.py --nodes 50 --days 14 --interval 60
    python bench/pipeline.py --nodes 50 --days 14 --interval 60 --scratch /var/tmp  # where less fits

A simulated fleet is written to a Parquet file first, in a process of its own, and then read back like any
other history, so that the figures are those of a run on data: no simulation, no faults but injected ones.
Peak memory is the largest resident set of the process while a phase runs, sampled every 50 ms, and what of it
is not of a file: with --scratch the kernel keeps as much of the files in memory as it likes to.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SAMPLE_S = 0.05
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Spent:
    """One phase."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    own_mib: float


class Meter:
    """A progress that notes what each phase costs."""

    def __init__(self) -> None:
        self.phases: list[Spent] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[object]:
        """Measure the body."""
        peak = [*resident_mib()]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(SAMPLE_S):
                peak[:] = map(max, peak, resident_mib())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        wall, cpu = time.monotonic(), time.process_time()
        try:
            yield lambda _done, _words: None
        finally:
            over.set()
            watcher.join()
            spent = Spent(name, time.monotonic() - wall, time.process_time() - cpu, *peak)
            self.phases.append(spent)
            print(
                f"{name:<32} {spent.wall_s:8.1f} s wall {spent.cpu_s:8.1f} s CPU {spent.peak_mib:8.0f} MiB "
                f"{spent.own_mib:8.0f} own",
                file=sys.stderr,
                flush=True,
            )

    def note(self, line: str) -> None:
        """Say it."""
        print(f"  {line}", file=sys.stderr, flush=True)


def resident_mib() -> tuple[float, float]:
    """Of this process now, all and what is not of a file; proc_pid_statm(5)."""
    _, resident, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return resident * PAGE / 2**20, (resident - of_files) * PAGE / 2**20


def write_history(path: str, nodes: int, days: float, interval_s: float) -> None:
    """A simulated fleet as a Parquet file: timestamp, node, the catalogue's features."""
    import numpy as np
    import pandas as pd

    from node_anomaly_trainer.config import parse_config
    from node_anomaly_trainer.progress import ignore_report
    from node_anomaly_trainer.sources import fetch

    config = parse_config(
        {"interval": interval_s, "source": {"synthetic": {"nodes": nodes, "range": days * 86_400}}}
    )
    history = fetch(config, ignore_report, lambda _line: None)
    width = len(history.features)
    frame = pd.DataFrame(
        history.values.reshape(-1, width).astype(np.float32), columns=list(history.feature_names)
    )
    frame.insert(0, "node", np.tile(np.array(history.nodes), history.ticks))
    frame.insert(0, "timestamp", np.repeat(history.timestamps, nodes))
    frame.to_parquet(path)


def main() -> int:
    """Run and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--days", type=float, default=14.0)
    parser.add_argument("--interval", type=float, default=60.0)
    parser.add_argument("--scratch", default="", help="where to put what memory does not hold")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from node_anomaly_trainer.config import parse_config
    from node_anomaly_trainer.pipeline import train
    from node_anomaly_trainer.progress import Progress

    with tempfile.TemporaryDirectory() as scratch:
        data = str(Path(scratch) / "history.parquet")
        writer = multiprocessing.get_context("spawn").Process(
            target=write_history, args=(data, options.nodes, options.days, options.interval)
        )
        writer.start()
        writer.join()
        if writer.exitcode:
            return 1
        meter = Meter()
        config = parse_config(
            {
                "interval": options.interval,
                "source": {"type": "file", "file": {"path": data}},
                "training": {"scratch": options.scratch},
                "publish": {"directory": str(Path(scratch) / "bundles")},
                "report": {"directory": str(Path(scratch) / "runs")},
            }
        )
        begun, cpu = time.monotonic(), time.process_time()
        report = train(config, cast("Progress", meter))
        wall, cpu = time.monotonic() - begun, time.process_time() - cpu
    peak, own = (max(getattr(one, name) for one in meter.phases) for name in ("peak_mib", "own_mib"))
    if options.json:
        print(json.dumps({"phases": [asdict(spent) for spent in meter.phases], "wall_s": wall, "cpu_s": cpu}))
    else:
        print("| phase | wall s | CPU s | share of CPU | peak MiB | its own |\n|---|---|---|---|---|---|")
        for spent in meter.phases:
            print(
                f"| {spent.name} | {spent.wall_s:.1f} | {spent.cpu_s:.1f} | {spent.cpu_s / cpu:.0%} | "
                f"{spent.peak_mib:.0f} | {spent.own_mib:.0f} |"
            )
        print(f"| whole run | {wall:.1f} | {cpu:.1f} | 100% | {peak:.0f} | {own:.0f} |")
        print(f"\n{report.outcome}: {'; '.join(report.reasons) or 'every rule passed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
