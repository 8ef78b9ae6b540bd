"""What each parser makes of the invented machine, and of bytes no kernel would print."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.collectors.conntrack import parse_conntrack
from node_anomaly_agent.collectors.cpu import NeverBack, parse_stat
from node_anomaly_agent.collectors.devices import MAX_DEVICES
from node_anomaly_agent.collectors.diskstats import parse_diskstats
from node_anomaly_agent.collectors.filefd import parse_file_nr
from node_anomaly_agent.collectors.filesystem import Mount, parse_mounts
from node_anomaly_agent.collectors.loadavg import parse_loadavg
from node_anomaly_agent.collectors.memory import parse_meminfo
from node_anomaly_agent.collectors.netdev import parse_netdev
from node_anomaly_agent.collectors.netstat import parse_netstat, parse_sockstat
from node_anomaly_agent.collectors.pressure import parse_pressure
from node_anomaly_agent.collectors.processes import parse_threads
from node_anomaly_agent.collectors.thermal import parse_temp
from node_anomaly_agent.collectors.timex import STA_NANO, parse_timex
from node_anomaly_agent.collectors.vmstat import parse_vmstat
from node_anomaly_core.expressions import Reading

Parser = Callable[[bytes], Reading]

PARSERS: dict[str, tuple[Parser, str]] = {
    "stat": (parse_stat, "proc/stat"),
    "loadavg": (parse_loadavg, "proc/loadavg"),
    "threads": (parse_threads, "proc/loadavg"),
    "meminfo": (parse_meminfo, "proc/meminfo"),
    "vmstat": (parse_vmstat, "proc/vmstat"),
    "diskstats": (parse_diskstats, "proc/diskstats"),
    "netdev": (parse_netdev, "proc/net/dev"),
    "snmp": (parse_netstat, "proc/net/snmp"),
    "netstat": (parse_netstat, "proc/net/netstat"),
    "sockstat": (parse_sockstat, "proc/net/sockstat"),
    "psi-cpu": (lambda data: parse_pressure("cpu", data), "proc/pressure/cpu"),
    "psi-io": (lambda data: parse_pressure("io", data), "proc/pressure/io"),
    "file-nr": (parse_file_nr, "proc/sys/fs/file-nr"),
    "conntrack": (lambda data: parse_conntrack(data, data), "proc/sys/net/netfilter/nf_conntrack_max"),
    "temp": (lambda data: {("t", ""): parse_temp(data)}, "sys/class/thermal/thermal_zone0/temp"),
    "timex": (parse_timex, "proc/stat"),
}
EVERY_PARSER = pytest.mark.parametrize(("parse", "path"), list(PARSERS.values()), ids=list(PARSERS))


def harmless(parse: Parser, data: bytes) -> None:
    """Parsing ends in finite numbers or in a ValueError."""
    with suppress(ValueError):
        assert all(math.isfinite(value) for value in parse(data).values())


@EVERY_PARSER
class TestAnyBytes:
    @given(data=st.binary(max_size=400))
    def test_noise_raises_nothing_but_value_error(self, parse: Parser, path: str, data: bytes) -> None:
        """Random bytes are refused or skipped."""
        harmless(parse, data)

    @given(data=st.data())
    def test_a_damaged_file_raises_nothing_but_value_error(
        self, parse: Parser, path: str, data: st.DataObject, fixtures: Path
    ) -> None:
        """A real file with a piece cut out and something else put in is refused or skipped."""
        content = (fixtures / "host" / path).read_bytes()
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 60)))
        odd = data.draw(
            st.one_of(st.binary(max_size=20), st.sampled_from([b"9" * 30, b"-1", b"nan", b"1_0"]))
        )
        harmless(parse, content[:start] + odd + content[stop:])


class TestTheInventedMachine:
    def test_cpu_seconds_are_summed_over_cpus(self, fixtures: Path) -> None:
        """The aggregate line gives seconds per mode, the lines below it the number of CPUs."""
        reading = parse_stat((fixtures / "host/proc/stat").read_bytes())
        assert reading["node_cpu_seconds_total", "user"] == 4012.34
        assert reading["node_cpu_seconds_total", "steal"] == 6.78
        assert reading["node_cpu_seconds_total:count", ""] == 4.0
        assert reading["node_intr_total", ""] == 123456789.0
        assert reading["node_procs_blocked", ""] == 1.0

    def test_memory_is_in_bytes(self, fixtures: Path) -> None:
        """kB in the file are KiB."""
        reading = parse_meminfo((fixtures / "host/proc/meminfo").read_bytes())
        assert reading["node_memory_MemTotal_bytes", ""] == 16384000 * 1024
        assert reading["node_memory_Writeback_bytes", ""] == 8192 * 1024

    def test_vmstat_takes_whole_names_only(self, fixtures: Path) -> None:
        """A line that merely begins like a wanted one is another counter."""
        reading = parse_vmstat((fixtures / "host/proc/vmstat").read_bytes())
        assert reading["node_vmstat_pgmajfault", ""] == 12345.0
        assert reading["node_vmstat_oom_kill", ""] == 2.0

    def test_only_whole_physical_disks_count(self, fixtures: Path) -> None:
        """Partitions, loops, zram, optical drives and volumes on top of disks are left out."""
        reading = parse_diskstats((fixtures / "host/proc/diskstats").read_bytes())
        assert {device for _, device in reading} == {"sda", "nvme0n1"}
        assert reading["node_disk_written_bytes_total", "sda"] == 8000000 * 512
        assert reading["node_disk_io_time_seconds_total", "nvme0n1"] == 45.0
        assert reading["node_disk_io_time_weighted_seconds_total", "sda"] == 290.0

    def test_only_real_interfaces_count(self, fixtures: Path) -> None:
        """Loopback, bridges, container ends and VLANs are left out; a name may touch its colon."""
        reading = parse_netdev((fixtures / "host/proc/net/dev").read_bytes())
        assert {device for _, device in reading} == {"ens5", "eno1"}
        assert reading["node_network_receive_drop_total", "ens5"] == 20.0
        assert reading["node_network_transmit_errs_total", "ens5"] == 1.0
        assert reading["node_network_receive_bytes_total", "eno1"] == 1000000.0

    def test_a_host_without_interfaces_has_the_table_all_the_same(self, fixtures: Path) -> None:
        """The kernel prints the header first; without it what was read is no table of interfaces."""
        header = b"\n".join((fixtures / "host/proc/net/dev").read_bytes().split(b"\n")[:2])
        assert parse_netdev(header) == {}
        with pytest.raises(ValueError, match="no header in /proc/net/dev"):
            parse_netdev(b"")

    def test_tcp_numbers_come_from_the_column_of_their_name(self, fixtures: Path) -> None:
        """Columns differ between kernels, names do not."""
        snmp = parse_netstat((fixtures / "host/proc/net/snmp").read_bytes())
        extended = parse_netstat((fixtures / "host/proc/net/netstat").read_bytes())
        assert snmp == {("node_netstat_Tcp_RetransSegs", ""): 777.0, ("node_netstat_Tcp_CurrEstab", ""): 42.0}
        assert extended == {("node_netstat_TcpExt_ListenOverflows", ""): 11.0}
        assert parse_sockstat((fixtures / "host/proc/net/sockstat").read_bytes()) == {
            ("node_sockstat_TCP_tw", ""): 17.0
        }

    def test_pressure_is_in_seconds(self, fixtures: Path) -> None:
        """The total is in microseconds; the CPU's "full" line means nothing for a whole system."""
        cpu = parse_pressure("cpu", (fixtures / "host/proc/pressure/cpu").read_bytes())
        assert cpu == {("node_pressure_cpu_waiting_seconds_total", ""): 300.0}
        io = parse_pressure("io", (fixtures / "host/proc/pressure/io").read_bytes())
        assert io["node_pressure_io_stalled_seconds_total", ""] == pytest.approx(60.0)

    def test_pseudo_remote_and_container_mounts_are_never_asked(self, fixtures: Path) -> None:
        """What is left is local, with its escapes decoded and its read-only flag."""
        assert parse_mounts((fixtures / "host/proc/1/mounts").read_bytes()) == (
            Mount("/", read_only=False),
            Mount("/boot", read_only=True),
            Mount("/srv/big data", read_only=False),
            Mount("/tmp", read_only=False),
        )

    def test_what_is_mounted_below_something_remote_is_not_asked_either(self) -> None:
        """The way there leads through a server that may not answer; what lies over it is on this host."""
        table = (
            b"/dev/a / ext4 rw 0 0\ntmpfs /srv tmpfs rw 0 0\n/dev/u /srv/usb ext4 rw 0 0\n"
            b"s:/x /nfs nfs4 rw 0 0\n/dev/b /nfs/local ext4 rw 0 0\n/dev/c /nfsnot ext4 rw 0 0\n"
            b"h /ssh fuse.sshfs rw 0 0\n/dev/d /ssh ext4 rw 0 0\n/dev/e /ssh/deep xfs rw 0 0\n"
            b"/dev/f /home ext4 rw 0 0\ns:/home /home nfs4 rw 0 0\n"
        )
        points = [mount.point for mount in parse_mounts(table)]
        assert points == ["/", "/srv", "/srv/usb", "/nfsnot", "/ssh", "/ssh/deep"]

    def test_on_a_remote_root_the_local_mounts_are_still_asked(self) -> None:
        """A node without a disk of its own; were its root gone, so would be this process."""
        table = b"s:/root / nfs4 rw 0 0\n/dev/a /scratch ext4 rw 0 0\n"
        assert parse_mounts(table) == (Mount("/scratch", read_only=False),)

    def test_a_clock_offset_may_be_in_either_unit(self) -> None:
        """Nanoseconds with STA_NANO, microseconds without."""
        nano = struct.pack("@illlli", 0, -2_000_000, 0, 0, 0, STA_NANO)
        micro = struct.pack("@illlli", 0, 2_000, 0, 0, 0, 0)
        assert parse_timex(nano)["node_timex_offset_seconds", ""] == pytest.approx(-2e-3)
        assert parse_timex(micro)["node_timex_offset_seconds", ""] == pytest.approx(2e-3)

    def test_a_temperature_may_be_below_zero(self) -> None:
        """Thousandths of a degree with a sign."""
        assert parse_temp(b"-4500\n") == -4.5


