"""The whole agent on this host with a clock that does not wait: days of ticks in seconds.

    python bench/fast_agent.py TICKS SPACED PORT DIRECTORY

Everything but the clock is the daemon as it ships: collectors over the real /proc, scoring, state, reload,
web server. After TICKS back to back it does SPACED more with a second of sleep before each, when caches and
CPU frequency are as they are on a node, prints a line of JSON, and then waits like any agent, to be scraped.
Run by footprint.py with the Python of an environment that holds nothing but the agent.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from node_anomaly_agent import assembly
from node_anomaly_agent.clock import SystemClock
from node_anomaly_agent.config import load_config

INTERVAL_S = 15.0


class FastClock(SystemClock):
    """Skips the waits; CPU time is noted where the hurry ends."""

    ticks = 0
    spaced = 0

    def __init__(self) -> None:
        super().__init__()
        self._skipped = 0.0
        self._started = time.process_time()
        self._warm: float | None = None
        self._hurried: float | None = None
        self._told = False

    def time(self) -> float:
        """Unix seconds, waits included."""
        return time.time() + self._skipped

    def monotonic(self) -> float:
        """Monotonic seconds, waits included."""
        return time.monotonic() + self._skipped

    def wait(self, seconds: float) -> None:
        """Skip the wait, shorten it, or at the end take it."""
        done, cpu = self._skipped / INTERVAL_S, time.process_time()
        if done >= self.ticks + self.spaced:
            self._tell(cpu)
            super().wait(seconds)
            return
        if done >= self.ticks:
            self._hurried = self._hurried or cpu
            time.sleep(max(seconds, 0.0) / INTERVAL_S)
        elif done >= self.ticks / 2:
            self._warm = self._warm or cpu
        self._skipped += max(seconds, 0.0)

    def _tell(self, cpu: float) -> None:
        if self._told or self._hurried is None or self._warm is None:
            return
        self._told = True
        answer = {
            "tick_cpu_ms": 1e3 * (self._hurried - self._warm) / (self.ticks / 2),
            "spaced_tick_cpu_ms": 1e3 * (cpu - self._hurried) / max(self.spaced, 1),
        }
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Run the daemon until SIGTERM."""
    ticks, spaced, port, directory = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    FastClock.ticks, FastClock.spaced = ticks, spaced
    vars(assembly)["SystemClock"] = FastClock  # the one thing that differs from the agent
    settings = {
        "interval": INTERVAL_S,
        "web.listen-address": f"127.0.0.1:{port}",
        "state.directory": str(directory / "state"),
        "bundle.directory": str(directory / "bundles"),
        "log.level": "warning",
    }
    sys.exit(assembly.run_daemon(load_config(None, settings, assembly.collector_switches()), "bench"))


if __name__ == "__main__":
    main()
