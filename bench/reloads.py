"""Thousands of reloads in a row: is a tick lost, does anything grow?

    python bench/reloads.py [--count 10000] [--json]

The daemon as it ships, but for a clock that does not wait and a host of a few features: a real reloader
with its watch and its thread, real bundles on disk (tests/agent_bundle.py, eight features), the real swap
with the history relived. Two bundles take turns by their `current` link; each is verified from its bytes
every time. Ticks go on all the while; a tick is lost if it is skipped or fails. Memory, descriptors and
threads are read on the way.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import agent_bundle  # noqa: E402 -- the bundles of the tests
from agent_fakes import FakeLog  # noqa: E402
from node_anomaly_agent.clock import SystemClock  # noqa: E402
from node_anomaly_agent.daemon import Daemon  # noqa: E402
from node_anomaly_agent.distribution import Distribution  # noqa: E402
from node_anomaly_agent.ledger import Ledger  # noqa: E402
from node_anomaly_agent.log_setup import Log  # noqa: E402
from node_anomaly_agent.loop_parts import Parts  # noqa: E402
from node_anomaly_agent.memory import map_large_blocks, trim  # noqa: E402
from node_anomaly_agent.process_stats import ProcessStats  # noqa: E402
from node_anomaly_agent.reload import Reloader  # noqa: E402
from node_anomaly_agent.sampler import Sample  # noqa: E402
from node_anomaly_agent.scorer import load_candidate  # noqa: E402
from node_anomaly_agent.state_keeper import StateKeeper  # noqa: E402
from node_anomaly_core.bundle import activate  # noqa: E402
from node_anomaly_core.features import CATALOGUE  # noqa: E402

FEATURES = CATALOGUE[:8]
INTERVAL_S = 300.0
"""Five minutes: a bundle that takes over relives hours of ticks, which at 15 s is most of the time here."""


class FastClock(SystemClock):
    """Skips every wait, but gives a verification that runs a real moment."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0.0

    def time(self) -> float:
        """Unix seconds, waits included."""
        return super().time() + self.skipped

    def monotonic(self) -> float:
        """Monotonic seconds, waits included."""
        return super().monotonic() + self.skipped

    def wait(self, seconds: float) -> None:
        """Five milliseconds for the whole wait; a wake-up, as in life, ends it early."""
        before = time.monotonic()
        super().wait(0.005)
        if time.monotonic() - before >= 0.005:
            self.skipped += max(seconds - 0.005, 0.0)


class Sampler:
    """A host with a daily rhythm and noise."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def sample(self, timestamp: float) -> Sample:
        """One row."""
        level = 10.0 + np.sin(timestamp / 86400.0 * 2 * np.pi)
        return Sample(timestamp, level + self._rng.normal(0, 1, len(FEATURES)), {})

    def state(self) -> dict[str, object]:
        """Nothing."""
        return {}

    def restore(self, _state: object) -> bool:
        """Of no use."""
        return False


@dataclass(frozen=True)
class Row:
    """How things stand after so many reloads."""

    reloads: int
    resident_mib: float
    descriptors: int
    threads: int
    evaluations: int
    lost: int
    refused: int


def look(daemon: Daemon) -> Row:
    """The row of this moment."""
    status = Path("/proc/self/status").read_text()
    counters = daemon.snapshot.counters
    return Row(
        counters.reloads,
        round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1),
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        int(status.split("Threads:")[1].split()[0]),
        counters.evaluations,
        sum(counters.skipped.values()) + sum(counters.failures.values()),
        sum(counters.reload_failures.values()),
    )


def run(count: int) -> list[Row]:
    """Reload so often; rows at 1 %, and at every tenth."""
    map_large_blocks()
    with tempfile.TemporaryDirectory() as home:
        root = Path(home) / "bundles"
        versions = [
            agent_bundle.make_bundle(root, trained_at=1.7e9 + number, features=FEATURES).name
            for number in range(2)
        ]
        activate(root, versions[0])
        clock, lines = FastClock(), FakeLog()
        log = cast("Log", lines)
        ledger = Ledger(Path(home))
        distribution = Distribution(ledger, lambda _: None, log, clock.time, clock.wake, auto_rollback=False)
        reloader = Reloader(
            root,
            lambda path: load_candidate(path, FEATURES, INTERVAL_S, "", admit=distribution.admit),
            30.0,
            clock,
            log,
        )
        daemon = Daemon(
            Parts(
                sampler=Sampler(),
                reloader=reloader,
                fallback=lambda _: None,
                clock=clock,
                log=log,
                interval_s=INTERVAL_S,
                keeper=StateKeeper(Path(home), clock, log),
                process=ProcessStats,
                trim=trim,
                distribution=distribution,
            )
        )
        daemon.start()
        reloader.start()
        rows: list[Row] = []
        marks = [max(count // 100, 1), *(count * tenth // 10 for tenth in range(1, 11))]
        wanted = 1
        original_tick = daemon.tick

        def tick() -> None:
            nonlocal wanted
            original_tick()
            lines.lines.clear()
            done = daemon.snapshot.counters.reloads
            if len(rows) < len(marks) and done >= marks[len(rows)]:
                rows.append(look(daemon))
            if done >= count:
                daemon.request_stop()
            elif done >= wanted - 1 and daemon.snapshot.bundle is not None:
                wanted = done + 2
                now = daemon.snapshot.bundle.version
                activate(root, versions[1] if now == versions[0] else versions[0])
                reloader.request()

        daemon.tick = tick  # type: ignore[method-assign]
        daemon.run()
        reloader.stop()
        daemon.stop()
        return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    started, cpu = time.monotonic(), time.process_time()
    rows = run(options.count)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
        return
    print("| reloads | RSS, MiB | descriptors | threads | ticks | lost | refused |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row.reloads} | {row.resident_mib} | {row.descriptors} | {row.threads} | {row.evaluations} "
            f"| {row.lost} | {row.refused} |"
        )
    print(f"\n{time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} s of CPU")


if __name__ == "__main__":
    main()
