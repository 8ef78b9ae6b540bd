"""A fresh agent on an idle host, then the host is put under stress: after how many hours is that an alarm?

    python bench/first_days.py [--hours 0.25,1,4,12,24,48] [--faults cpu,disk,sockets] [--every 3]
        [--bundle DIR] [--rows FILE] [--json]

Real rows of this host, which should be idle: four minutes of nothing, then each fault of tests/host_faults.py
for 75 s with 45 s of rest before it, sampled as the agent samples, a tick every three seconds. Then nobody
waits: for each number of hours a scorer that has never seen the host lives that long through the idle rows,
eight in a row from anywhere, at a tick of 15 s, and then through ten minutes of the fault. Printed for each:
the highest score while idle and in the fault, and the ticks until an alarm (three at 1 or above). An idle
host has no cron jobs here: what comes once a day is an alarm once a node has learnt to be calm, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from host_faults import FAULTS, provoked  # noqa: E402 -- the faults of the tests
from node_anomaly_agent import assembly  # noqa: E402
from node_anomaly_agent.config import load_config  # noqa: E402
from node_anomaly_core.bundle import Bundle, starter_bundle, verify_bundle  # noqa: E402
from node_anomaly_core.calibration import HOLD_TICKS  # noqa: E402
from node_anomaly_core.errors import AnomalyError  # noqa: E402
from node_anomaly_core.members import Models  # noqa: E402
from node_anomaly_core.score import columns_of  # noqa: E402
from node_anomaly_core.scoring import NodeScorer  # noqa: E402

IDLE_S, FAULT_S, REST_S = 240.0, 75.0, 45.0
UNSETTLED = 8
"""Rows at the start of a phase that still show the one before: rates look back four ticks."""

INTERVAL_S = 15.0
LIVED_TICKS = 40
PIECE = 8
START = 1.7e9

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """One fault after so many hours."""

    hours: float
    fault: str
    threshold_ratio: float
    highest_idle: float | None
    highest: float
    ticks_to_alarm: int | None
    reasons: tuple[str, ...]


def record(faults: Sequence[str], every_s: float) -> dict[str, Rows]:
    """Rows (n, f) of the catalogue, idle and under each fault."""
    config = load_config(
        None, {"interval": every_s, "collector.logs.journald": False}, assembly.collector_switches()
    )
    sampler = assembly.build_sampler(config)
    taken: dict[str, Rows] = {}

    def sample(phase: str, seconds: float) -> None:
        rows = []
        for tick in range(max(UNSETTLED + PIECE, round(seconds / every_s))):
            begun = time.monotonic()
            rows.append(sampler.sample(time.time()).values.copy())
            if sys.stderr.isatty():
                print(f"\r{phase:10} {tick * every_s:4.0f} s", end="", file=sys.stderr)
            time.sleep(max(0.0, every_s - (time.monotonic() - begun)))
        taken[phase] = np.array(rows[UNSETTLED:])

    try:
        sample("idle", IDLE_S)
        with tempfile.TemporaryDirectory(prefix="anomaly-first-days-") as scratch:
            for fault in faults:
                sample("rest", REST_S)
                with provoked(fault, Path(scratch)):
                    sample(fault, FAULT_S)
    finally:
        sampler.close()
    del taken["rest"]
    return taken


def live(bundle: Bundle, idle: Rows, fault: tuple[str, Rows], hours: float, models: Models) -> Found:
    """A scorer that never saw the node lives `hours` of idle rows (n, f) and ten minutes of the fault."""
    random = np.random.default_rng(0)
    before = round(hours * 3600 / INTERVAL_S)
    begins = random.integers(0, max(1, len(idle) - PIECE), -(-before // PIECE))
    lived = idle[(begins[:, None] + np.arange(PIECE)).ravel()[:before] % len(idle)]
    name, wrong = fault
    scorer = NodeScorer(bundle, INTERVAL_S, models=models)
    rows = np.concatenate([lived, wrong[np.arange(LIVED_TICKS) % len(wrong)]])
    said = [scorer.step(START + tick * INTERVAL_S, row) for tick, row in enumerate(rows)]
    scores = np.array([one.score for one in said])
    high = np.nan_to_num(scores[before:]) >= 1.0
    alarms = [at for at in range(HOLD_TICKS, len(high) + 1) if high[at - HOLD_TICKS : at].all()]
    highest = said[before + int(np.nanargmax(scores[before:]))]
    first = np.argsort(-np.nan_to_num(highest.contributions))[:3]
    quiet = scores[before // 2 : before]
    return Found(
        hours,
        name,
        said[before].threshold_ratio,
        float(np.nanmax(quiet)) if np.isfinite(quiet).any() else None,
        highest.score,
        alarms[0] if alarms else None,
        tuple(scorer.features[at] for at in first),
    )


def columns(bundle: Bundle, rows: Mapping[str, Rows], names: Sequence[str]) -> dict[str, Rows]:
    """The features of the bundle, in its order; one that the catalogue lacks was not recorded."""
    index = {name: at for at, name in enumerate(names)}
    at = [index.get(feature.name, -1) for feature in bundle.manifest.features]
    return {phase: columns_of(taken, at) for phase, taken in rows.items()}


def read_rows(path: Path, phases: Sequence[str], width: int) -> dict[str, Rows]:
    """What `--rows` kept of these phases. Raises AnomalyError where that is something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = {name: np.asarray(file[name], dtype=np.float64) for name in phases}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise AnomalyError(f"{path} does not hold {', '.join(phases)}", "name a new file") from error
    if not all(taken.ndim == 2 and len(taken) and taken.shape[1] == width for taken in rows.values()):
        raise AnomalyError(f"{path} has not the {width} features of this version", "name a new file")
    return rows


