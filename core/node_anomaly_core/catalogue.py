"""The catalogue: what a feature is, and the table of all host features in their fixed order.

Each row carries one expression over node_exporter's metrics (names as in 1.5 and later), or for logs
over the agent's own; see `expressions`. To add a feature append a row; if it needs a metric no collector
yields yet, add it there.

`floor` is the smallest scale worth noticing, in the feature's unit: deviations are measured in multiples
of at least this much. It is chosen so that what an idle host does by itself (a cron job, a few KB/s of
journal writes, a package index download) stays within a handful of floors.
"""

from __future__ import annotations

from dataclasses import dataclass

from node_anomaly_core.expressions import (
    Aggregate,
    ClampMin,
    Expression,
    FoldedCount,
    Gauge,
    Match,
    Rate,
    only,
    only_rate,
)

UNITS = ("ratio", "seconds", "bytes", "bytes_per_second", "per_second", "count", "celsius")
GROUPS = ("cpu", "memory", "disk", "filesystem", "network", "pressure", "kernel", "logs")

DISK_EXCLUDE = (
    "(z?ram|loop|fd|sr|md|nbd|dm-|(h|s|v|xv)d[a-z]+|mmcblk[0-9]+p"
    "|nvme[0-9]+n[0-9]+p|nvme[0-9]+c[0-9]+n)[0-9]+.*"
)
"""Partitions and virtual disks as node_exporter excludes them; also dm-, md, nbd and nvme paths, whose
traffic is that of the disks below them and would be counted twice."""

NETWORK_EXCLUDE = (
    "lo|(azv|bond|br|cali|cilium|cni|docker|dummy|eni|flannel|fw(br|ln|pr)|gre|ifb|ip6tnl|kube|lxc|lxd|macvtap"
    "|nodelocaldns|ovs|sit|tap|team|tun|veth|virbr|vlan|vmnet|vnet|vxlan|weave|wg).*|.+[.@].+"
)
"""Loopback, container and tunnel ends, bridges, bonds and VLANs: their packets pass a real interface too."""

REMOTE_FILESYSTEM = (
    "(9p|afs|beegfs|ceph|cifs|coda|fuse|fuseblk|gfs2?|glusterfs|gpfs|lustre|ncpfs|nfs[0-9]*|ocfs2|smb[0-9]*"
    "|smbfs|virtiofs)([.].*)?"
)
"""File system types whose files are on another machine, or in the hands of a process that may have gone."""

FILESYSTEM_EXCLUDE = (
    "autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|erofs|fusectl|hugetlbfs|iso9660"
    "|mqueue|nsfs|overlay|proc|procfs|pstore|ramfs|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs|udf"
    f"|{REMOTE_FILESYSTEM}"
)
"""File system types: node_exporter's own list, and everything remote, because asking a dead server how
full it is hangs the caller."""

MOUNT_EXCLUDE = (
    "/(dev|proc|run|sys|mnt|media|var/lib/docker/.+|var/lib/containers/.+|var/lib/kubelet/.+)($|/.*)"
)
"""Mount points, as Debian's node_exporter excludes them (upstream keeps /mnt and /media; the stricter list
gives the same number with either), and container layers."""

_DISKS = Match("device", "!~", DISK_EXCLUDE)
_NICS = Match("device", "!~", NETWORK_EXCLUDE)
_MOUNTS = (Match("fstype", "!~", FILESYSTEM_EXCLUDE), Match("mountpoint", "!~", MOUNT_EXCLUDE))


@dataclass(frozen=True, slots=True)
class Feature:
    """One number of a node; `expression` is None for a feature known only by name, from a manifest.

    `tolerance` is the median relative difference (to the larger end or the floor) that the node's value may
    have from Prometheus' over the same instants; `tolerance_reason` says why where it is wider than 2 %.
    """

    name: str
    unit: str
    help: str
    group: str
    kind: str
    direction: str
    floor: float
    expression: Expression | None
    tolerance: float = 0.02
    tolerance_reason: str = ""

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        """The query that yields this number for every instance; "" if there is no expression."""
        return "" if self.expression is None else self.expression.promql(window, matchers)


def _cpu(modes: Match) -> Expression:
    """Share of all CPU time spent in these modes; the denominator includes idle, so it stays in 0..1."""
    chosen = Aggregate("sum", Rate("node_cpu_seconds_total", "mode", (modes,)))
    return chosen / Aggregate("sum", Rate("node_cpu_seconds_total", "mode"))


def _of_memory(metric: str) -> Expression:
    return only(metric) / only("node_memory_MemTotal_bytes")


def _disk(metric: str) -> Rate:
    return Rate(metric, "device", (_DISKS,))


def _nic(metric: str) -> Expression:
    return Aggregate("sum", Rate(metric, "device", (_NICS,)))


