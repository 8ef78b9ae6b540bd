"""CPU time by mode, interrupts, context switches, forks and the run queue: /proc/stat, read once.

https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat
"""

from __future__ import annotations

from collections.abc import Mapping

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import WHOLE, HeldFiles, numbers, numbers_after
from node_anomaly_core.expressions import Reading, SeriesKey

MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
USER_HZ = 100.0
"""Ticks a second in what the kernel prints to user space, on every architecture Linux runs on today."""

MAX_SECONDS = 1e15
"""No CPU has run for so long; a state file may hold any integer, also one that no float can be."""

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

    def state(self) -> dict[str, dict[str, float]]:
        """What was seen last and what was lost so far, by mode: saved windows hold the raised counters."""
        return {
            name: {mode: value for (_, mode), value in kept.items()}
            for name, kept in (("last", self._last), ("lost", self._lost))
        }

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take it over again; False if it is none."""
        last, lost = (_seconds(state.get(name)) for name in ("last", "lost"))
        if last is None or lost is None:
            return False
        self._last, self._lost = last, lost
        return True


def _seconds(value: object) -> dict[SeriesKey, float] | None:
    """Saved counters by mode; None if they are none."""
    if not isinstance(value, dict) or not all(
        mode in MODES and isinstance(number, float | int) and 0 <= number < MAX_SECONDS
        for mode, number in value.items()
    ):
        return None
    return {(_CPU, mode): float(number) for mode, number in value.items()}


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

    def state(self) -> dict[str, dict[str, float]]:
        """See NeverBack.state."""
        return self._never_back.state()

    def restore(self, state: Mapping[str, object]) -> bool:
        """See NeverBack.restore."""
        return self._never_back.restore(state)
