"""From demand to the numbers node_exporter would show: saturation, queues, pressure, counts.

The causes are shared, so the features are correlated the way a real host's are: CPU time follows load,
pressure follows saturation, I/O wait follows the disk, packets follow bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_trainer.sources.demand import Demand, wandering
from node_anomaly_trainer.sources.fleet import Machine

Floats = NDArray[np.float64]

PAGE = 4096.0


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything the signals are read from; arrays (t,), shares in 0..1 unless said otherwise."""

    machine: Machine
    demand: Demand
    interval_s: float
    rng: np.random.Generator
    served: Floats  # share of the CPU demand that is met
    user: Floats
    system: Floats
    softirq: Floats
    busy: Floats
    iowait: Floats
    excess: Floats  # CPUs wanted and not to be had
    operations: Floats  # per second
    disk_busy: Floats
    disk_wait: Floats  # seconds per operation
    disk_queue: Floats
    blocked: Floats  # processes waiting for the disk
    packets_in: Floats  # per second
    packets_out: Floats
    tight: Floats  # how short memory is, 0 plenty .. 1 nothing left
    swapping: Floats  # pages per second
    dirty: Floats  # share of memory
    available: Floats
    reads: Floats  # bytes per second that the disk really moves
    writes: Floats
    files: Floats  # open files

    def counted(self, rate: Floats) -> Floats:
        """Events per second as a counter would show them: whole events in each tick."""
        return self.rng.poisson(np.maximum(rate, 0.0) * self.interval_s) / self.interval_s

    def jiffies(self, share: Floats) -> Floats:
        """A share of CPU time as the kernel's counters of 10 ms show it."""
        steps = self.interval_s * self.machine.cpus * 100.0
        return np.floor(share * steps + self.rng.random(len(share))) / steps

    def noisy(self, values: Floats, spread: float) -> Floats:
        """`values` with multiplicative heavy-tailed noise (Student's t with 4 degrees of freedom)."""
        return values * np.exp(np.clip(spread * self.rng.standard_t(4, len(values)), -1.5, 1.5))


def run_node(machine: Machine, demand: Demand, interval_s: float, rng: np.random.Generator) -> NodeState:
    """How the machine copes with the demand."""
    cpus = float(machine.cpus)
    tight = 1.0 / (1.0 + np.exp(-(demand.memory - 0.93) / 0.012))
    tight = np.where(tight < 1e-4, 0.0, tight)  # with memory to spare nothing ever waits for it
    swapping = 4000.0 * tight * (1.0 if machine.has_swap else 0.0)
    # Programs short of memory read their own code back in again and again.
    reads = demand.read_bytes + tight * 0.5 * machine.disk_bytes_per_second + swapping * PAGE
    writes = demand.write_bytes + swapping * PAGE
    # Much at once is a sequential stream in large operations; little is small ones here and there.
    operations = reads / _operation_bytes(reads) + writes / _operation_bytes(writes)
    operations = operations + 0.02 * np.minimum(demand.requests, 200.0)
    service = machine.disk_service_seconds * demand.slow_disk
    wanted = operations * service * 0.5 + (reads + writes) / machine.disk_bytes_per_second * demand.slow_disk
    disk_busy = saturate(wanted)
    done = np.divide(disk_busy, wanted, out=np.ones_like(wanted), where=wanted > 1e-9)
    operations = operations * done
    disk_wait = service * (1.0 + disk_busy / (1.02 - disk_busy))
    disk_queue = np.minimum(operations * disk_wait, 128.0)
    packets_in = demand.receive_bytes / 700.0 + demand.transmit_bytes / 3000.0 + 2.0
    packets_out = demand.transmit_bytes / 1100.0 + demand.receive_bytes / 2500.0 + 1.5
    softirq = (packets_in + packets_out) * 4e-6
    system = demand.system + 0.18 * demand.cpu + operations * 4e-5 + 2.5 * softirq + tight * 0.4 * cpus
    total = demand.cpu + system + softirq
    room = cpus * (1.0 - demand.steal)
    met = saturate(total / room) * room / np.maximum(total, 1e-9)
    parts = [part * met / cpus for part in (demand.cpu, system, softirq)]
    busy = sum(parts, np.zeros_like(total))
    idle = np.maximum(1.0 - busy - demand.steal, 0.0)
    blocked = np.minimum(disk_queue, 40.0)
    return NodeState(
        machine=machine,
        demand=demand,
        interval_s=interval_s,
        rng=rng,
        served=met,
        user=parts[0],
        system=parts[1],
        softirq=parts[2],
        busy=busy,
        iowait=np.minimum(idle, disk_busy * np.minimum(blocked / cpus, 1.0) * idle),
        excess=np.maximum(total - met * total, 0.0),
        operations=operations,
        disk_busy=disk_busy,
        disk_wait=disk_wait,
        disk_queue=disk_queue,
        blocked=blocked,
        packets_in=packets_in,
        packets_out=packets_out,
        tight=tight,
        swapping=swapping,
        dirty=_dirty(writes * done, machine, interval_s),
        available=np.clip(1.0 - demand.memory - 0.02, 0.005, 1.0),
        reads=reads * done,
        writes=writes * done,
        files=_open_files(demand, rng),
    )


