"""Swapped pages, major faults and OOM kills: /proc/vmstat."""

from __future__ import annotations

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import HeldFiles, numbers_after
from node_anomaly_core.expressions import Reading, SeriesKey

FIELDS = ("pswpin", "pswpout", "pgmajfault", "oom_kill")
_LINES: tuple[tuple[bytes, SeriesKey], ...] = tuple(
    (f"\n{name} ".encode(), (f"node_vmstat_{name}", "")) for name in FIELDS
)


def parse_vmstat(data: bytes) -> Reading:
    """The fields that are there (oom_kill needs Linux 4.13); ValueError if there is none."""
    reading: Reading = numbers_after(data, _LINES)
    if not reading:
        raise ValueError("none of the expected lines in /proc/vmstat")
    return reading


class VmstatCollector(HeldFiles):
    """Reads /proc/vmstat."""

    name = "vmstat"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("vmstat"))

    def read(self) -> Reading:
        """Counters of pages and kills."""
        return parse_vmstat(self._files[0].read())
