"""How many threads there are: the fourth field of /proc/loadavg, without walking /proc."""

from __future__ import annotations

import re

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import WHOLE, HeldFiles
from node_anomaly_core.expressions import Reading

_THREADS = re.compile(rb"\S+ \S+ \S+ \d{1,9}/(\d{1,9}) ")


def parse_threads(data: bytes) -> Reading:
    """The number after the slash; ValueError if there is none."""
    found = _THREADS.match(data)
    if found is None:
        raise ValueError(f"no thread count in /proc/loadavg: {data[:64]!r}")
    return {("node_processes_threads", ""): float(found[1])}


class ProcessesCollector(HeldFiles):
    """Reads /proc/loadavg."""

    name = "processes"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("loadavg"), piece=WHOLE)

    def read(self) -> Reading:
        """Threads in the system."""
        return parse_threads(self._files[0].read())
