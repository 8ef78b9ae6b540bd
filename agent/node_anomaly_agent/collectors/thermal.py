"""Temperatures of thermal zones: /sys/class/thermal/thermal_zone*/temp."""

from __future__ import annotations

import os
import re

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import SHORT, CollectorMissing, HeldFile
from node_anomaly_core.expressions import Reading

MAX_ZONES = 64
LOOK_EVERY = 20
"""Ticks between two looks on a host that had no zone: most virtual machines never get one."""

_ZONE = re.compile(r"thermal_zone(\d{1,6})")
_TEMP = re.compile(rb"-?\d{1,9}\s*")


def parse_temp(data: bytes) -> float:
    """Degrees Celsius from the kernel's thousandths; ValueError if it is not a number."""
    if not _TEMP.fullmatch(data):
        raise ValueError(f"not a temperature: {data[:32]!r}")
    return int(data) / 1000.0


class ThermalCollector:
    """Reads every zone; where there are any the folder is listed anew each time, as drivers come and go."""

    name = "thermal"

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.sys("class", "thermal")
        self._zones: dict[str, HeldFile] = {}
        self._missing = ""
        self._rest = 0

    def read(self) -> Reading:
        """Temperature of each zone; a zone that cannot answer now is left out."""
        if self._rest:
            self._rest -= 1
        else:
            self._look()
        if not self._zones:
            raise CollectorMissing(self._missing)
        reading: Reading = {}
        for zone, file in self._zones.items():
            try:
                reading["node_thermal_zone_temp", zone] = parse_temp(file.read())
            except (OSError, ValueError, CollectorMissing):
                continue  # a sensor that is switched off answers with an error
        return reading

    def _look(self) -> None:
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 -- a Path for each zone and tick costs more
            self._missing = f"{self._folder}: no thermal zone (usual on virtual machines)"
        except FileNotFoundError:
            names = []
            self._missing = f"{self._folder}: no such directory"
        found = {match[1] for name in names if (match := _ZONE.fullmatch(name))}
        for gone in self._zones.keys() - found:
            self._zones.pop(gone).close()
        for zone in sorted(found - self._zones.keys(), key=int)[: MAX_ZONES - len(self._zones)]:
            self._zones[zone] = HeldFile(f"{self._folder}/thermal_zone{zone}/temp", piece=SHORT)
        self._rest = 0 if self._zones else LOOK_EVERY - 1

    def close(self) -> None:
        """Close every zone's file; a later read looks for them again."""
        for file in self._zones.values():
            file.close()
        self._zones.clear()
        self._rest = 0
