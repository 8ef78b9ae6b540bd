"""Open files in the system and their limit: /proc/sys/fs/file-nr."""

from __future__ import annotations

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import SHORT, HeldFiles, decimal
from node_anomaly_core.expressions import Reading


def parse_file_nr(data: bytes) -> Reading:
    """Allocated and maximum; ValueError if the three numbers are not there."""
    fields = data.split(None, 3)
    if len(fields) != 3:
        raise ValueError(f"not three numbers: {data[:64]!r}")
    return {
        ("node_filefd_allocated", ""): decimal(fields[0]),
        ("node_filefd_maximum", ""): decimal(fields[2]),
    }


class FilefdCollector(HeldFiles):
    """Reads /proc/sys/fs/file-nr."""

    name = "filefd"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("sys", "fs", "file-nr"), piece=SHORT)

    def read(self) -> Reading:
        """Open files and their limit."""
        return parse_file_nr(self._files[0].read())