def _operation_bytes(rate: Floats) -> Floats:
    return np.minimum(24e3 + 0.002 * rate, 512e3)


def saturate(wanted: Floats) -> Floats:
    """What is delivered of what is wanted: all of it when little, never more than 1, a soft knee between."""
    clipped = np.minimum(wanted, 50.0)
    return np.asarray(clipped / (1.0 + clipped**8) ** 0.125)


def trailing_mean(values: Floats, ticks: int) -> Floats:
    """Mean (t, ...) over the last `ticks` values, of as many as there are at the start."""
    if ticks <= 1:
        return values
    total = np.cumsum(values, axis=0)
    result = total.copy()
    result[ticks:] -= total[:-ticks]
    count = np.minimum(np.arange(1, len(values) + 1), ticks)
    return np.asarray(result / count.reshape(-1, *([1] * (values.ndim - 1))))


def smoothed(values: Floats, seconds: float, interval_s: float) -> Floats:
    """Exponential mean (t,) with time constant `seconds`, as the kernel's load average is one."""
    weight = float(np.exp(-interval_s / seconds))
    # A truncated kernel: after eight time constants nothing is left to see.
    length = max(1, min(len(values), int(np.ceil(8.0 * seconds / interval_s))))
    kernel = (1.0 - weight) * weight ** np.arange(length)
    padded = np.concatenate([np.full(length - 1, values[0]), values])
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _dirty(written: Floats, machine: Machine, interval_s: float) -> Floats:
    """Share of memory waiting to be written: what programs wrote in the last half minute or so."""
    return np.minimum(smoothed(written, 20.0, interval_s) * 20.0 / machine.memory_bytes, 0.2)


def _open_files(demand: Demand, rng: np.random.Generator) -> Floats:
    noise = 8.0 * rng.standard_normal(len(demand.threads))
    # The kernel hands file structures out in batches.
    return (900.0 + 4.0 * demand.threads + 2.0 * demand.connections + noise) // 32 * 32


def _ratio(signal: Callable[[NodeState], Floats], spread: float) -> Callable[[NodeState], Floats]:
    return lambda s: np.clip(s.noisy(signal(s), spread), 0.0, 1.0)


def _absent(s: NodeState) -> Floats:
    return np.full(len(s.busy), np.nan)


def _if(trait: str, signal: Callable[[NodeState], Floats]) -> Callable[[NodeState], Floats]:
    """The signal where the machine has it, missing where it does not."""
    return lambda s: signal(s) if getattr(s.machine, trait) else _absent(s)


def _loads(s: NodeState) -> Floats:
    runnable = s.busy * s.machine.cpus + s.excess * 1.5 + s.blocked
    return smoothed(runnable, 60.0, s.interval_s) / s.machine.cpus


def _running(s: NodeState) -> Floats:
    # The reader of /proc itself always runs.
    return (1.0 + s.rng.poisson(0.9 * s.busy * s.machine.cpus + s.excess)) / s.machine.cpus


