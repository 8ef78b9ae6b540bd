"""Memory and swap in bytes: /proc/meminfo."""

from __future__ import annotations

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import WHOLE, HeldFiles, numbers_after
from node_anomaly_core.expressions import Reading, SeriesKey

FIELDS = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Dirty", "Writeback", "Slab")
_TOTAL: SeriesKey = ("node_memory_MemTotal_bytes", "")
_LINES: tuple[tuple[bytes, SeriesKey], ...] = tuple(
    (f"\n{name}: ".encode(), (f"node_memory_{name}_bytes", "")) for name in FIELDS
)
KIB = 1024.0
"""What the kernel calls kB."""


def parse_meminfo(data: bytes) -> Reading:
    """The fields that are there, in bytes; ValueError if MemTotal is not among them."""
    reading: Reading = {key: kib * KIB for key, kib in numbers_after(data, _LINES).items()}
    if _TOTAL not in reading:
        raise ValueError("no MemTotal in /proc/meminfo")
    return reading


class MemoryCollector(HeldFiles):
    """Reads /proc/meminfo."""

    name = "memory"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("meminfo"), piece=WHOLE)

    def read(self) -> Reading:
        """Memory and swap in bytes."""
        return parse_meminfo(self._files[0].read())
