"""The machines of the simulated fleet: what each is for, how large it is, what it lacks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GIB = 1024.0**3
MIB = 1024.0**2


@dataclass(frozen=True, slots=True)
class Role:
    """What a node is for; rates are per second at the mean of its day, sizes in bytes."""

    name: str
    requests: float  # per CPU
    cpu_per_request: float  # seconds
    received_per_request: float
    sent_per_request: float
    read_per_request: float
    written_per_request: float
    rhythm: float  # depth of the daily rhythm, 0 flat .. 1 silent at night
    jobs_per_hour: float  # heavy jobs that use several CPUs for minutes
    bursts_per_hour: float  # small things: one CPU for a second or two
    memory: float  # share of memory held by its programs


ROLES: tuple[Role, ...] = (
    Role("web", 60.0, 0.003, 1800.0, 14000.0, 60.0, 400.0, 0.75, 0.0, 30.0, 0.45),
    Role("idle", 0.02, 0.004, 900.0, 3000.0, 0.0, 200.0, 0.2, 0.0, 40.0, 0.25),
    Role("database", 25.0, 0.004, 900.0, 5000.0, 24000.0, 9000.0, 0.6, 0.4, 20.0, 0.6),
    Role("batch", 0.5, 0.004, 4000.0, 4000.0, 500.0, 1500.0, 0.3, 2.5, 15.0, 0.35),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """One node: its role, its hardware, and which numbers it can give at all."""

    name: str
    role: Role
    cpus: int
    memory_bytes: float
    disk_bytes_per_second: float
    disk_service_seconds: float
    virtual: bool  # steal exists, a thermal zone does not
    has_swap: bool
    has_disk: bool
    has_conntrack: bool
    has_pressure: bool
    files_maximum: float
    zone_shift_s: float  # how far its users' day is from UTC
    busyness: float  # its share of work, 1 as its role has on average
    cron_minute: int
    backup_hour: float


def build_fleet(nodes: int, seed: int) -> tuple[Machine, ...]:
    """`nodes` machines; machine i is the same whatever the size of the fleet."""
    return tuple(_machine(at, np.random.default_rng([seed, at, 0])) for at in range(nodes))


def _machine(at: int, rng: np.random.Generator) -> Machine:
    role = ROLES[at % len(ROLES)]
    virtual = bool(rng.random() < 0.7) or role.name == "idle"
    fast = bool(rng.random() < 0.6)
    return Machine(
        name=f"{role.name}-{at // len(ROLES) + 1:02d}",
        role=role,
        cpus=int(rng.choice([2, 4, 8] if role.name in ("idle", "web") else [4, 8, 16])),
        memory_bytes=float(rng.choice([4, 8, 16, 32])) * GIB,
        disk_bytes_per_second=(500.0 if fast else 120.0) * MIB,
        disk_service_seconds=0.0004 if fast else 0.003,
        virtual=virtual,
        has_swap=bool(rng.random() < 0.4),
        has_disk=bool(rng.random() < 0.9) or role.name == "database",
        has_conntrack=bool(rng.random() < 0.6),
        has_pressure=bool(rng.random() < 0.9),
        files_maximum=float(rng.choice([9.22e18, 1.6e6, 3.9e5])),
        zone_shift_s=float(rng.normal(0.0, 2.0)) * 3600.0,
        busyness=float(np.exp(rng.normal(0.0, 0.35))),
        cron_minute=int(rng.integers(0, 60)),
        backup_hour=float(rng.uniform(0.0, 5.0)),
    )
