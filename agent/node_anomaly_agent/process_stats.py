"""What the agent itself costs, under the names every Prometheus client uses."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from node_anomaly_agent.config import OWN_PROC


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """The agent's own process; NaN where the kernel did not say."""

    cpu_s: float = math.nan
    resident_bytes: float = math.nan
    virtual_bytes: float = math.nan
    start_time: float = math.nan
    open_fds: float = math.nan
    max_fds: float = math.nan


def read_process_stats(proc: Path = OWN_PROC) -> ProcessStats:
    """The stats of this process; whatever cannot be read is NaN. Field numbers are those of proc(5)."""
    fields = _read(proc / "self" / "stat").rpartition(")")[2].split()  # the name may hold spaces
    if len(fields) < 22:
        return ProcessStats()
    ticks = os.sysconf("SC_CLK_TCK")
    user, system, start, virtual, resident = (float(fields[at - 3]) for at in (14, 15, 22, 23, 24))
    return ProcessStats(
        cpu_s=(user + system) / ticks,
        resident_bytes=resident * os.sysconf("SC_PAGE_SIZE"),
        virtual_bytes=virtual,
        start_time=_number_after(_read(proc / "stat"), "btime ") + start / ticks,
        open_fds=_count(proc / "self" / "fd"),
        max_fds=_number_after(_read(proc / "self" / "limits"), "Max open files "),
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
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
