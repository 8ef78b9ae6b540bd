"""The load average over one minute: /proc/loadavg."""

from __future__ import annotations

import re

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import WHOLE, HeldFiles
from node_anomaly_core.expressions import Reading

_LOAD = re.compile(rb"(\d{1,9}\.\d{1,9}) ")


def parse_loadavg(data: bytes) -> Reading:
    """The first number; ValueError if there is none."""
    found = _LOAD.match(data)
    if found is None:
        raise ValueError(f"not a load average: {data[:64]!r}")
    return {("node_load1", ""): float(found[1])}


class LoadavgCollector(HeldFiles):
    """Reads /proc/loadavg."""

    name = "loadavg"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("loadavg"), piece=WHOLE)

    def read(self) -> Reading:
        """The load average over one minute."""
        return parse_loadavg(self._files[0].read())