def main() -> int:
    """Read the command line; 1 where a fault is no alarm after the longest time, 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--hours", type=lambda text: [float(one) for one in text.split(",")], default="0.25,1,4,12,24,48"
    )
    parser.add_argument("--faults", type=lambda text: text.split(","), default="cpu,disk,sockets")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two recorded ticks")
    parser.add_argument("--bundle", type=Path, default=starter_bundle(), help="instead of the starter")
    parser.add_argument("--rows", type=Path, help="keep what was recorded here, or take what is there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.faults) - set(FAULTS):
        parser.error(f"--faults: no fault {min(unknown)!r}; there are {', '.join(FAULTS)}")
    try:
        bundle = verify_bundle(arguments.bundle)
    except AnomalyError as error:
        parser.error(f"--bundle: {error}")
    names = [feature.name for feature in load_config(None, {}, assembly.collector_switches()).features]
    if arguments.rows and arguments.rows.exists():
        try:
            rows = read_rows(arguments.rows, ("idle", *arguments.faults), len(names))
        except AnomalyError as error:
            parser.error(f"--rows: {error.message}; {error.hint}")
    else:
        rows = record(arguments.faults, arguments.every)
        if arguments.rows:
            kept: dict[str, Any] = dict(rows)
            np.savez_compressed(arguments.rows, **kept)
    rows, models = columns(bundle, rows, names), Models(bundle)
    found = [
        live(bundle, rows["idle"], (fault, rows[fault]), hours, models)
        for hours in arguments.hours
        for fault in arguments.faults
    ]
    if arguments.json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        print("| hours | fault | threshold | highest idle | highest | ticks to the alarm | first reasons |")
        print("|---:|---|---:|---:|---:|---:|---|")
        for one in found:
            ticks = "none" if one.ticks_to_alarm is None else one.ticks_to_alarm
            idle = "-" if one.highest_idle is None else f"{one.highest_idle:.2f}"
            print(
                f"| {one.hours:g} | {one.fault} | {one.threshold_ratio:.2f} | {idle} "
                f"| {one.highest:.2f} | {ticks} | {', '.join(one.reasons)} |"
            )
    last = [one for one in found if one.hours == max(arguments.hours)]
    return 0 if all(one.ticks_to_alarm is not None for one in last) else 1


if __name__ == "__main__":
    sys.exit(main())
