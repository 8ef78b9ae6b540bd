"""What a fleet's own past incidents are worth: a training run that knows them, judged on what came later.

    python bench/own_incidents.py DATA [--datasets smd,asd] [--per-day 1] [--jobs 1] [--json]

DATA is a folder as `anomaly-trainer bench` takes it (docs/bench-data.md). The servers of a data set are one
fleet with one bundle. It is trained as `train` trains it on all of their train parts and the first half of
their tests, whose incidents are known, three times: with them left out of what is normal and nothing more,
with them beside injected faults, and with them alone (docs/adr/0030). Each server then lives its last four
days and the second half of its test, whose labels nobody but the judge has seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.errors import AnomalyError
from node_anomaly_core.members import Models
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.windows import ticks_in
from node_anomaly_trainer.bench.data import Entry, Series, choose, load, read_manifest, require_fleet
from node_anomaly_trainer.bench.entity import LEAD_IN_S
from node_anomaly_trainer.bench.metrics import Figures, Summary, judge, summarise
from node_anomaly_trainer.bench.plan import features_of, values_of
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, UNKNOWN, History
from node_anomaly_trainer.labels import count_events, guard_band
from node_anomaly_trainer.pipeline import prepare
from node_anomaly_trainer.progress import SilentProgress

NEVER = 1_000_000
FIT_FRACTION = 0.9  # of train and half a test, so that the incidents of the latter lie in the fitted part
KNOWN = {
    "left out of what is normal": (NEVER, NEVER),
    "beside injected faults": (1, NEVER),
    "alone": (1, 1),
}
"""How the Random Forest is taught by the incidents: `labels.least_events` and `labels.enough_events`."""


@dataclass(frozen=True, eq=False, slots=True)
class Server:
    """One of the fleet."""

    series: Series
    label: NDArray[np.int8]  # (r,) of the rows of its test
    past: int  # ticks of its series that training has seen


def servers_of(entries: Sequence[Entry]) -> list[Server]:
    """The servers with half a test as their past. Raises SourceError, or ValueError for no fleet."""
    loaded = [Server(*load(entry), 0) for entry in entries]
    require_fleet([one.series for one in loaded])
    return [replace(one, past=len(one.series.train) + len(one.series.test) // 2) for one in loaded]


def fleet_of(servers: Sequence[Server], config: TrainConfig) -> History:
    """Their past on one grid that ends where it does; shorter ones begin later."""
    first = servers[0].series
    ticks = max(one.past for one in servers)
    values = np.full((ticks, len(servers), len(first.columns)), np.nan)
    labels = np.full((ticks, len(servers)), UNKNOWN, dtype=np.int8)
    for number, one in enumerate(servers):
        series = one.series
        rows = np.concatenate([values_of(series.train), values_of(series.test)])
        known = np.full(len(rows), NORMAL, dtype=np.int8)
        known[len(series.train) + series.tick_of_row[one.label == 1]] = ANOMALOUS
        values[ticks - one.past :, number] = rows[: one.past]
        labels[ticks - one.past :, number] = known[: one.past]
    return History(
        features=features_of(first.columns),
        interval_s=first.interval_s,
        nodes=tuple(one.series.entry.name for one in servers),
        timestamps=first.start_s + first.interval_s * np.arange(ticks, dtype=np.float64),
        values=values,
        labels=guard_band(labels, round(config.labels.guard / first.interval_s)),
        origin={"source": "bench"},
    )


def later(bundle: Bundle, server: Server) -> NDArray[np.float64]:
    """Scores (t,) of the ticks after its past by a server that relives the last days of it first."""
    series = server.series
    rows = np.concatenate([values_of(series.train), values_of(series.test)])
    start = max(0, server.past - ticks_in(LEAD_IN_S, series.interval_s))
    scorer = NodeScorer(bundle, series.interval_s, series.entry.name, Models(bundle))
    scores = [
        scorer.step(series.start_s + tick * series.interval_s, rows[tick]).score
        for tick in range(start, len(rows))
    ]
    return np.array(scores[server.past - start :])


def judged(server: Server, scores: NDArray[np.float64]) -> Figures:
    """Figures of the later half alone."""
    series = server.series
    whole = np.full(len(series.test), np.nan)
    whole[server.past - len(series.train) :] = scores
    rows = series.tick_of_row >= server.past - len(series.train)
    return judge(server.label[rows], series.judged(whole)[rows], series.interval_s)


def settings(base: TrainConfig, known: str, per_day: float) -> TrainConfig:
    """Of a training run that knows the incidents in one of the ways of KNOWN."""
    least, enough = KNOWN[known]
    return replace(
        base,
        training=replace(base.training, fit_fraction=FIT_FRACTION),
        labels=replace(base.labels, least_events=least, enough_events=enough),
        budget=replace(base.budget, false_alarms_per_node_week=7.0 * per_day),
    )


def run(entries: Sequence[Entry], config: TrainConfig) -> tuple[Summary, int]:
    """One training run and all its servers; how many incidents lay in the fitted part."""
    servers = servers_of(entries)
    history = fleet_of(servers, config)
    candidate = prepare(history, config, SilentProgress())
    bundle = candidate.bundle()
    del candidate
    figures = [judged(server, later(bundle, server)) for server in servers]
    fitted = history.labels[: int(history.ticks * FIT_FRACTION)] == ANOMALOUS
    guard = round(config.labels.guard / history.interval_s)
    return summarise(figures), count_events(fitted, guard)


def line_of(known: str, found: Summary) -> str:
    """One row of the table."""
    cells = (
        _cell(found.vus_pr, ".3f"), _cell(found.auc_pr, ".3f"), _cell(found.recall, ".2f"),
        _cell(found.false_alarms_per_day, ".2f"), _cell(found.alarm_share, ".1%"),
    )  # fmt: skip
    return f"| {known} | {' | '.join(cells)} |"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form).replace("%", " %")


def main() -> int:
    """Read the command line; 1 where the data cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder with manifest.json")
    parser.add_argument("--datasets", type=lambda text: tuple(text.split(",")), default=("smd", "asd"))
    parser.add_argument("--per-day", type=float, default=1.0, help="false alarms asked for")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    document: dict[str, object] = {}
    try:
        with ProcessPoolExecutor(arguments.jobs) as pool:
            for dataset in arguments.datasets:
                entries = choose(read_manifest(arguments.data), (dataset,), "")
                runs = {
                    known: pool.submit(run, entries, settings(TrainConfig(), known, arguments.per_day))
                    for known in KNOWN
                }
                found: dict[str, Summary] = {}
                for known, each in runs.items():
                    found[known], events = each.result()
                    print(f"{dataset}: {known}", file=sys.stderr, flush=True)
                document[dataset] = {
                    "servers": len(entries),
                    "incidents": events,
                    "rows": {known: asdict(one) for known, one in found.items()},
                }
                if not arguments.json:
                    print(f"\n{dataset}: {len(entries)} servers, {events} incidents known\n")
                    print("| incidents | VUS-PR | AUC-PR | recall | false alarms a day | in alarm |")
                    print("|---|---:|---:|---:|---:|---:|")
                    print("\n".join(line_of(known, one) for known, one in found.items()), flush=True)
    except (AnomalyError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(document, indent=1, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
