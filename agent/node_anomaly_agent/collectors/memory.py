"""Memory and swap in bytes: /proc/meminfo."""

from __future__ import annotations

import re

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import HeldFiles
from node_anomaly_core.expressions import Reading, SeriesKey

FIELDS = ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree", "Dirty", "Writeback", "Slab")
_KEYS: dict[bytes, SeriesKey] = {name.encode(): (f"node_memory_{name}_bytes", "") for name in FIELDS}
_LINE = re.compile(rb"^(%s): +(\d{1,17}) kB$" % b"|".join(_KEYS), re.MULTILINE)


def parse_meminfo(data: bytes) -> Reading:
    """The fields that are there, in bytes; ValueError if MemTotal is not among them."""
    reading: Reading = {_KEYS[name]: float(kib) * 1024.0 for name, kib in _LINE.findall(data)}
    if _KEYS[b"MemTotal"] not in reading:
        raise ValueError("no MemTotal in /proc/meminfo")
    return reading


class MemoryCollector(HeldFiles):
    """Reads /proc/meminfo."""

    name = "memory"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("meminfo"))

    def read(self) -> Reading:
        """Memory and swap in bytes."""
        return parse_meminfo(self._files[0].read())
