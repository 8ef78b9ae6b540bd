"""Pressure stall information: /proc/pressure/{cpu,memory,io}.

https://docs.kernel.org/accounting/psi.html
"""

from __future__ import annotations

import re

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import CollectorMissing, HeldFiles
from node_anomaly_core.expressions import Reading

# node_exporter calls "some" waiting and "full" stalled. A CPU has no meaningful "full" for the system.
_METRICS = {
    ("cpu", b"some"): "node_pressure_cpu_waiting_seconds_total",
    ("memory", b"some"): "node_pressure_memory_waiting_seconds_total",
    ("memory", b"full"): "node_pressure_memory_stalled_seconds_total",
    ("io", b"some"): "node_pressure_io_waiting_seconds_total",
    ("io", b"full"): "node_pressure_io_stalled_seconds_total",
}
RESOURCES = ("cpu", "memory", "io")
_LINE = re.compile(rb"^(some|full) [^\n]*\btotal=(\d{1,20})$", re.MULTILINE)


def parse_pressure(resource: str, data: bytes) -> Reading:
    """Seconds waited for this resource; lines that are not as documented are skipped."""
    return {
        (_METRICS[resource, kind], ""): float(microseconds) * 1e-6
        for kind, microseconds in _LINE.findall(data)
        if (resource, kind) in _METRICS
    }


class PressureCollector(HeldFiles):
    """Reads the three files; CollectorMissing on a kernel without PSI."""

    name = "pressure"

    def __init__(self, paths: Paths) -> None:
        super().__init__(*(paths.proc("pressure", resource) for resource in RESOURCES))

    def read(self) -> Reading:
        """Seconds waited for CPU, memory and I/O."""
        reading: Reading = {}
        missing: CollectorMissing | None = None
        for resource, file in zip(RESOURCES, self._files, strict=True):
            try:
                reading.update(parse_pressure(resource, file.read()))
            except CollectorMissing as error:
                missing = error
        if not reading and missing is not None:
            raise CollectorMissing(f"{missing.message} (the kernel offers no PSI)") from missing
        return reading
