"""Which devices are worth reading, decided once for each name."""

from __future__ import annotations

import re

MAX_NAMES = 4096
"""Decisions remembered; beyond that (container interfaces come and go) they are made again."""

MAX_DEVICES = 512
"""Devices read from one file. With more, the collector reports an error rather than a partial sum."""


class DeviceFilter:
    """Whether a device name does not match `exclude` (anchored at both ends)."""

    def __init__(self, exclude: str) -> None:
        self._exclude = re.compile(exclude.encode())
        self._decided: dict[bytes, str] = {}

    def wanted(self, name: bytes) -> str:
        """The name as text if the device is to be read, else ""."""
        text = self._decided.get(name)
        if text is None:
            text = "" if self._exclude.fullmatch(name) else name.decode("ascii", "backslashreplace")
            if len(self._decided) >= MAX_NAMES:
                self._decided.clear()
            self._decided[name] = text
        return text
