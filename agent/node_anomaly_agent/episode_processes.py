"""The processes that use most, looked at twice, a second apart: only when an episode begins.

On a thread of its own, so that a host with thousands of processes holds up no tick. What a process is called
is read from /proc/PID/stat; command lines and environments are never opened.
"""

from __future__ import annotations

import heapq
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node_anomaly_agent.collectors.procfile import decimal
from node_anomaly_agent.episode import ProcessUse

APART_S = 1.0
TOP = 5
"""Of each of CPU, memory and disk."""

MOST_LOOKED_AT = 8192
"""Processes of one look; on a host with more of them the lowest numbers are looked at."""

_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ProcessCount:
    """One process at one moment; NaN where the kernel does not say."""

    name: str
    started: float
    cpu_ticks: float
    resident_pages: float
    io_bytes: float = math.nan


def parse_stat(data: bytes) -> ProcessCount:
    """The content of /proc/PID/stat (proc(5)); raises ValueError if it is none."""
    before, _, after = data.rpartition(b")")
    _, opened, name = before.partition(b"(")
    fields = after.split()
    if not opened or len(fields) < 22:
        raise ValueError(f"not the stat of a process: {data[:32]!r}")
    shown = "".join(c if c.isprintable() else "?" for c in name[:32].decode(errors="replace"))
    user, system, started, pages = (decimal(fields[at - 3]) for at in (14, 15, 22, 24))
    return ProcessCount(shown, started, user + system, pages)


def parse_io(data: bytes) -> float:
    """Bytes read from and written to disks, of /proc/PID/io; NaN if one of them is missing."""
    found = dict(line.split(b": ", 1) for line in data.splitlines() if b": " in line)
    try:
        return decimal(found[b"read_bytes"]) + decimal(found[b"write_bytes"])
    except (KeyError, ValueError):
        return math.nan


def look(proc: Path) -> dict[int, ProcessCount]:
    """All processes by their number; those that vanish meanwhile are left out. Raises OSError."""
    found: dict[int, ProcessCount] = {}
    with os.scandir(proc) as entries:
        pids = sorted(int(entry.name) for entry in entries if entry.name.isascii() and entry.name.isdigit())
    for pid in pids[:MOST_LOOKED_AT]:
        with suppress(OSError, ValueError):
            count = parse_stat(_read(proc / str(pid) / "stat"))
            io = math.nan
            with suppress(OSError):  # other users' are not ours to read, unless this is root
                io = parse_io(_read(proc / str(pid) / "io"))
            found[pid] = ProcessCount(count.name, count.started, count.cpu_ticks, count.resident_pages, io)
    return found


def top(
    before: Mapping[int, ProcessCount],
    after: Mapping[int, ProcessCount],
    seconds: float,
    ticks_per_second: float,
    page_bytes: float,
) -> tuple[ProcessUse, ...]:
    """Those among the first TOP by CPU, memory or disk, by CPU and then memory. Pure."""
    uses = []
    for pid, now in after.items():
        then = before.get(pid)
        if then is None or then.started != now.started:  # born meanwhile, or another one by this number
            then = ProcessCount(now.name, now.started, math.nan, math.nan)
        uses.append(
            ProcessUse(
                pid,
                now.name,
                max(now.cpu_ticks - then.cpu_ticks, 0.0) / ticks_per_second / seconds
                if not math.isnan(then.cpu_ticks)
                else math.nan,
                now.resident_pages * page_bytes,
                (now.io_bytes - then.io_bytes) / seconds,
            )
        )
    chosen: dict[int, ProcessUse] = {}
    for name in ("cpu_cores", "resident_bytes", "io_bytes_per_second"):
        known = [use for use in uses if getattr(use, name) > 0]  # NaN is not
        chosen |= {use.pid: use for use in heapq.nlargest(TOP, known, key=lambda use: getattr(use, name))}
    return tuple(
        sorted(chosen.values(), key=lambda use: (-_or_0(use.cpu_cores), -use.resident_bytes, use.pid))
    )


def top_processes(proc: Path, sleep: Callable[[float], None] = time.sleep) -> tuple[ProcessUse, ...]:
    """Look twice. Takes APART_S and what reading takes. Raises OSError if `proc` cannot be listed."""
    before, first = look(proc), time.monotonic()
    sleep(APART_S)
    after, second = look(proc), time.monotonic()
    return top(before, after, max(second - first, 1e-3), os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE"))


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def _or_0(value: float) -> float:
    return 0.0 if math.isnan(value) else value
