"""Collectors against files that change under them: vanishing, coming back, belonging to a container."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from node_anomaly_agent.collectors import COLLECTORS, CollectorMissing, Paths, build_collectors
from node_anomaly_agent.collectors.devices import MAX_DEVICES, MAX_NAMES, DeviceFilter
from node_anomaly_agent.collectors.diskstats import DiskstatsCollector
from node_anomaly_agent.collectors.filesystem import MAX_MOUNTS, FilesystemCollector
from node_anomaly_agent.collectors.netstat import NetstatCollector
from node_anomaly_agent.collectors.pressure import PressureCollector
from node_anomaly_agent.collectors.procfile import MAX_BYTES, HeldFile
from node_anomaly_agent.collectors.thermal import ThermalCollector
from node_anomaly_agent.collectors.timex import TimexCollector
from node_anomaly_agent.sampler import Sampler
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.features import CATALOGUE


@pytest.fixture
def host(tmp_path: Path, fixtures: Path) -> Path:
    """A copy of the invented machine that a test may break."""
    return Path(shutil.copytree(fixtures / "host", tmp_path / "host"))


def paths_of(host: Path) -> Paths:
    return Paths(str(host / "proc"), str(host / "sys"), "/")


class Space:
    """A statvfs that notes what it was asked and refuses what it was told to."""

    def __init__(self, *refused: str) -> None:
        self.asked: list[str] = []
        self._refused = refused

    def __call__(self, path: str) -> os.statvfs_result:
        self.asked.append(path)
        if path in self._refused:
            raise OSError(errno.EIO, "broken", path)
        return os.statvfs_result((4096, 1024, 1000, 300, 250, 5000, 4000, 4000, 0, 255))


class TestHeldFile:
    def test_it_reads_what_is_there_now(self, tmp_path: Path) -> None:
        """The descriptor stays, the content is new each time."""
        path = tmp_path / "value"
        path.write_bytes(b"1\n")
        file = HeldFile(str(path))
        assert file.read() == b"1\n"
        with path.open("r+b") as inside:
            inside.write(b"2\n")
        assert file.read() == b"2\n"
        file.close()
        file.close()

    def test_a_stale_descriptor_is_opened_again(self, tmp_path: Path) -> None:
        """After the device behind it vanished and came back the next read works."""
        path = tmp_path / "value"
        path.write_bytes(b"1\n")
        file = HeldFile(str(path))
        file.read()
        folder = os.open(tmp_path, os.O_RDONLY)
        os.dup2(folder, file._fd)  # a descriptor that answers every read with an error
        os.close(folder)
        path.write_bytes(b"2\n")
        assert file.read() == b"2\n"
        file.close()

    def test_a_file_larger_than_a_page_is_read_to_its_end(self) -> None:
        """The kernel hands out a sequence file about a page at a time."""
        file = HeldFile("/proc/self/smaps")
        assert file.read().endswith(b"\n")
        assert len(file.read()) > 2 * 4096
        file.close()

    def test_a_file_without_end_is_refused(self, tmp_path: Path) -> None:
        """More than MAX_BYTES is no kernel file."""
        path = tmp_path / "huge"
        with path.open("wb") as sparse:
            sparse.truncate(MAX_BYTES + 1)
        with pytest.raises(ValueError, match="bytes"):
            HeldFile(str(path)).read()

    def test_an_error_names_the_file(self, tmp_path: Path) -> None:
        """A sick kernel file is told from its neighbours."""
        with pytest.raises(OSError, match=str(tmp_path)):
            HeldFile(str(tmp_path)).read()

    def test_what_is_not_there_is_missing(self, tmp_path: Path) -> None:
        """The message names the file."""
        with pytest.raises(CollectorMissing, match="nowhere"):
            HeldFile(str(tmp_path / "nowhere")).read()


class TestPaths:
    def test_in_a_container_the_hosts_network_is_read_through_init(self, host: Path) -> None:
        """/proc/net of a mounted procfs would be the container's own."""
        assert Paths().net("dev") == "/proc/net/dev"
        assert paths_of(host).net("dev") == f"{host}/proc/net/dev"
        (host / "proc/1/net").mkdir()
        (host / "proc/1/net/dev").write_bytes(b"")
        assert paths_of(host).net("dev") == f"{host}/proc/1/net/dev"

    def test_the_roots_may_end_in_a_slash(self) -> None:
        """`--path.procfs=/host/proc/` is as good as without."""
        assert Paths("/host/proc/").proc("sys", "fs") == "/host/proc/sys/fs"
        assert Paths(sysfs="/host/sys/").sys("class") == "/host/sys/class"


