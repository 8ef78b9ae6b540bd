"""Pressure stall information: /proc/pressure/{cpu,memory,io}.

https://docs.kernel.org/accounting/psi.html
"""

from __future__ import annotations

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import MAX_DIGITS, WHOLE, CollectorMissing, HeldFiles
from node_anomaly_core.expressions import Reading, SeriesKey

# node_exporter calls "some" waiting and "full" stalled. A CPU has no meaningful "full" for the system.
_METRICS: dict[tuple[str, bytes], SeriesKey] = {
    ("cpu", b"some"): ("node_pressure_cpu_waiting_seconds_total", ""),
    ("memory", b"some"): ("node_pressure_memory_waiting_seconds_total", ""),
    ("memory", b"full"): ("node_pressure_memory_stalled_seconds_total", ""),
    ("io", b"some"): ("node_pressure_io_waiting_seconds_total", ""),
    ("io", b"full"): ("node_pressure_io_stalled_seconds_total", ""),
}
RESOURCES = ("cpu", "memory", "io")


def parse_pressure(resource: str, data: bytes) -> Reading:
    """Seconds waited for this resource; lines that are not as documented are skipped."""
    reading: Reading = {}
    for line in data.split(b"\n"):
        averages, found, microseconds = line.rpartition(b" total=")
        key = _METRICS.get((resource, averages[:4]))
        if found and key and microseconds.isdigit() and len(microseconds) <= MAX_DIGITS:
            reading[key] = float(microseconds) * 1e-6
    return reading


class PressureCollector(HeldFiles):
    """Reads the three files; CollectorMissing on a kernel without PSI."""

    name = "pressure"

    def __init__(self, paths: Paths) -> None:
        super().__init__(*(paths.proc("pressure", resource) for resource in RESOURCES), piece=WHOLE)

    def read(self) -> Reading:
        """Seconds waited for CPU, memory and I/O; ValueError if none of the files says it."""
        reading: Reading = {}
        missing: CollectorMissing | None = None
        for resource, file in zip(RESOURCES, self._files, strict=True):
            try:
                reading.update(parse_pressure(resource, file.read()))
            except CollectorMissing as error:
                missing = error
        if not reading and missing is not None:
            raise CollectorMissing(f"{missing.message} (the kernel offers no PSI)") from missing
        if not reading:
            raise ValueError("none of the expected lines in /proc/pressure")
        return reading
