"""CPU time by mode, interrupts, context switches, forks and the run queue: /proc/stat, read once.

https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat
"""

from __future__ import annotations

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import WHOLE, HeldFiles, numbers, numbers_after
from node_anomaly_core.expressions import Reading, SeriesKey

MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
USER_HZ = 100.0
"""Ticks a second in what the kernel prints to user space, on every architecture Linux runs on today."""

_CPU = "node_cpu_seconds_total"
_KEYS: tuple[SeriesKey, ...] = tuple((_CPU, mode) for mode in MODES)
_COUNT: SeriesKey = (f"{_CPU}:count", "")
_LINES: tuple[tuple[bytes, SeriesKey], ...] = (
    (b"\nctxt ", ("node_context_switches_total", "")),
    (b"\nintr ", ("node_intr_total", "")),
    (b"\nprocesses ", ("node_forks_total", "")),
    (b"\nprocs_running ", ("node_procs_running", "")),
    (b"\nprocs_blocked ", ("node_procs_blocked", "")),
)


def parse_stat(data: bytes) -> Reading:
    """Seconds per mode summed over CPUs (the kernel's own "cpu" line), and the counters below it.

    ValueError if there is no usable "cpu" line.
    """
    name, *fields = data[: data.find(b"\n")].split() or [b""]
    if len(fields) < 4 or name != b"cpu" or not numbers(fields):
        raise ValueError("no 'cpu' line of numbers in /proc/stat")
    reading: Reading = {key: float(field) / USER_HZ for key, field in zip(_KEYS, fields, strict=False)}
    cpus = data.count(b"\ncpu")
    if cpus:
        reading[_COUNT] = float(cpus)
    reading.update(numbers_after(data, _LINES))
    return reading


class NeverBack:
    """Keeps CPU counters from going back, which the kernel lets them do.

    iowait and idle may be corrected downwards. A rate would take that for a reset and add the whole counter
    at once; here such a tick counts nothing (node_exporter holds such a counter back as well).
    """

    def __init__(self) -> None:
        self._last: dict[SeriesKey, float] = {}
        self._lost: dict[SeriesKey, float] = {}

    def apply(self, reading: Reading) -> None:
        """Raise the CPU counters of this reading by what they have lost so far."""
        for key in _KEYS:
            value = reading.get(key)
            if value is None:
                continue
            last = self._last.get(key, value)
            if value < last:
                self._lost[key] = self._lost.get(key, 0.0) + last - value
            self._last[key] = value
            if key in self._lost:
                reading[key] = value + self._lost[key]


class CpuCollector(HeldFiles):
    """Reads /proc/stat."""

    name = "cpu"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.proc("stat"), piece=WHOLE)
        self._never_back = NeverBack()

    def read(self) -> Reading:
        """CPU seconds by mode, the number of CPUs, and the system-wide counters."""
        reading = parse_stat(self._files[0].read())
        self._never_back.apply(reading)
        return reading