def _cpu_pressure(s: NodeState) -> Floats:
    crowded = s.busy ** (1.0 + np.sqrt(s.machine.cpus)) * 0.5 + 0.004 * s.busy
    return np.asarray(crowded + (1.0 - np.exp(-s.excess / s.machine.cpus * 3.0)) * 0.6)


def _connections(s: NodeState) -> Floats:
    return s.rng.poisson(s.demand.connections).astype(np.float64)


def _time_wait(s: NodeState) -> Floats:
    closed = smoothed(s.demand.requests, 60.0, s.interval_s) * 60.0 * 0.05
    return s.rng.poisson(closed).astype(np.float64)


def _temperature(s: NodeState) -> Floats:
    return np.round(
        38.0 + 30.0 * smoothed(s.busy, 90.0, s.interval_s) + 0.5 * s.rng.standard_normal(len(s.busy))
    )


def _sensor(s: NodeState) -> Floats:
    """The hottest of a board's chips: a disk or the processor, whichever is busier."""
    work = np.maximum(smoothed(s.busy, 60.0, s.interval_s), 0.7 * smoothed(s.disk_busy, 300.0, s.interval_s))
    return np.round(42.0 + 32.0 * work + 0.4 * s.rng.standard_normal(len(s.busy)))


def _clock(s: NodeState) -> Floats:
    spread = 2e-4 if s.machine.virtual else 3e-5
    return spread * wandering(len(s.busy), 1024.0 / s.interval_s, s.rng)


def _slab(s: NodeState) -> Floats:
    return np.asarray(0.03 + 0.01 * s.machine.role.memory + 0.0006 * wandering(len(s.busy), 400.0, s.rng))


def _writeback(s: NodeState) -> Floats:
    flushing = s.rng.random(len(s.busy)) < 0.04 + 0.5 * s.disk_busy
    return np.where(flushing, s.dirty * s.rng.random(len(s.busy)), 0.0)


def _swap_used(s: NodeState) -> Floats:
    # Swapped out once, pages mostly stay out.
    base = 0.01 + 0.05 * s.machine.role.memory
    return np.minimum(base + np.maximum.accumulate(s.tight) * 0.5, 1.0)


def _lossy(s: NodeState) -> Floats:
    """Packets lost beyond what every network loses."""
    return np.maximum(s.demand.loss - 1e-3, 0.0)


def _lost(s: NodeState) -> Floats:
    return s.counted(s.packets_out * s.demand.loss * np.exp(0.8 * s.rng.standard_normal(len(s.busy))))