def _logged(what: str) -> Expression:
    return Aggregate("sum", Rate(f"anomaly_agent_log_{what}_total", "source"))


def _mount(metric: str) -> Gauge:
    return Gauge(metric, "mountpoint", _MOUNTS)


def _feature(
    name: str,
    unit: str,
    group: str,
    direction: str,
    floor: float,
    expression: Expression,
    text: str,
    tolerance: float = 0.02,
    tolerance_reason: str = "",
) -> Feature:
    kind = "rate" if any(isinstance(leaf, Rate) for leaf in expression.leaves()) else "gauge"
    return Feature(name, unit, text, group, kind, direction, floor, expression, tolerance, tolerance_reason)


_CPUS = FoldedCount("node_cpu_seconds_total", (Match("mode", "=", "idle"),))
_OPERATIONS = _disk("node_disk_reads_completed_total") + _disk("node_disk_writes_completed_total")
_FREE_BYTES = _mount("node_filesystem_avail_bytes") / _mount("node_filesystem_size_bytes")
_FREE_INODES = _mount("node_filesystem_files_free") / _mount("node_filesystem_files")
_WAITED = _disk("node_disk_read_time_seconds_total") + _disk("node_disk_write_time_seconds_total")
_COARSE = (
    "The kernel counts ticks of 10 ms, cut off for each CPU there and for their sum here; in a short window "
    "one tick is up to a tenth of the floor."
)

