"""What the programs of a simulated node ask of it over time: the latent causes behind all features.

Everything is written in seconds and put on the grid by exact overlap, so a fleet looks the same whatever
the interval it is sampled at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_trainer.sources.fleet import MIB, Machine

DAY_S = 86400.0
HOUR_S = 3600.0

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Demand:
    """Mean demand over each tick, (t,) each; incidents change it before features are computed."""

    requests: Floats  # per second
    cpu: Floats  # CPUs wanted in user space
    system: Floats  # CPUs wanted in the kernel beyond what I/O and packets cost
    read_bytes: Floats  # per second
    write_bytes: Floats
    receive_bytes: Floats
    transmit_bytes: Floats
    memory: Floats  # share of memory held by programs; may exceed 1
    filled: Floats  # share of the fullest file system
    forks: Floats  # per second
    threads: Floats
    connections: Floats
    slow_disk: Floats  # factor on the time of each operation
    loss: Floats  # share of packets lost
    steal: Floats  # share of CPU time taken by other guests


def build_demand(machine: Machine, timestamps: Floats, interval_s: float, rng: np.random.Generator) -> Demand:
    """The normal demand of one machine at `timestamps` (t,), each the end of a tick of `interval_s`."""
    grid = _Grid(timestamps[0] - interval_s, interval_s, len(timestamps))
    role, cpus = machine.role, machine.cpus
    requests = _requests(machine, timestamps, interval_s, rng)
    # What happens by itself: small bursts of one CPU for a second or two, some touching disk and network.
    busy, written, received = _bursts(machine, grid, rng)
    cron = grid.boxes(*_cron(machine, grid, rng))
    backup = grid.boxes(*_nightly(machine.backup_hour, 1500.0, 0.3, grid, rng))
    rotation = grid.boxes(*_nightly(0.0, 8.0, 0.5, grid, rng))
    update = grid.boxes(*_nightly(6.0 + machine.backup_hour / 5, 70.0, 0.4, grid, rng))
    jobs = grid.boxes(*_poisson(role.jobs_per_hour, 240.0, 0.8, grid, rng)) * rng.uniform(0.2, 0.5)
    small = 1.0 if role.name != "idle" else 0.25
    disk = machine.disk_bytes_per_second
    return Demand(
        requests=requests,
        cpu=requests * role.cpu_per_request
        + busy
        + cron * 0.6
        + backup * 0.7 * small
        + update * 0.9
        + np.minimum(jobs, 2.0) * cpus,
        system=0.002 * cpus + 0.15 * busy + 0.1 * cron,
        read_bytes=requests * role.read_per_request
        + backup * 0.2 * small * disk
        + update * 2.0 * MIB
        + jobs * 0.08 * disk,
        write_bytes=requests * role.written_per_request
        + written
        + cron * 0.3 * MIB
        + rotation * 20.0 * small * MIB
        + update * 6.0 * MIB
        + jobs * 0.06 * disk,
        receive_bytes=requests * role.received_per_request
        + 400.0
        + received
        + update * 4.0 * MIB
        + jobs * MIB,
        transmit_bytes=requests * role.sent_per_request
        + 300.0
        + 0.2 * received
        + backup * 8.0 * small * MIB
        + jobs * 0.5 * MIB,
        memory=_memory(machine, timestamps, requests, interval_s, rng) + 0.1 * jobs + 0.02 * update,
        filled=_filled(timestamps, interval_s, rng),
        forks=0.3 + 0.02 * requests / cpus + 6.0 * busy + 8.0 * cron + 30.0 * update + 3.0 * jobs,
        threads=120.0 + 40.0 * cpus + 200.0 * role.memory + 0.3 * requests + 10.0 * cron,
        connections=8.0 + 2.0 * cpus + 0.4 * requests,
        slow_disk=np.ones(grid.ticks),
        loss=np.full(grid.ticks, 2e-5),
        steal=_steal(machine, grid, rng),
    )


@dataclass(frozen=True, slots=True)
class _Grid:
    start: float
    interval_s: float
    ticks: int

    @property
    def duration_s(self) -> float:
        return self.ticks * self.interval_s

    def boxes(self, starts: Floats, lengths: Floats, heights: Floats) -> Floats:
        """Mean height (t,) over each tick of boxes that start at unix second `starts` and last `lengths`."""
        edges = np.zeros(self.ticks + 2)
        first = (starts - self.start) / self.interval_s
        for position, height in ((first, heights), (first + lengths / self.interval_s, -heights)):
            at = np.clip(position, 0.0, self.ticks)
            whole = at.astype(np.intp)
            # A step at a fraction of a tick counts for the rest of that tick, and fully from the next on.
            np.add.at(edges, whole, height * (whole + 1 - at))
            np.add.at(edges, whole + 1, height * (at - whole))
        return np.maximum(np.cumsum(edges)[: self.ticks], 0.0)


def _requests(machine: Machine, timestamps: Floats, interval_s: float, rng: np.random.Generator) -> Floats:
    """Requests per second: daily and weekly rhythm, slow wandering, and noise that grows with the load."""
    role = machine.role
    day = 2.0 * np.pi * (timestamps + machine.zone_shift_s) / DAY_S
    rhythm = 1.0 - role.rhythm * (0.8 * np.cos(day - 0.6) + 0.2 * np.cos(2.0 * day))
    weekday = ((timestamps // DAY_S + 3) % 7) < 5  # unix day 0 was a Thursday
    level = role.requests * machine.cpus * machine.busyness * rhythm * np.where(weekday, 1.0, 0.8)
    wander = np.exp(0.12 * wandering(len(timestamps), 1200.0 / interval_s, rng))
    # Arrivals of whole sessions, so the spread is wider than that of single requests.
    sessions = rng.gamma(np.maximum(level * interval_s / 8.0, 1e-3)) * 8.0 / interval_s
    return np.asarray(np.maximum(sessions, 0.0) * wander)


def _bursts(machine: Machine, grid: _Grid, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """CPUs, bytes written and bytes received per second of what a quiet host does now and then."""
    rate = machine.role.bursts_per_hour * float(np.exp(rng.normal(0.0, 0.5)))
    starts, lengths, _ = _poisson(rate, 1.2, 0.6, grid, rng)
    busy = grid.boxes(starts, lengths, rng.uniform(0.2, 1.0, len(starts)))
    # The journal and small files: kilobytes, now and then megabytes.
    starts, lengths, _ = _poisson(4.0 * rate, 1.0, 0.3, grid, rng)
    written = grid.boxes(starts, lengths, np.minimum(rng.pareto(1.3, len(starts)) * 30e3, 20.0 * MIB))
    starts, lengths, _ = _poisson(rate, 1.5, 0.6, grid, rng)
    received = grid.boxes(starts, lengths, np.minimum(rng.pareto(1.2, len(starts)) * 20e3, 10.0 * MIB))
    return busy, written, received


def _poisson(
    per_hour: float, length_s: float, spread: float, grid: _Grid, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    count = int(rng.poisson(per_hour * grid.duration_s / HOUR_S))
    starts = np.sort(grid.start + rng.uniform(0.0, grid.duration_s, count))
    return starts, length_s * np.exp(rng.normal(0.0, spread, count)), np.ones(count)


def _cron(machine: Machine, grid: _Grid, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """An hourly job at its minute, for some seconds."""
    first = np.floor(grid.start / HOUR_S) * HOUR_S + 60.0 * machine.cron_minute
    starts = np.arange(first, grid.start + grid.duration_s, HOUR_S) + rng.uniform(0.0, 3.0)
    return starts, 6.0 * np.exp(rng.normal(0.0, 0.4, len(starts))), np.ones(len(starts))


def _nightly(
    hour: float, length_s: float, spread: float, grid: _Grid, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    first = np.floor(grid.start / DAY_S) * DAY_S + hour * HOUR_S
    starts = np.arange(first, grid.start + grid.duration_s, DAY_S)
    starts = starts + rng.uniform(0.0, 120.0, len(starts))
    return starts, length_s * np.exp(rng.normal(0.0, spread, len(starts))), np.ones(len(starts))


def _memory(
    machine: Machine, timestamps: Floats, requests: Floats, interval_s: float, rng: np.random.Generator
) -> Floats:
    """Share of memory held by programs: growth until a restart, again and again, and what follows load."""
    period = float(rng.uniform(0.7, 3.0)) * DAY_S
    tooth = ((timestamps + rng.uniform(0.0, period)) % period) / period
    load = requests / max(float(requests.mean()), 1e-9)
    wander = 0.004 * wandering(len(timestamps), HOUR_S / interval_s, rng)
    return machine.role.memory * (0.9 + 0.12 * tooth) + 0.015 * np.minimum(load, 3.0) + wander


def _filled(timestamps: Floats, interval_s: float, rng: np.random.Generator) -> Floats:
    """Share of the fullest file system: it fills through the day and log rotation takes some of it back."""
    start, per_day = float(rng.uniform(0.25, 0.7)), float(rng.uniform(0.0005, 0.004))
    days = (timestamps - timestamps[0]) / DAY_S
    wander = 2e-4 * wandering(len(timestamps), HOUR_S / interval_s, rng)
    return np.asarray(start + per_day * (0.2 * days + (timestamps % DAY_S) / DAY_S) + wander)


def _steal(machine: Machine, grid: _Grid, rng: np.random.Generator) -> Floats:
    if not machine.virtual:
        return np.zeros(grid.ticks)
    quiet = rng.gamma(0.3, 0.003, grid.ticks)
    noisy = grid.boxes(*_poisson(0.5, 40.0, 1.0, grid, rng)) * 0.03
    return np.minimum(quiet + noisy, 0.3)


def wandering(ticks: int, correlation_ticks: float, rng: np.random.Generator) -> Floats:
    """A stationary series (t,) of mean 0 and spread 1 that forgets itself over `correlation_ticks`."""
    span = max(correlation_ticks, 1.0)
    knots = int(np.ceil(ticks / span)) + 4
    heights = rng.standard_normal(knots)
    position = np.arange(ticks) / span + rng.random()
    at = position.astype(np.intp)
    share = position - at
    # A smooth blend between neighbours, of constant variance.
    angle = 0.5 * np.pi * share
    return np.asarray(heights[at] * np.cos(angle) + heights[at + 1] * np.sin(angle))
