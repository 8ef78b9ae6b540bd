"""Temperatures of chips: /sys/class/hwmon/hwmon*/temp*_input, as node_exporter's hwmon collector reads them.

https://docs.kernel.org/hwmon/sysfs-interface.html. Some old drivers keep the files in `device/` below it.
"""

from __future__ import annotations

import re
from pathlib import Path

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import SHORT, CollectorMissing, HeldFile
from node_anomaly_agent.collectors.thermal import parse_temp
from node_anomaly_core.expressions import Reading

MAX_SENSORS = 256
LOOK_EVERY = 20
"""Ticks between two looks for chips and sensors: disks come and go, and listing costs more than reading."""

_SENSOR = re.compile(r"temp\d{1,4}_input")


class HwmonCollector:
    """Reads every sensor; the folders are listed anew every LOOK_EVERY ticks."""

    name = "hwmon"

    def __init__(self, paths: Paths) -> None:
        self._folder = Path(paths.sys("class", "hwmon"))
        self._sensors: dict[str, HeldFile] = {}
        self._missing = ""
        self._rest = 0

    def read(self) -> Reading:
        """Temperature of each sensor, by chip and sensor; one that cannot answer now is left out.

        Raises CollectorMissing on a host without any.
        """
        if self._rest:
            self._rest -= 1
        else:
            self._rest = LOOK_EVERY - 1
            self._look()
        if not self._sensors:
            raise CollectorMissing(self._missing)
        reading: Reading = {}
        for label, file in self._sensors.items():
            try:
                reading["node_hwmon_temp_celsius", label] = parse_temp(file.read())
            except (OSError, ValueError, CollectorMissing):
                continue  # a sensor that sleeps, or a disk that was pulled
        return reading

    def _look(self) -> None:
        try:
            found = self._found()
            self._missing = f"{self._folder}: no temperature sensor (usual on virtual machines)"
        except FileNotFoundError:
            found = {}
            self._missing = f"{self._folder}: no such directory"
        for gone in self._sensors.keys() - found.keys():
            self._sensors.pop(gone).close()
        for label in sorted(found)[:MAX_SENSORS]:
            if label not in self._sensors:
                self._sensors[label] = HeldFile(str(found[label]), piece=SHORT)

    def _found(self) -> dict[str, Path]:
        """Every sensor's file by chip and name."""
        found: dict[str, Path] = {}
        for chip in self._folder.iterdir():
            for folder in (chip / "device", chip):
                try:
                    names = [entry.name for entry in folder.iterdir()]
                except OSError:
                    continue
                for name in filter(_SENSOR.fullmatch, names):
                    found[f"{chip.name}/{name.removesuffix('_input')}"] = folder / name
        return found

    def close(self) -> None:
        """Close every sensor's file; a later read looks for them again."""
        for file in self._sensors.values():
            file.close()
        self._sensors.clear()
        self._rest = 0