SIGNALS: dict[str, Callable[[NodeState], Floats]] = {
    "cpu_busy_ratio": lambda s: s.jiffies(s.busy),
    "cpu_user_ratio": lambda s: s.jiffies(s.user),
    "cpu_system_ratio": lambda s: s.jiffies(s.system),
    "cpu_iowait_ratio": lambda s: s.jiffies(s.iowait),
    "cpu_steal_ratio": lambda s: s.jiffies(s.demand.steal),
    "cpu_softirq_ratio": lambda s: s.jiffies(s.softirq),
    "load1_per_cpu_ratio": _loads,
    "processes_running_per_cpu_ratio": _running,
    "pressure_cpu_waiting_ratio": _if("has_pressure", _ratio(_cpu_pressure, 0.15)),
    "pressure_memory_waiting_ratio": _if("has_pressure", _ratio(lambda s: 0.8 * s.tight, 0.1)),
    "pressure_memory_stalled_ratio": _if("has_pressure", _ratio(lambda s: 0.5 * s.tight, 0.1)),
    "pressure_io_waiting_ratio": _if(
        "has_pressure", _ratio(lambda s: s.disk_busy * (0.3 + 0.6 * np.minimum(s.blocked, 1.0)), 0.1)
    ),
    "pressure_io_stalled_ratio": _if(
        "has_pressure",
        _ratio(lambda s: s.disk_busy * 0.8 * np.minimum(s.blocked, 1.0) * (1.0 - s.busy), 0.1),
    ),
    "memory_available_ratio": lambda s: s.available,
    "memory_dirty_ratio": lambda s: s.dirty,
    "memory_writeback_ratio": _writeback,
    "memory_slab_ratio": _slab,
    "swap_used_ratio": _if("has_swap", _swap_used),
    "swap_in_pages_per_second": lambda s: s.counted(0.5 * s.swapping),
    "swap_out_pages_per_second": lambda s: s.counted(s.swapping),
    "major_page_faults_per_second": lambda s: s.counted(
        0.02 + 0.1 * np.maximum(s.demand.forks - 4.0, 0.0) + 600.0 * s.tight
    ),
    "oom_kills_per_second": lambda s: s.counted(np.maximum(s.demand.memory - 1.0, 0.0) * 0.5),
    "disk_read_bytes_per_second": _if("has_disk", lambda s: s.reads),
    "disk_written_bytes_per_second": _if("has_disk", lambda s: s.writes),
    "disk_operations_per_second": _if("has_disk", lambda s: s.counted(s.operations)),
    "disk_busy_ratio": _if("has_disk", _ratio(lambda s: s.disk_busy, 0.05)),
    "disk_await_seconds": _if(
        "has_disk", lambda s: s.noisy(s.disk_wait, 0.2) * np.minimum(s.operations, 1.0)
    ),
    "disk_queue_count": _if("has_disk", lambda s: s.noisy(s.disk_queue, 0.1)),
    "filesystem_fullest_ratio": lambda s: np.clip(s.demand.filled, 0.0, 1.0),
    "filesystem_inodes_fullest_ratio": lambda s: np.clip(0.3 * s.demand.filled, 0.0, 1.0),
    "filesystem_readonly_count": lambda s: np.zeros(len(s.busy)),
    "network_receive_bytes_per_second": lambda s: s.noisy(s.demand.receive_bytes, 0.05),
    "network_transmit_bytes_per_second": lambda s: s.noisy(s.demand.transmit_bytes, 0.05),
    "network_receive_packets_per_second": lambda s: s.counted(s.packets_in),
    "network_transmit_packets_per_second": lambda s: s.counted(s.packets_out),
    "network_errors_per_second": lambda s: s.counted(0.3 * s.packets_in * _lossy(s)),
    "network_drops_per_second": lambda s: s.counted(
        0.02 + s.packets_in * _lossy(s) + 0.1 * np.maximum(s.packets_in - 2e5, 0.0)
    ),
    "tcp_retransmits_per_second": _lost,
    "tcp_listen_overflows_per_second": lambda s: s.counted(
        np.maximum(0.9 - s.served, 0.0) * s.demand.requests * 0.2
    ),
    "tcp_established_count": _connections,
    "tcp_time_wait_count": _time_wait,
    "processes_blocked_count": lambda s: s.rng.poisson(0.6 * s.blocked * s.disk_busy).astype(np.float64),
    "threads_count": lambda s: np.round(s.demand.threads + s.rng.standard_normal(len(s.busy)) * 1.5),
    "forks_per_second": lambda s: s.counted(s.demand.forks),
    "context_switches_per_second": lambda s: s.noisy(
        200.0 + 90.0 * s.machine.cpus + 14.0 * s.demand.requests + 2500.0 * s.user * s.machine.cpus
        + 0.6 * s.packets_in + 2.0 * s.operations,
        0.06,
    ),
    "interrupts_per_second": lambda s: s.noisy(
        120.0 + 60.0 * s.machine.cpus + 5.0 * s.demand.requests + 900.0 * s.busy * s.machine.cpus
        + 0.5 * s.packets_in + s.operations,
        0.05,
    ),
    "file_descriptors_used_ratio": lambda s: s.files / s.machine.files_maximum,
    "file_descriptors_count": lambda s: s.files,
    "conntrack_used_ratio": _if(
        "has_conntrack", lambda s: s.rng.poisson(40.0 + 2.5 * s.demand.connections) / 262144.0
    ),
    "temperature_max_celsius": lambda s: _absent(s) if s.machine.virtual else _temperature(s),
    "clock_offset_seconds": _clock,
    "sensor_temperature_max_celsius": lambda s: _absent(s) if s.machine.virtual else _sensor(s),
}  # fmt: skip
"""How each feature of the catalogue is read off a simulated node."""
