"""Whether this machine has the memory that a run takes, known before hours are spent on it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_trainer.config import TrainingConfig
from node_anomaly_trainer.sources.admission import Admit, admit_any

BASE_BYTES = 1.6 * 2**30
"""Of the libraries and of what does not grow with the history (bench/results/training.md)."""

TWICE = 2  # once as it was and once with faults in it
_VALUE, _SHOWN = 8, 4  # bytes of a value of the history, and of what the members are fed
COPIES = 1.07
"""What a run takes of its history's arrays at its highest, measured on 0.2 and 1.0 million node-ticks."""

RIVAL_COPIES = 0.7
"""Of the last part of the history, for a bundle in production that is replayed beside the candidate: not all
of it, because what fitting takes is given back by then."""

COPIES_LEFT = 1.5
"""Of the values of a history, what stays in memory where what members are fed goes to disk: the values
themselves, and scores of every member for each tick."""

TOLERANCE = 1.1
"""The estimate may be so much too high before a run is refused that would have gone well."""

SMALL_BYTES = 256 * 2**20
"""A history that takes no more is tried on any machine: a smaller one would not help."""

ROOT = Path("/")

_WAYS = "a shorter range or some of the nodes by matchers (a bundle scores nodes that it does not know, too)"


def admission_to_read(config: TrainingConfig) -> Admit:
    """What refuses a history that would not even lie in memory: for what reads one and does not train."""
    return partial(_require_room, allowed=allowed_bytes()) if config.check_memory else admit_any


def needed_bytes(
    nodes: int, ticks: int, features: int, judged: float = 0.0, *, on_disk: bool = False
) -> float:
    """What training on so much history takes at its highest.

    `judged` is the share of it through which a bundle in production is replayed, 0 without one; `on_disk`
    where what members are fed lies there.
    """
    tick = COPIES_LEFT * features * _VALUE if on_disk else (COPIES + RIVAL_COPIES * judged) * _fed(features)
    return BASE_BYTES + tick * nodes * ticks


def disk_bytes(nodes: int, ticks: int, features: int, judged: float = 0.0) -> float:
    """What of it goes to disk, where it may."""
    return (1.0 + judged) * _fed(features) * nodes * ticks


def _fed(features: int) -> float:
    """Of a tick of one node: its values and what members are fed, as it was and with faults in it."""
    return float(TWICE * (features * (_VALUE + _SHOWN) + 2 * SUMMARY_WIDTH * _SHOWN))


def allowed_bytes(root: Path = ROOT) -> float:
    """What this process may have: its cgroup's limit, or what the host has left; infinite where unknown.

    /proc and /sys are those below `root`. See proc_meminfo(5) and the kernel's cgroup-v2.rst.
    """
    return min((*_host(root), *_cgroups(root)), default=math.inf)


def tried(needed: float, allowed: float) -> bool:
    """Whether a run is begun that is thought to need so much."""
    return needed <= max(TOLERANCE * allowed, BASE_BYTES + SMALL_BYTES)


def require_memory(
    nodes: int,
    ticks: int,
    features: int,
    allowed: float,
    judged: float = 0.0,
    *,
    on_disk: bool = False,
) -> None:
    """Raises TrainingError where so much history cannot be trained on with so many bytes."""
    needed = needed_bytes(nodes, ticks, features, judged, on_disk=on_disk)
    if tried(needed, allowed):
        return
    fit = max((allowed - BASE_BYTES) / (needed - BASE_BYTES), 0.0)
    raise TrainingError(
        f"memory: {nodes:,} nodes, {ticks:,} ticks and {features} features take about "
        f"{needed / 2**30:.1f} GiB to train on{', the rest on disk' if on_disk else ''}, and there are "
        f"{allowed / 2**30:.1f}",
        (f"read {100 * fit:.2g} % of it, {_WAYS}; or " if fit > 0 else "")
        + "give it more memory; training.check_memory: false tries all the same",
    )


def _require_room(nodes: int, ticks: int, features: int, allowed: float) -> None:
    """Raises TrainingError where the values alone take more."""
    needed = float(_VALUE * nodes * ticks * features)
    if needed <= allowed:
        return
    raise TrainingError(
        f"memory: {nodes:,} nodes, {ticks:,} ticks and {features} features are {needed / 2**30:.1f} GiB "
        f"before anything is done with them, and there are {allowed / 2**30:.1f}",
        "read a shorter range or some of the nodes by matchers; or give it more memory",
    )


def _host(root: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):
        words = (root / "proc/meminfo").read_text(encoding="ascii").split()
        sizes = dict(pairwise(words))
        yield 1024.0 * (int(sizes["MemAvailable:"]) + int(sizes.get("SwapFree:", 0)))


def _cgroups(root: Path) -> Iterator[float]:
    """The limits of this process' cgroup and of all that it lies in, of either version."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, name = (*line.split(":", 2), "", "")[:3]
            if controllers == "":
                yield from _limits(root / "sys/fs/cgroup", name, "memory.max")
            elif "memory" in controllers.split(","):
                yield from _limits(root / "sys/fs/cgroup/memory", name, "memory.limit_in_bytes")


def _limits(mounted: Path, name: str, file: str) -> Iterator[float]:
    parts = [part for part in name.split("/") if part not in ("", "..")]
    for depth in range(len(parts) + 1):
        with suppress(OSError, ValueError):  # "max" is none, and a container may see no path but its own
            yield float(int(mounted.joinpath(*parts[:depth], file).read_text(encoding="ascii")))
