"""Disk operations, bytes and time: /proc/diskstats.

https://docs.kernel.org/admin-guide/iostats.html
"""

from __future__ import annotations

from node_anomaly_agent.collectors.devices import MAX_DEVICES, DeviceFilter
from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import HeldFiles, numbers
from node_anomaly_core.catalogue import DISK_EXCLUDE
from node_anomaly_core.expressions import Reading

# (position after the name, metric, factor to base units); sectors are 512 bytes whatever the disk says
_FIELDS = (
    (0, "node_disk_reads_completed_total", 1.0),
    (2, "node_disk_read_bytes_total", 512.0),
    (3, "node_disk_read_time_seconds_total", 1e-3),
    (4, "node_disk_writes_completed_total", 1.0),
    (6, "node_disk_written_bytes_total", 512.0),
    (7, "node_disk_write_time_seconds_total", 1e-3),
    (9, "node_disk_io_time_seconds_total", 1e-3),
    (10, "node_disk_io_time_weighted_seconds_total", 1e-3),
)
_LENGTH = 11
_DISKS = DeviceFilter(DISK_EXCLUDE)


def parse_diskstats(data: bytes, disks: DeviceFilter = _DISKS) -> Reading:
    """Counters of every whole disk; lines without 11 or more numbers are skipped.

    ValueError for more than MAX_DEVICES disks.
    """
    reading: Reading = {}
    for line in data.split(b"\n"):
        head = line.split(None, 3)
        device = disks.wanted(head[2]) if len(head) > 3 else ""
        if not device:
            continue
        fields = head[3].split(None, _LENGTH)[:_LENGTH]
        if len(fields) < _LENGTH or not numbers(fields):
            continue
        for at, metric, factor in _FIELDS:
            reading[metric, device] = float(fields[at]) * factor
    if len(reading) > MAX_DEVICES * len(_FIELDS):
        raise ValueError(f"more than {MAX_DEVICES} disks in /proc/diskstats")
    return reading


class DiskstatsCollector(HeldFiles):
    """Reads /proc/diskstats."""

    name = "diskstats"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("diskstats"))

    def read(self) -> Reading:
        """Counters of every whole disk; empty on a host without disks, whose file is empty as well."""
        return parse_diskstats(self._files[0].read())
