"""The past of the host that a loop is tried on: a build machine, idle one minute and busy for the next.

What node_exporter would have shown of it is invented around what it shows of this host now, so that a model
that is trained on it finds this host normal, whatever its CPUs and disks have to do meanwhile, as where tests
run. How many connections are open has nothing to do with that, and moves little.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OTHERS = 2
"""Build machines with a past beside this host."""
PAST_S, STEP_S = 43_200, 15
"""Half a day as a Prometheus has it: what the models are trained on, whatever the pace of the loop."""
FIRST_SEED = 20
"""Of machines whose last hours are as the ones before them: with others the gate, which judges by those few
hours, had as many false alarms as it lets pass, and whether one more depended on the second of the start."""
GAP_S = 90
"""Between that and what is real: no rate may span both, whose counters have nothing to do with each other."""
FEATURES = (
    "cpu_busy_ratio",
    "load1_per_cpu_ratio",
    "processes_running_per_cpu_ratio",
    "pressure_io_waiting_ratio",
    "memory_available_ratio",
    "disk_written_bytes_per_second",
    "disk_busy_ratio",
    "tcp_established_count",
    "tcp_time_wait_count",
    "forks_per_second",
    "context_switches_per_second",
    "file_descriptors_count",
)
COLLECTORS = (
    *("cpu", "diskstats", "filefd", "loadavg", "meminfo"),
    *("netstat", "pressure", "sockstat", "stat"),
)
"""Of node_exporter, for these features."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Usual:
    """What has nothing to do with how busy a machine is."""

    files: float
    connections: float
    memory_bytes: float
    available: float
    """Of the memory."""


def usual(page: str) -> Usual:
    """As on this node_exporter's page."""

    def value(metric: str) -> float:
        found = re.search(rf"^{metric} (\S+)$", page, re.MULTILINE)
        assert found, f"node_exporter shows no {metric}"
        return float(found[1])

    memory = value("node_memory_MemTotal_bytes")
    return Usual(
        files=value("node_filefd_allocated"),
        connections=value("node_netstat_Tcp_CurrEstab"),
        memory_bytes=memory,
        available=value("node_memory_MemAvailable_bytes") / memory,
    )


def history(node: str, usually: Usual, now: int) -> str:
    """What node_exporter showed of this host (`node`) and others until GAP_S ago, as OpenMetrics."""
    end = (now - GAP_S) // STEP_S * STEP_S
    times = np.arange(end - PAST_S, end, STEP_S)
    lines: dict[str, list[str]] = {}
    names = [node, *(f"build-{number}:9100" for number in range(1, OTHERS + 1))]
    for seed, name in enumerate(names, FIRST_SEED):
        for series, values in _machine(usually, len(times), np.random.default_rng(seed)).items():
            metric, _, labels = series.partition("{")
            key = f'{metric}{{instance="{name}",job="node"' + (f",{labels}" if labels else "}")
            lines.setdefault(metric, []).extend(
                f"{key} {value:.3f} {at}" for at, value in zip(times.tolist(), values.tolist(), strict=True)
            )
    return "".join("\n".join(series) + "\n" for series in lines.values()) + "# EOF\n"


def _machine(usually: Usual, ticks: int, chance: np.random.Generator) -> dict[str, Array]:
    """The series of one build machine with one CPU.

    Wide, often at its limits, and never far from its middle: what such a machine may do is then worth
    nothing, and what it may not stands out however much it does of the other.
    """

    def some() -> Array:
        return _wander(ticks, chance)

    busy = some()
    rates = {
        'node_cpu_seconds_total{cpu="0",mode="idle"}': 1.0 - busy,
        'node_cpu_seconds_total{cpu="0",mode="user"}': busy,
        "node_pressure_io_waiting_seconds_total": 0.6 * some(),
        'node_disk_written_bytes_total{device="vda"}': 2e8 * some(),
        'node_disk_io_time_seconds_total{device="vda"}': 0.7 * some(),
        "node_forks_total": 200.0 * some(),
        "node_context_switches_total": 400.0 + 20_000.0 * some(),
    }
    gauges = {
        "node_load1": 12.0 * some(),
        "node_procs_running": 1.0 + np.floor(12.0 * some()),
        "node_memory_MemTotal_bytes": np.full(ticks, usually.memory_bytes),
        "node_memory_MemAvailable_bytes": usually.memory_bytes * usually.available * (1.05 - 0.4 * some()),
        "node_netstat_Tcp_CurrEstab": np.floor(usually.connections + 20.0 + _drift(12.0, ticks, chance)),
        "node_sockstat_TCP_tw": np.floor(2_000.0 * some()),
        "node_filefd_allocated": np.floor(usually.files + 2_500.0 * some()),
    }
    return {name: np.cumsum(STEP_S * rate) for name, rate in rates.items()} | gauges


def _wander(ticks: int, chance: np.random.Generator) -> Array:
    """Anything between 0 and 1, now here and now there, for a tick or minutes, often at either end."""
    there, now, leave = np.empty(ticks), 0.0, 1.0
    for at in range(ticks):
        if chance.random() < leave:
            now = float(np.clip(chance.uniform(-0.5, 1.5), 0.0, 1.0))
            leave = float(chance.choice([1.0, 1 / 10, 1 / 60]))
        there[at] = np.clip(now + chance.normal(0.0, 0.02), 0.0, 1.0)
    return there


def _drift(spread: float, ticks: int, chance: np.random.Generator) -> Array:
    """What comes and goes slowly around 0."""
    there, now = np.empty(ticks), 0.0
    for at in range(ticks):
        now = 0.95 * now + float(chance.normal(0.0, spread * 0.31))
        there[at] = np.clip(now, -2.5 * spread, 2.5 * spread)
    return there