class TestLimits:
    @pytest.mark.parametrize("parse", [parse_diskstats, parse_netdev])
    def test_more_devices_than_the_limit_are_an_error_not_a_partial_sum(self, parse: Parser) -> None:
        """A sum over some of the devices would look like a real number."""
        disks = b"".join(b" 8 0 x%d %s\n" % (at, b"1 " * 14) for at in range(MAX_DEVICES + 1))
        interfaces = b"".join(b" x%d: %s\n" % (at, b"1 " * 16) for at in range(MAX_DEVICES + 1))
        with pytest.raises(ValueError, match=str(MAX_DEVICES)):
            parse(disks if parse is parse_diskstats else interfaces)

    @given(data=st.binary(max_size=300))
    def test_a_mount_table_of_noise_yields_absolute_paths_only(self, data: bytes) -> None:
        """Whatever the table says, statvfs is only ever given an absolute path without a NUL."""
        for mount in parse_mounts(data):
            assert mount.point.startswith("/")
            assert "\0" not in mount.point


class TestNeverBack:
    @given(values=st.lists(st.floats(0, 1e9), min_size=1, max_size=30))
    def test_a_counter_only_ever_rises(self, values: list[float]) -> None:
        """A correction downwards counts nothing, and what follows it counts in full."""
        keep, seen = NeverBack(), []
        for value in values:
            reading: Reading = {("node_cpu_seconds_total", "iowait"): value}
            keep.apply(reading)
            seen.append(reading["node_cpu_seconds_total", "iowait"])
        rises = [max(b - a, 0.0) for a, b in pairwise(values)]
        assert all(b >= a - 1e-6 for a, b in pairwise(seen))
        assert seen[-1] - seen[0] == pytest.approx(sum(rises), abs=1e-3)

    @given(values=st.lists(st.floats(0, 1e9), min_size=2, max_size=30), at=st.integers(1, 29))
    def test_a_restart_changes_nothing_of_it(self, values: list[float], at: int) -> None:
        """The window that is saved beside it holds the raised counters."""

        def lived(restarts: set[int]) -> list[float]:
            keep, seen = NeverBack(), []
            for number, value in enumerate(values):
                if number in restarts:
                    saved, keep = json.loads(json.dumps(keep.state())), NeverBack()
                    assert keep.restore(saved)
                reading: Reading = {("node_cpu_seconds_total", "iowait"): value}
                keep.apply(reading)
                seen.append(reading["node_cpu_seconds_total", "iowait"])
            return seen

        assert lived({at}) == lived(set())

    @pytest.mark.parametrize("last", [None, [], {"idle": "x"}, {"x": 1.0}, {"idle": -1.0}])
    def test_a_state_that_is_none_is_not_taken(self, last: object) -> None:
        """Of a foreign file nothing is believed."""
        keep = NeverBack()
        assert not keep.restore({"last": last, "lost": {}})
        assert keep.state() == {"last": {}, "lost": {}}