class TestBuild:
    def test_collectors_can_be_switched_off(self) -> None:
        """The order is that of the table."""
        names = [collector.name for collector in build_collectors(Paths(), {"thermal": False})]
        assert names == [name for name in COLLECTORS if name != "thermal"]
        assert [collector.name for collector in build_collectors(Paths())] == list(COLLECTORS)

    @pytest.mark.parametrize(("name", "hint"), [("netdv", "netdev"), ("xyzzy", "known collectors: cpu")])
    def test_an_unknown_name_is_an_error_with_the_nearest_one(self, name: str, hint: str) -> None:
        """A typo is told before anything starts."""
        with pytest.raises(ConfigError, match=f"collector.{name}") as caught:
            build_collectors(Paths(), {name: True})
        assert hint in caught.value.hint


class TestFilesystem:
    def test_only_local_mounts_are_asked(self, host: Path) -> None:
        """No statvfs on a network mount, whose server may never answer."""
        space = Space()
        reading = FilesystemCollector(paths_of(host), space).read()
        assert space.asked == ["/", "/boot", "/srv/big data", "/tmp"]
        assert reading["node_filesystem_readonly", "/boot"] == 1.0
        assert reading["node_filesystem_avail_bytes", "/"] == 250 * 1024.0

    def test_a_mount_that_cannot_be_asked_is_left_out(self, host: Path) -> None:
        """The others still count."""
        reading = FilesystemCollector(paths_of(host), Space("/boot")).read()
        assert {point for _, point in reading} == {"/", "/srv/big data", "/tmp"}

    def test_mounts_are_asked_below_rootfs(self, host: Path) -> None:
        """Where the host's root is mounted in a container."""
        space = Space()
        FilesystemCollector(Paths(str(host / "proc"), str(host / "sys"), "/host/"), space).read()
        assert space.asked == ["/host/", "/host/boot", "/host/srv/big data", "/host/tmp"]

    def test_without_inits_table_the_containers_own_serves(self, host: Path) -> None:
        """Its mounts below rootfs are the host's; what is not below it is the container's."""
        (host / "proc/1/mounts").unlink()
        (host / "proc/self").mkdir()
        (host / "proc/self/mounts").write_text(
            "/dev/sda1 / ext4 rw 0 0\n/dev/sda1 /host ext4 ro 0 0\n/dev/sdb1 /host/data xfs rw 0 0\n"
            "/dev/sdb1 /host/mnt/x xfs rw 0 0\n/dev/sdb1 /hostile xfs rw 0 0\n"
        )
        inside = FilesystemCollector(Paths(str(host / "proc"), str(host / "sys"), "/host"), Space()).read()
        assert {point for _, point in inside} == {"/", "/data"}
        assert inside["node_filesystem_readonly", "/"] == 1.0
        outside = FilesystemCollector(paths_of(host), Space()).read()
        assert {point for _, point in outside} == {"/", "/host", "/host/data", "/host/mnt/x", "/hostile"}

    def test_a_remount_is_seen_at_the_next_read(self, host: Path) -> None:
        """A file system that the kernel makes read-only after an error counts at once."""
        collector = FilesystemCollector(paths_of(host), Space())
        assert collector.read()["node_filesystem_readonly", "/"] == 0.0
        table = host / "proc/1/mounts"
        with table.open("r+b") as inside:
            content = inside.read().replace(b"/ ext4 rw", b"/ ext4 ro")
            inside.seek(0)
            inside.write(content)
        assert collector.read()["node_filesystem_readonly", "/"] == 1.0

    def test_a_host_with_as_many_disks_and_mounts_as_are_read_has_all_their_features(
        self, host: Path
    ) -> None:
        """Each has several series, and there is a bound on all of them."""
        disks = (f" 259 {at} nvme{at}n1 {at} 0 8 1 1 0 8 1 0 1 1 0 0 0 0 0 0\n" for at in range(MAX_DEVICES))
        (host / "proc/diskstats").write_text("".join(disks))
        mounts = (f"/dev/x{at} /data/{at} ext4 rw 0 0\n" for at in range(MAX_MOUNTS))
        (host / "proc/1/mounts").write_text("".join(mounts))
        paths = paths_of(host)
        sampler = Sampler([DiskstatsCollector(paths), FilesystemCollector(paths, Space())], CATALOGUE, 60.0)
        for at in range(4):
            sample = sampler.sample(15.0 * at)
        assert [status.error for status in sample.collectors.values()] == ["", ""]
        known = zip(CATALOGUE, sample.values, strict=True)
        wanted = [value for feature, value in known if feature.group in ("disk", "filesystem")]
        assert len(wanted) > 5
        assert np.isfinite(wanted).all()

    def test_too_many_mounts_are_an_error_not_a_partial_answer(self, host: Path) -> None:
        """The tick stays short."""
        rows = "".join(f"/dev/x{at} /data/{at} ext4 rw 0 0\n" for at in range(MAX_MOUNTS + 1))
        (host / "proc/1/mounts").write_text(rows)
        with pytest.raises(ValueError, match=str(MAX_MOUNTS)):
            FilesystemCollector(paths_of(host), Space()).read()


