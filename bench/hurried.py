"""The daemon as it ships in this process, on this host, with another clock: for fast_agent.py and tick.py."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from node_anomaly_agent import assembly
from node_anomaly_agent.clock import SystemClock
from node_anomaly_agent.config import load_config
from node_anomaly_agent.logs import files, follow

INTERVAL_S = 15.0


class SkippingClock(SystemClock):
    """Time in which waits that were skipped have passed all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0

    def time(self) -> float:
        """Unix seconds, waits included."""
        return time.time() + self.skipped_s

    def monotonic(self) -> float:
        """Monotonic seconds, waits included."""
        return time.monotonic() + self.skipped_s


def run_agent(clock: type[SkippingClock], port: int, folder: Path) -> int:
    """Run the agent, which differs from any other in its clock alone, until SIGTERM; its exit code.

    Log sources have no other clock: they look for new files at every tick, as they do at this interval.
    """
    vars(assembly)["SystemClock"] = clock
    vars(files)["Limits"] = partial(follow.Limits, survey_s=0.0)
    settings = {
        "interval": INTERVAL_S,
        "web.listen-address": f"127.0.0.1:{port}",
        "state.directory": str(folder / "state"),
        "bundle.directory": str(folder / "bundles"),
        "log.level": "warning",
    }
    return assembly.run_daemon(load_config(None, settings, assembly.collector_switches()), "bench")
