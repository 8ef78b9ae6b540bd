"""What one tick of a warm agent costs, part by part.

    python bench/tick.py [--ticks 400] [--warm 700] [--sleep 0.05]

The daemon as it ships in this process, on this host, with a clock that does not wait longer than `--sleep`
before each tick (0: back to back, caches are warm then and a node's are not). Each part is charged the CPU
time of the loop's thread that no part within it is charged. Medians add up to less than the whole: what
happens only now and then is in the means alone.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.hurried import INTERVAL_S, SkippingClock, run_agent  # noqa: E402

import rig  # noqa: E402 -- a free port
from node_anomaly_agent import board, bundle_use  # noqa: E402
from node_anomaly_agent.collectors import COLLECTORS  # noqa: E402
from node_anomaly_agent.daemon import Daemon  # noqa: E402
from node_anomaly_agent.episodes import Episodes  # noqa: E402
from node_anomaly_agent.forecast import Outlook  # noqa: E402
from node_anomaly_agent.logs.meter import LogMeter  # noqa: E402
from node_anomaly_agent.process_stats import ProcessReader  # noqa: E402
from node_anomaly_agent.sampler import Sampler  # noqa: E402
from node_anomaly_agent.score_history import ScoreRecorder  # noqa: E402
from node_anomaly_agent.state_keeper import StateKeeper  # noqa: E402
from node_anomaly_core import degradation, evidence, members, node_memory, scoring, steady  # noqa: E402
from node_anomaly_core.features import FeatureEvaluator  # noqa: E402
from node_anomaly_core.reasons import Reasons  # noqa: E402
from node_anomaly_core.residuals import ResidualBlocks  # noqa: E402
from node_anomaly_core.summary import OnlineNormaliser  # noqa: E402
from node_anomaly_core.threshold import RollingThreshold  # noqa: E402

THREADS = "other threads (state, self-test)"

PARTS: tuple[tuple[str, object, str], ...] = (
    ("the loop", Daemon, "tick"),
    ("sampling: the rest", Sampler, "sample"),
    ("sampling: features from readings", FeatureEvaluator, "update"),
    ("sampling: logs", LogMeter, "read"),
    ("scoring: the rest", scoring.NodeScorer, "step"),
    ("scoring: residual blocks", ResidualBlocks, "step"),
    ("scoring: summary", evidence, "summarise"),
    ("scoring: normalisation", OnlineNormaliser, "step"),
    ("scoring: autoregression", evidence.SmoothedSurprise, "step"),
    ("scoring: LSTM", evidence.ForecastPath, "step"),
    ("scoring: k-means", evidence.WindowPath, "step"),
    ("scoring: forests", members.Models, "forest_score"),
    ("scoring: forests", steady.HalfSmoothed, "step"),
    ("scoring: evidence", scoring, "judge_tick"),
    ("scoring: reasons", Reasons, "shares"),
    ("scoring: threshold", RollingThreshold, "step"),
    ("scoring: memory", node_memory.NodeMemory, "push"),
    ("scoring: learning the node anew", scoring.NodeScorer, "_learn"),
    ("scoring: health", degradation.MemberHealth, "number"),
    ("publishing: snapshot", board.Board, "update"),
    ("publishing: the agent's own process", ProcessReader, "read"),
    ("publishing: history", ScoreRecorder, "record"),
    ("publishing: looking ahead", Outlook, "tick"),
    ("publishing: episodes", Episodes, "tick"),
    ("between ticks: state", StateKeeper, "save_if_due"),
    ("between ticks: memory given back", Daemon, "_trim_if_due"),
    ("between ticks: bundles", bundle_use.BundleUse, "check"),
)


class Meter:
    """CPU time of one thread, charged to the innermost part that is open."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._row: dict[str, float] = {}
        self._open: list[str] = []
        self._thread = threading.get_ident()
        self._since = time.thread_time()
        self._process = time.process_time()

    def _charge(self) -> None:
        now = time.thread_time()
        part = self._open[-1] if self._open else "the loop"
        self._row[part] = self._row.get(part, 0.0) + now - self._since
        self._since = now

    def measured(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, charged to `part`; a part within itself stays one."""

        @functools.wraps(call)
        def inner(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:  # the self-test's copy of a scorer
                return call(*arguments, **named)
            self._charge()
            self._open.append(part)
            try:
                return call(*arguments, **named)
            finally:
                self._charge()
                self._open.pop()

        return inner

    def next_tick(self) -> None:
        """One tick and all that follows it is over."""
        self._charge()
        process = time.process_time()
        self._row[THREADS] = max(process - self._process - sum(self._row.values()), 0.0)
        self._process = process
        self.rows.append(self._row)
        self._row = {}


class BenchClock(SkippingClock):
    """Waits are skipped but for a moment before each tick; at the end it stops the agent."""

    meter: Meter
    sleep_s = 0.0
    warm = ticks = 0

    def wait(self, seconds: float) -> None:
        """Skip it."""
        before = int(self.skipped_s / INTERVAL_S)
        self.skipped_s += max(seconds, 0.0)
        if int(self.skipped_s / INTERVAL_S) == before:
            return
        self.meter.next_tick()
        if len(self.meter.rows) >= self.ticks:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.sleep_s and len(self.meter.rows) >= self.warm:
            time.sleep(self.sleep_s)


def instrument(meter: Meter) -> None:
    """Put the meter around every part and every collector."""
    for part, owner, name in PARTS:
        setattr(owner, name, meter.measured(part, getattr(owner, name)))
    for name, spec in COLLECTORS.items():
        collector: Any = spec.factory
        collector.read = meter.measured(f"sampling: {name}", collector.read)


def run(warm: int, ticks: int, sleep_s: float, folder: Path) -> list[dict[str, float]]:
    """Seconds of CPU of each part in each tick of a fresh agent, those that warm it up as well."""
    meter = Meter()
    instrument(meter)
    BenchClock.meter, BenchClock.sleep_s = meter, sleep_s
    BenchClock.warm, BenchClock.ticks = warm, warm + ticks
    run_agent(BenchClock, rig.free_port(), folder)
    return meter.rows


def show(rows: list[dict[str, float]]) -> None:
    """The table of bench/results/tick.md, largest part first within each subject."""
    columns: dict[str, dict[str, list[float]]] = {}  # by subject, by part
    for part in sorted({part for row in rows for part in row}):
        subject, _, name = part.partition(": ")
        columns.setdefault(subject, {})[name] = [1e3 * row.get(part, 0.0) for row in rows]
    print(f"| {'CPU of a tick, ms':<40} | median |   mean |")
    print(f"|{'-' * 42}|-------:|-------:|")

    def line(name: str, values: list[float]) -> None:
        print(f"| {name:<40} | {statistics.median(values):6.3f} | {statistics.fmean(values):6.3f} |")

    line("all of it", [1e3 * sum(row.values()) for row in rows])
    wholes = {
        subject: [sum(each) for each in zip(*parts.values(), strict=True)]
        for subject, parts in columns.items()
    }
    for subject in sorted(wholes, key=lambda one: -statistics.fmean(wholes[one])):
        line(subject, wholes[subject])
        parts = columns[subject]
        for name in sorted(parts, key=lambda one: -statistics.fmean(parts[one])):
            if name:
                line(f"  {name}", parts[name])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--ticks", type=int, default=400, help="that are measured")
    parser.add_argument("--warm", type=int, default=700, help="that come before")
    parser.add_argument("--sleep", type=float, default=0.05, help="seconds before each tick that counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(options.warm, options.ticks, options.sleep, Path(folder))
    show(rows[options.warm :])


if __name__ == "__main__":
    main()
