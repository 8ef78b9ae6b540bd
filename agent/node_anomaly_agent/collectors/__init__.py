"""Collectors: one file for each subject of the host, and the table of them all.

A collector reads bytes from files it holds open and hands them to a pure `parse_...` function beside it,
which yields readings in node_exporter's names and base units.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from node_anomaly_agent.collectors.conntrack import ConntrackCollector
from node_anomaly_agent.collectors.cpu import CpuCollector
from node_anomaly_agent.collectors.diskstats import DiskstatsCollector
from node_anomaly_agent.collectors.filefd import FilefdCollector
from node_anomaly_agent.collectors.filesystem import FilesystemCollector
from node_anomaly_agent.collectors.hwmon import HwmonCollector
from node_anomaly_agent.collectors.loadavg import LoadavgCollector
from node_anomaly_agent.collectors.memory import MemoryCollector
from node_anomaly_agent.collectors.netdev import NetdevCollector
from node_anomaly_agent.collectors.netstat import NetstatCollector
from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.pressure import PressureCollector
from node_anomaly_agent.collectors.processes import ProcessesCollector
from node_anomaly_agent.collectors.procfile import CollectorMissing
from node_anomaly_agent.collectors.thermal import ThermalCollector
from node_anomaly_agent.collectors.timex import TimexCollector
from node_anomaly_agent.collectors.vmstat import VmstatCollector
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.expressions import Reading

__all__ = ["COLLECTORS", "Collector", "CollectorMissing", "CollectorSpec", "Paths", "build_collectors"]


class Collector(Protocol):
    """What the sampler needs of a collector."""

    @property
    def name(self) -> str:
        """The key in COLLECTORS."""

    def read(self) -> Reading:
        """What the host says now.

        Raises:
            CollectorMissing: the host has no such thing.
            OSError: it could not be read.
            ValueError: what was read is not what the kernel documents.
        """

    def close(self) -> None:
        """Let go of every file."""


@dataclass(frozen=True, slots=True)
class CollectorSpec:
    """One row of COLLECTORS: `factory` opens nothing yet."""

    factory: Callable[[Paths], Collector]
    default_enabled: bool
    help: str


COLLECTORS: Mapping[str, CollectorSpec] = MappingProxyType({
    "cpu": CollectorSpec(CpuCollector, True, "CPU time, interrupts, context switches, forks: /proc/stat"),
    "loadavg": CollectorSpec(LoadavgCollector, True, "load average: /proc/loadavg"),
    "memory": CollectorSpec(MemoryCollector, True, "memory and swap: /proc/meminfo"),
    "vmstat": CollectorSpec(VmstatCollector, True, "swapped pages, major faults, OOM kills: /proc/vmstat"),
    "pressure": CollectorSpec(PressureCollector, True, "pressure stall information: /proc/pressure"),
    "diskstats": CollectorSpec(DiskstatsCollector, True, "disk operations and time: /proc/diskstats"),
    "filesystem": CollectorSpec(FilesystemCollector, True, "space and inodes of local file systems"),
    "netdev": CollectorSpec(NetdevCollector, True, "bytes, packets, errors, drops: /proc/net/dev"),
    "netstat": CollectorSpec(NetstatCollector, True, "TCP health: /proc/net/snmp, netstat, sockstat"),
    "filefd": CollectorSpec(FilefdCollector, True, "open files: /proc/sys/fs/file-nr"),
    "conntrack": CollectorSpec(ConntrackCollector, True, "connection tracking: /proc/sys/net/netfilter"),
    "processes": CollectorSpec(ProcessesCollector, True, "number of threads: /proc/loadavg"),
    "thermal": CollectorSpec(ThermalCollector, True, "temperatures: /sys/class/thermal"),
    "hwmon": CollectorSpec(HwmonCollector, True, "temperatures of chips: /sys/class/hwmon"),
    "timex": CollectorSpec(TimexCollector, True, "clock offset: adjtimex(2)"),
})  # fmt: skip
"""Every collector, in the order in which a tick runs them."""


def build_collectors(paths: Paths, enabled: Mapping[str, bool] | None = None) -> list[Collector]:
    """The collectors that are on by default or by `enabled`; ConfigError for a name COLLECTORS lacks."""
    enabled = enabled or {}
    for name in enabled:
        if name not in COLLECTORS:
            near = difflib.get_close_matches(name, COLLECTORS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known collectors: {', '.join(COLLECTORS)}"
            raise ConfigError(f"collector.{name}: there is no such collector", hint)
    return [
        spec.factory(paths) for name, spec in COLLECTORS.items() if enabled.get(name, spec.default_enabled)
    ]
