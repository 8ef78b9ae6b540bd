"""What the agent itself costs, under the names every Prometheus client uses."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from node_anomaly_agent.collectors.procfile import WHOLE, HeldFile
from node_anomaly_agent.config import OWN_PROC
from node_anomaly_core.errors import SourceError

COUNT_EVERY = 4
"""Reads between two counts of open files, which cost more than all the rest; a minute at the default tick."""


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """The agent's own process; NaN where the kernel did not say."""

    cpu_s: float = math.nan
    resident_bytes: float = math.nan
    virtual_bytes: float = math.nan
    start_time: float = math.nan
    open_fds: float = math.nan
    max_fds: float = math.nan


class ProcessReader:
    """Reads this process at every tick, from files that it holds open."""

    def __init__(self, proc: Path = OWN_PROC) -> None:
        self._stat, self._limits = (
            HeldFile(str(proc / "self" / name), piece=WHOLE) for name in ("stat", "limits")
        )
        self._descriptors = proc / "self" / "fd"
        system = HeldFile(str(proc / "stat"))
        self._boot_time = _number_after(_content(system), "btime ")
        system.close()
        self._ticks, self._page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        self._open_fds = self._max_fds = math.nan
        self._rest = 0

    def read(self) -> ProcessStats:
        """The stats now; whatever cannot be read is NaN. Field numbers are those of proc(5)."""
        fields = _content(self._stat).rpartition(")")[2].split()  # the name may hold spaces
        if len(fields) < 22:
            return ProcessStats()
        if self._rest:
            self._rest -= 1
        else:
            self._rest = COUNT_EVERY - 1
            self._max_fds = _number_after(_content(self._limits), "Max open files ")
            self._open_fds = _count(self._descriptors)
        user, system, start, virtual, resident = (float(fields[at - 3]) for at in (14, 15, 22, 23, 24))
        return ProcessStats(
            cpu_s=(user + system) / self._ticks,
            resident_bytes=resident * self._page,
            virtual_bytes=virtual,
            start_time=self._boot_time + start / self._ticks,
            open_fds=self._open_fds,
            max_fds=self._max_fds,
        )

    def close(self) -> None:
        """Close the held files; a later read opens them again."""
        self._stat.close()
        self._limits.close()


def read_process_stats(proc: Path = OWN_PROC) -> ProcessStats:
    """The stats of this process, once."""
    reader = ProcessReader(proc)
    try:
        return reader.read()
    finally:
        reader.close()


def _content(file: HeldFile) -> str:
    try:
        return file.read().decode(errors="replace")
    except (OSError, ValueError, SourceError):
        return ""


def _count(directory: Path) -> float:
    try:
        return float(len(os.listdir(directory)))  # noqa: PTH208  # no Path object for each descriptor
    except OSError:
        return math.nan


def _number_after(text: str, start: str) -> float:
    """The first number of the line that starts so; `unlimited` and a missing line are NaN."""
    for line in text.splitlines():
        if line.startswith(start):
            words = line.removeprefix(start).split()
            return float(words[0]) if words and words[0].isdigit() else math.nan
    return math.nan
