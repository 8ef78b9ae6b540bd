"""Temperatures of thermal zones: /sys/class/thermal/thermal_zone*/temp."""

from __future__ import annotations

import re
from pathlib import Path

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import CollectorMissing, HeldFile
from node_anomaly_core.expressions import Reading

MAX_ZONES = 64
_ZONE = re.compile(r"thermal_zone(\d{1,6})")
_TEMP = re.compile(rb"-?\d{1,9}\s*")


def parse_temp(data: bytes) -> float:
    """Degrees Celsius from the kernel's thousandths; ValueError if it is not a number."""
    if not _TEMP.fullmatch(data):
        raise ValueError(f"not a temperature: {data[:32]!r}")
    return int(data) / 1000.0


class ThermalCollector:
    """Reads every zone; the folder is listed anew each time because zones come and go with drivers."""

    name = "thermal"

    def __init__(self, paths: Paths) -> None:
        self._folder = Path(paths.sys("class", "thermal"))
        self._zones: dict[str, HeldFile] = {}

    def read(self) -> Reading:
        """Temperature of each zone; a zone that cannot answer now is left out."""
        try:
            found = {m[1] for entry in self._folder.iterdir() if (m := _ZONE.fullmatch(entry.name))}
        except FileNotFoundError as error:
            raise CollectorMissing(f"{self._folder}: no such directory") from error
        if not found:
            raise CollectorMissing(f"{self._folder}: no thermal zone (usual on virtual machines)")
        for gone in self._zones.keys() - found:
            self._zones.pop(gone).close()
        reading: Reading = {}
        for zone in sorted(found, key=int)[:MAX_ZONES]:
            if zone not in self._zones:
                self._zones[zone] = HeldFile(str(self._folder / f"thermal_zone{zone}" / "temp"))
            try:
                reading["node_thermal_zone_temp", zone] = parse_temp(self._zones[zone].read())
            except (OSError, ValueError, CollectorMissing):
                continue  # a sensor that is switched off answers with an error
        return reading

    def close(self) -> None:
        """Close every zone's file."""
        for file in self._zones.values():
            file.close()
        self._zones.clear()
