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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.hurried import INTERVAL_S, SkippingClock, run_agent  # noqa: E402


class FastClock(SkippingClock):
    """Skips the waits; CPU time is noted where the hurry ends."""

    ticks = 0
    spaced = 0

    def __init__(self) -> None:
        super().__init__()
        self._started = time.process_time()
        self._warm: float | None = None
        self._hurried: float | None = None
        self._told = False

    def wait(self, seconds: float) -> None:
        """Skip the wait, shorten it, or at the end take it."""
        done, cpu = self.skipped_s / INTERVAL_S, time.process_time()
        if done >= self.ticks + self.spaced:
            self._tell(cpu)
            super().wait(seconds)
            return
        if done >= self.ticks:
            self._hurried = self._hurried or cpu
            time.sleep(max(seconds, 0.0) / INTERVAL_S)
        elif done >= self.ticks / 2:
            self._warm = self._warm or cpu
        self.skipped_s += max(seconds, 0.0)

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
    ticks, spaced, port, directory = *map(int, sys.argv[1:4]), Path(sys.argv[4])
    FastClock.ticks, FastClock.spaced = ticks, spaced
    sys.exit(run_agent(FastClock, port, directory))


if __name__ == "__main__":
    main()