CATALOGUE: tuple[Feature, ...] = (
    # -- cpu
    _feature("cpu_busy_ratio", "ratio", "cpu", "high", 0.02,
             _cpu(Match("mode", "!~", "idle|iowait|steal")),
             "Share of CPU time spent working (not idle, waiting for I/O, or stolen)."),
    _feature("cpu_user_ratio", "ratio", "cpu", "high", 0.02, _cpu(Match("mode", "=~", "user|nice")),
             "Share of CPU time in user space, niced processes included."),
    _feature("cpu_system_ratio", "ratio", "cpu", "high", 0.01, _cpu(Match("mode", "=", "system")),
             "Share of CPU time in the kernel."),
    _feature("cpu_iowait_ratio", "ratio", "cpu", "high", 0.02, _cpu(Match("mode", "=", "iowait")),
             "Share of CPU time idle while I/O was outstanding."),
    _feature("cpu_steal_ratio", "ratio", "cpu", "high", 0.01, _cpu(Match("mode", "=", "steal")),
             "Share of CPU time the hypervisor gave to others.",
             0.1, _COARSE),
    _feature("cpu_softirq_ratio", "ratio", "cpu", "high", 0.01, _cpu(Match("mode", "=~", "irq|softirq")),
             "Share of CPU time in hard and soft interrupts.",
             0.1, _COARSE),
    _feature("load1_per_cpu_ratio", "ratio", "cpu", "high", 0.1, only("node_load1") / _CPUS,
             "Load average over one minute for each CPU."),
    _feature("processes_running_per_cpu_ratio", "ratio", "cpu", "high", 0.5,
             only("node_procs_running") / _CPUS,
             "Runnable processes for each CPU at the moment of the sample.",
             0.6, "An instant, and whoever looks is running: node_exporter with several threads, the agent "
                  "with one."),
    # -- pressure
    _feature("pressure_cpu_waiting_ratio", "ratio", "pressure", "high", 0.01,
             only_rate("node_pressure_cpu_waiting_seconds_total"),
             "Share of time at least one process waited for a CPU."),
    _feature("pressure_memory_waiting_ratio", "ratio", "pressure", "high", 0.005,
             only_rate("node_pressure_memory_waiting_seconds_total"),
             "Share of time at least one process waited for memory."),
    _feature("pressure_memory_stalled_ratio", "ratio", "pressure", "high", 0.005,
             only_rate("node_pressure_memory_stalled_seconds_total"),
             "Share of time all processes waited for memory at once."),
    _feature("pressure_io_waiting_ratio", "ratio", "pressure", "high", 0.01,
             only_rate("node_pressure_io_waiting_seconds_total"),
             "Share of time at least one process waited for I/O."),
    _feature("pressure_io_stalled_ratio", "ratio", "pressure", "high", 0.01,
             only_rate("node_pressure_io_stalled_seconds_total"),
             "Share of time all processes waited for I/O at once."),
    # -- memory
    _feature("memory_available_ratio", "ratio", "memory", "low", 0.01,
             _of_memory("node_memory_MemAvailable_bytes"),
             "Share of memory available to new work without swapping."),
    _feature("memory_dirty_ratio", "ratio", "memory", "high", 0.005, _of_memory("node_memory_Dirty_bytes"),
             "Share of memory waiting to be written to disk."),
    _feature("memory_writeback_ratio", "ratio", "memory", "high", 0.002,
             _of_memory("node_memory_Writeback_bytes"),
             "Share of memory being written to disk at the moment of the sample."),
    _feature("memory_slab_ratio", "ratio", "memory", "high", 0.005, _of_memory("node_memory_Slab_bytes"),
             "Share of memory in the kernel's own caches."),
    _feature("swap_used_ratio", "ratio", "memory", "high", 0.01,
             1 - only("node_memory_SwapFree_bytes") / only("node_memory_SwapTotal_bytes"),
             "Share of swap in use; missing on a host without swap."),
    _feature("swap_in_pages_per_second", "per_second", "memory", "high", 25.0,
             only_rate("node_vmstat_pswpin"),
             "Pages read back from swap per second."),
    _feature("swap_out_pages_per_second", "per_second", "memory", "high", 25.0,
             only_rate("node_vmstat_pswpout"),
             "Pages written to swap per second."),
    _feature("major_page_faults_per_second", "per_second", "memory", "high", 10.0,
             only_rate("node_vmstat_pgmajfault"),
             "Page faults per second that had to read from disk."),
    _feature("oom_kills_per_second", "per_second", "memory", "high", 0.005,
             only_rate("node_vmstat_oom_kill"),
             "Processes killed per second because memory ran out; one kill in a minute is 0.02."),
    # -- disk
    _feature("disk_read_bytes_per_second", "bytes_per_second", "disk", "high", 1048576.0,
             Aggregate("sum", _disk("node_disk_read_bytes_total")),
             "Bytes read per second, all disks together."),
    _feature("disk_written_bytes_per_second", "bytes_per_second", "disk", "high", 1048576.0,
             Aggregate("sum", _disk("node_disk_written_bytes_total")),
             "Bytes written per second, all disks together."),
    _feature("disk_operations_per_second", "per_second", "disk", "high", 25.0,
             Aggregate("sum", _OPERATIONS),
             "Completed reads and writes per second, all disks together."),
    _feature("disk_busy_ratio", "ratio", "disk", "high", 0.02,
             Aggregate("max", _disk("node_disk_io_time_seconds_total")),
             "Share of time the busiest disk had work."),
    # Per operation, or per second while there is less than one a second: a lone slow write on an idle disk
    # is not an ill disk, and an idle disk waits 0 s rather than 0/0.
    _feature("disk_await_seconds", "seconds", "disk", "high", 0.01,
             Aggregate("max", _WAITED / ClampMin(_OPERATIONS, 1.0)),
             "Mean time an operation took on the slowest disk (damped below one operation per second)."),
    _feature("disk_queue_count", "count", "disk", "high", 0.5,
             Aggregate("max", _disk("node_disk_io_time_weighted_seconds_total")),
             "Mean number of operations in flight on the most loaded disk."),
    # -- filesystem
    _feature("filesystem_fullest_ratio", "ratio", "filesystem", "high", 0.005,
             1 - Aggregate("min", _FREE_BYTES),
             "Used share of the fullest local file system, as an unprivileged process sees it."),
    _feature("filesystem_inodes_fullest_ratio", "ratio", "filesystem", "high", 0.005,
             1 - Aggregate("min", _FREE_INODES),
             "Used share of inodes of the local file system with the fewest left."),
    _feature("filesystem_readonly_count", "count", "filesystem", "high", 0.5,
             Aggregate("sum", _mount("node_filesystem_readonly")),
             "Local file systems that are mounted read-only."),
    # -- network
    _feature("network_receive_bytes_per_second", "bytes_per_second", "network", "both", 262144.0,
             _nic("node_network_receive_bytes_total"),
             "Bytes received per second, all physical interfaces together."),
    _feature("network_transmit_bytes_per_second", "bytes_per_second", "network", "both", 262144.0,
             _nic("node_network_transmit_bytes_total"),
             "Bytes sent per second, all physical interfaces together."),
    _feature("network_receive_packets_per_second", "per_second", "network", "both", 250.0,
             _nic("node_network_receive_packets_total"),
             "Packets received per second, all physical interfaces together."),
    _feature("network_transmit_packets_per_second", "per_second", "network", "both", 250.0,
             _nic("node_network_transmit_packets_total"),
             "Packets sent per second, all physical interfaces together."),
    _feature("network_errors_per_second", "per_second", "network", "high", 0.2,
             _nic("node_network_receive_errs_total") + _nic("node_network_transmit_errs_total"),
             "Receive and transmit errors per second, all physical interfaces together."),
    _feature("network_drops_per_second", "per_second", "network", "high", 1.0,
             _nic("node_network_receive_drop_total") + _nic("node_network_transmit_drop_total"),
             "Packets dropped per second in either direction, all physical interfaces together."),
    _feature("tcp_retransmits_per_second", "per_second", "network", "high", 1.0,
             only_rate("node_netstat_Tcp_RetransSegs"),
             "TCP segments sent again per second."),
    _feature("tcp_listen_overflows_per_second", "per_second", "network", "high", 0.1,
             only_rate("node_netstat_TcpExt_ListenOverflows"),
             "Connections refused per second because a listen queue was full."),
    _feature("tcp_established_count", "count", "network", "both", 10.0,
             only("node_netstat_Tcp_CurrEstab"),
             "Established TCP connections."),
    _feature("tcp_time_wait_count", "count", "network", "high", 50.0, only("node_sockstat_TCP_tw"),
             "TCP connections in TIME_WAIT."),
    # -- kernel
    _feature("processes_blocked_count", "count", "kernel", "high", 1.0, only("node_procs_blocked"),
             "Processes blocked on I/O at the moment of the sample."),
    _feature("threads_count", "count", "kernel", "both", 25.0, only("node_processes_threads"),
             "Threads in the system (node_exporter needs --collector.processes for it)."),
    _feature("forks_per_second", "per_second", "kernel", "high", 5.0, only_rate("node_forks_total"),
             "Processes and threads created per second."),
    _feature("context_switches_per_second", "per_second", "kernel", "both", 1000.0,
             only_rate("node_context_switches_total"),
             "Context switches per second, all CPUs together."),
    _feature("interrupts_per_second", "per_second", "kernel", "both", 1000.0, only_rate("node_intr_total"),
             "Interrupts serviced per second, all CPUs together."),
    _feature("file_descriptors_used_ratio", "ratio", "kernel", "high", 0.005,
             only("node_filefd_allocated") / only("node_filefd_maximum"),
             "Share of the system-wide limit of open files in use."),
    _feature("file_descriptors_count", "count", "kernel", "high", 250.0, only("node_filefd_allocated"),
             "Open files in the system."),
    _feature("conntrack_used_ratio", "ratio", "kernel", "high", 0.005,
             only("node_nf_conntrack_entries") / only("node_nf_conntrack_entries_limit"),
             "Share of the connection tracking table in use."),
    _feature("temperature_max_celsius", "celsius", "kernel", "high", 2.0,
             Aggregate("max", Gauge("node_thermal_zone_temp", "zone")),
             "Temperature of the hottest thermal zone."),
    _feature("clock_offset_seconds", "seconds", "kernel", "both", 0.005, only("node_timex_offset_seconds"),
             "Offset of the clock from its time source, as the kernel's discipline sees it."),
    _feature("sensor_temperature_max_celsius", "celsius", "kernel", "high", 2.0,
             Aggregate("max", Gauge("node_hwmon_temp_celsius", "chip")),
             "Temperature of the hottest sensor of any chip (processors, disks, boards)."),
    # -- logs: the metrics are the agent's own, so that history has them from where an agent was scraped
    _feature("log_lines_per_second", "per_second", "logs", "both", 2.0, _logged("lines"),
             "Lines logged per second, all sources together."),
    _feature("log_bytes_per_second", "bytes_per_second", "logs", "both", 1024.0, _logged("bytes"),
             "Bytes logged per second, all sources together."),
    _feature("log_errors_per_second", "per_second", "logs", "high", 0.1, _logged("errors"),
             "Lines of severity error or worse per second."),
    _feature("log_warnings_per_second", "per_second", "logs", "high", 0.2, _logged("warnings"),
             "Lines of severity warning per second."),
    # Of all lines, or of one a second while there is less: a lone error on a silent host is not all there is.
    _feature("log_errors_ratio", "ratio", "logs", "high", 0.02,
             _logged("errors") / ClampMin(_logged("lines"), 1.0),
             "Share of errors among the lines (damped below one line per second)."),
    _feature("log_new_templates_per_second", "per_second", "logs", "high", 0.05,
             only_rate("anomaly_agent_log_new_templates_total"),
             "Patterns of lines per second that had never been seen before."),
    _feature("log_templates_count", "count", "logs", "high", 5.0, only("anomaly_agent_log_templates"),
             "Patterns of lines that are known."),
    _feature("log_silence_seconds", "seconds", "logs", "high", 60.0,
             Aggregate("max", Gauge("anomaly_agent_log_silence_seconds", "source")),
             "Silence of a source that normally logs, beyond its longest usual gap; the longest of any."),
)  # fmt: skip
"""Every host feature; the order is part of the contract between trainer and agent."""

METRIC_LABEL: dict[str, str] = {
    leaf.metric: leaf.label
    for feature in CATALOGUE
    if feature.expression is not None
    for leaf in feature.expression.leaves()
}
"""Which label of a metric the node keeps in a SeriesKey ("" if the metric has one series per host)."""

FEATURES_BY_NAME: dict[str, Feature] = {feature.name: feature for feature in CATALOGUE}
