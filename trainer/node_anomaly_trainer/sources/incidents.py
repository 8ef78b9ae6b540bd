"""Faults with a physical cause for the simulated fleet: they change demand, and every feature follows.

Where `faults.py` distorts numbers, an incident here raises CPU time, run queue, load and pressure together,
because one cause does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from node_anomaly_trainer.faults import Fault, fault_windows
from node_anomaly_trainer.sources.demand import Demand
from node_anomaly_trainer.sources.fleet import MIB, Machine

Floats = NDArray[np.float64]
Window = slice
Cause = Callable[[Demand, Machine, Window, float], tuple[str, ...]]


def add_incidents(
    machine: Machine, demand: Demand, interval_s: float, rate_per_day: float, rng: np.random.Generator
) -> list[Fault]:
    """Change `demand` in place by separated incidents; returns them, with the features that show each first.

    `magnitude` is the incident's strength, 1 for a plain one up to 3.
    """
    ticks = len(demand.cpu)
    incidents = []
    for start, stop in fault_windows(ticks, interval_s, rate_per_day, rng):
        kind = str(rng.choice(list(INCIDENTS)))
        strength = float(rng.uniform(1.0, 3.0))
        shown = INCIDENTS[kind](demand, machine, slice(start, stop), strength)
        incidents.append(Fault(machine.name, start, stop, kind, shown, strength))
    return incidents


def _cpu_saturation(demand: Demand, machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    demand.cpu[at] += (0.8 + 0.6 * strength) * machine.cpus
    demand.threads[at] += 2.0 * machine.cpus
    return "cpu_busy_ratio", "load1_per_cpu_ratio", "pressure_cpu_waiting_ratio"


def _disk_saturation(demand: Demand, machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    demand.write_bytes[at] += (0.6 + 0.4 * strength) * machine.disk_bytes_per_second
    demand.system[at] += 0.1 * machine.cpus
    return "disk_busy_ratio", "disk_written_bytes_per_second", "pressure_io_waiting_ratio"


def _slow_disk(demand: Demand, _machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    demand.slow_disk[at] *= 20.0 * strength
    return "disk_await_seconds", "disk_busy_ratio", "cpu_iowait_ratio"


def _memory_leak(demand: Demand, _machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    length = at.stop - at.start
    missing = 1.02 - demand.memory[at.start]
    demand.memory[at] += missing * np.linspace(0.0, 1.0, length) ** (1.0 / strength)
    return "memory_available_ratio", "pressure_memory_waiting_ratio", "major_page_faults_per_second"


def _network_flood(demand: Demand, _machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    demand.receive_bytes[at] += 25.0 * MIB * strength
    demand.connections[at] += 800.0 * strength
    demand.loss[at] += 0.004 * strength
    return "network_receive_packets_per_second", "cpu_softirq_ratio", "tcp_established_count"


def _packet_loss(demand: Demand, _machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    demand.loss[at] += 0.02 * strength
    demand.requests[at] *= 0.7
    return "tcp_retransmits_per_second", "network_drops_per_second", "network_errors_per_second"


def _fork_bomb(demand: Demand, machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    demand.forks[at] += 300.0 * strength
    demand.threads[at] += np.minimum(200.0 * strength * np.arange(1, at.stop - at.start + 1), 20_000.0)
    demand.system[at] += 0.7 * strength * machine.cpus
    return "forks_per_second", "threads_count", "cpu_system_ratio"


def _disk_full(demand: Demand, _machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    length = at.stop - at.start
    free = 0.995 - demand.filled[at.start]
    demand.filled[at] += free * np.minimum(np.linspace(0.0, 1.0, length) * strength, 1.0)
    demand.write_bytes[at] += 4.0 * MIB * strength
    return "filesystem_fullest_ratio", "filesystem_inodes_fullest_ratio", "disk_written_bytes_per_second"


def _traffic_stop(demand: Demand, _machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    share = 0.05 / strength
    for series in (
        demand.requests,
        demand.receive_bytes,
        demand.transmit_bytes,
        demand.connections,
        demand.cpu,
    ):
        series[at] *= share
    return "network_transmit_bytes_per_second", "tcp_established_count", "context_switches_per_second"


def _noisy_neighbour(demand: Demand, _machine: Machine, at: Window, strength: float) -> tuple[str, ...]:
    demand.steal[at] = np.minimum(demand.steal[at] + 0.2 * strength, 0.8)
    return "cpu_steal_ratio", "pressure_cpu_waiting_ratio", "load1_per_cpu_ratio"


INCIDENTS: dict[str, Cause] = {
    "cpu_saturation": _cpu_saturation,
    "disk_saturation": _disk_saturation,
    "slow_disk": _slow_disk,
    "memory_leak": _memory_leak,
    "network_flood": _network_flood,
    "packet_loss": _packet_loss,
    "fork_bomb": _fork_bomb,
    "disk_full": _disk_full,
    "traffic_stop": _traffic_stop,
    "noisy_neighbour": _noisy_neighbour,
}
