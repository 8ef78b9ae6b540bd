"""The whole agent on this host with a clock that does not wait: days of ticks in seconds.

    python bench/fast_agent.py TICKS SPACED PORT DIRECTORY   (TICKS and SPACED at least 1)

Everything but the clock is the daemon as it ships: collectors over the real /proc, scoring, state, reload,
web server. After TICKS back to back it does SPACED more with a second of sleep before each, when caches and
CPU frequency are as they are on a node, prints a line of JSON, and then waits like any agent, to be scraped.
The means hold all that a tick may bring (the state, a self-test, learning an unknown node anew, which takes
as long as a hundred ticks and comes at each doubling of its past, up to a day), the medians a usual tick.
Run by footprint.py with the Python of an environment that holds nothing but the agent.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import pairwise
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
        self._marks = [time.process_time()]  # CPU at the end of each tick and of all that follows it
        self._told = False

    def wait(self, seconds: float) -> None:
        """Skip the wait, shorten it, or at the end take it."""
        done, cpu = self.skipped_s / INTERVAL_S, time.process_time()
        if done >= self.ticks + self.spaced:
            self._tell(cpu)
            super().wait(seconds)
            return
        if done >= self.ticks:
            time.sleep(max(seconds, 0.0) / INTERVAL_S)
        self.skipped_s += max(seconds, 0.0)
        if int(self.skipped_s / INTERVAL_S) > int(done):
            self._marks.append(cpu)

    def _tell(self, cpu: float) -> None:
        if self._told:
            return
        self._told = True
        each = [1e3 * (after - before) for before, after in pairwise([*self._marks, cpu])]
        hurried, spaced = each[: self.ticks][self.ticks // 2 :], each[self.ticks :]
        answer = {
            "tick_cpu_ms": statistics.fmean(hurried),
            "median_tick_cpu_ms": statistics.median(hurried),
            "spaced_tick_cpu_ms": statistics.fmean(spaced),
            "median_spaced_tick_cpu_ms": statistics.median(spaced),
        }
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Run the daemon until SIGTERM."""
    ticks, spaced, port, directory = *map(int, sys.argv[1:4]), Path(sys.argv[4])
    FastClock.ticks, FastClock.spaced = ticks, spaced
    sys.exit(run_agent(FastClock, port, directory))


if __name__ == "__main__":
    main()