class TestPartialHosts:
    def test_a_kernel_without_psi_says_so(self, host: Path) -> None:
        """Missing, with the reason."""
        shutil.rmtree(host / "proc/pressure")
        with pytest.raises(CollectorMissing, match="PSI"):
            PressureCollector(paths_of(host)).read()

    def test_one_absent_file_takes_only_its_own_numbers(self, host: Path) -> None:
        """PSI of one resource, TCP's extended table."""
        (host / "proc/pressure/io").unlink()
        assert len(PressureCollector(paths_of(host)).read()) == 3
        (host / "proc/net/netstat").unlink()
        assert len(NetstatCollector(paths_of(host)).read()) == 3

    def test_thermal_zones_come_and_go(self, host: Path) -> None:
        """A zone that vanished or answers nonsense is left out, a new one is read."""
        collector = ThermalCollector(paths_of(host))
        assert collector.read() == {
            ("node_thermal_zone_temp", "0"): 46.5,
            ("node_thermal_zone_temp", "1"): 61.0,
        }
        shutil.rmtree(host / "sys/class/thermal/thermal_zone1")
        (host / "sys/class/thermal/thermal_zone0/temp").write_text("N/A\n")
        (host / "sys/class/thermal/thermal_zone7").mkdir()
        (host / "sys/class/thermal/thermal_zone7/temp").write_text("30000\n")
        assert collector.read() == {("node_thermal_zone_temp", "7"): 30.0}
        shutil.rmtree(host / "sys/class/thermal/thermal_zone0")
        shutil.rmtree(host / "sys/class/thermal/thermal_zone7")
        with pytest.raises(CollectorMissing, match="virtual"):
            collector.read()
        collector.close()

    def test_the_real_clock_answers(self) -> None:
        """adjtimex with modes 0 needs no privilege; an unsynchronised clock says 0."""
        reading = TimexCollector(Paths()).read()
        assert abs(reading["node_timex_offset_seconds", ""]) < 10.0


def test_a_device_filter_remembers_a_bounded_number_of_names() -> None:
    """Container interfaces with ever new names do not grow it."""
    devices = DeviceFilter("veth.*")
    for at in range(2 * MAX_NAMES + 1):
        assert devices.wanted(b"veth%d" % at) == ""
    assert devices.wanted(b"eth0") == "eth0"
    assert len(devices._decided) <= MAX_NAMES
