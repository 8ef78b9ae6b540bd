"""Hosts that change under the agent or hide things from it: devices come and go, containers see half."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from agent_fakes import make_snapshot
from node_anomaly_agent.collectors import COLLECTORS, Collector, CollectorMissing, Paths, build_collectors
from node_anomaly_agent.collectors.filesystem import FilesystemCollector, parse_mounts
from node_anomaly_agent.collectors.hwmon import LOOK_EVERY, HwmonCollector
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import TEXT
from node_anomaly_agent.sampler import Sampler
from node_anomaly_core.bundle import Bundle, starter_bundle, verify_bundle
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.scoring import NodeScorer

INTERVAL_S = 15.0


class Host:
    """The invented machine, sampled every 15 s while a test changes its files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths(str(root / "proc"), str(root / "sys"), "/")
        collectors: list[Collector] = [c for c in build_collectors(self.paths) if c.name != "filesystem"]
        collectors.append(FilesystemCollector(self.paths, self.half_full))
        self.asked: set[str] = set()
        self.sampler = Sampler(collectors, CATALOGUE, 4 * INTERVAL_S)
        self.now = 0.0

    def half_full(self, path: str) -> os.statvfs_result:
        self.asked.add(path)
        free = 100 if "full" in path else 500
        return os.statvfs_result((4096, 4096, 1000, free, free, 100, 90, 90, 0, 255))

    def tick(self) -> dict[str, float]:
        self.now += INTERVAL_S
        values = self.sampler.sample(self.now).values.tolist()
        return dict(zip((f.name for f in CATALOGUE), values, strict=True))

    def change(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def add(self, name: str, line: str) -> None:
        with (self.root / name).open("a") as file:
            file.write(line + "\n")


@pytest.fixture
def host(tmp_path: Path, fixtures: Path) -> Host:
    return Host(Path(shutil.copytree(fixtures / "host", tmp_path / "host")))


def disk(name: str, operations: int, busy_ms: int) -> str:
    return f"8 64 {name} {operations} 0 {operations * 8} 0 0 0 0 0 0 {busy_ms} {busy_ms}"


class TestHotPlug:
    def test_a_disk_that_is_plugged_in_counts_from_its_second_tick(self, host: Host) -> None:
        """Its counters so far are no rate; when it is pulled, the sums go back and nothing is negative."""
        assert math.isnan(host.tick()["disk_busy_ratio"])
        assert host.tick()["disk_busy_ratio"] == 0.0
        host.add("proc/diskstats", disk("sdb", 9_000_000, 500_000))
        assert host.tick()["disk_operations_per_second"] == 0.0
        host.change("proc/diskstats", disk("sdb", 9_000_000, 500_000), disk("sdb", 9_000_150, 512_000))
        values = host.tick()
        assert values["disk_busy_ratio"] == pytest.approx(0.8)
        assert values["disk_operations_per_second"] == pytest.approx(10.0)
        host.change("proc/diskstats", disk("sdb", 9_000_150, 512_000) + "\n", "")
        seen = [host.tick()["disk_busy_ratio"] for _ in range(6)]
        assert min(seen) >= 0.0
        assert seen[-1] == 0.0
        host.add("proc/diskstats", disk("sdb", 1, 1))
        assert [host.tick()["disk_operations_per_second"] for _ in range(3)] == [0.0, 0.0, 0.0]

    def test_an_interface_that_comes_counts_and_one_of_a_container_does_not(self, host: Host) -> None:
        """A thousand containers come and go without a trace."""
        host.tick()
        before = host.tick()["network_receive_bytes_per_second"]
        template = "{}: {} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
        for at in range(50):
            host.add("proc/net/dev", template.format(f"veth{at:x}", 10**12 + at))
        host.add("proc/net/dev", template.format("eth7", 10**12))
        assert host.tick()["network_receive_bytes_per_second"] == before == 0.0
        host.change("proc/net/dev", f"eth7: {10**12} ", f"eth7: {10**12 + 15_000} ")
        assert host.tick()["network_receive_bytes_per_second"] == pytest.approx(1000.0)

    def test_a_cpu_that_goes_offline_changes_the_load_for_each(self, host: Host) -> None:
        """The shares of CPU time stay shares."""
        host.tick()
        assert host.tick()["load1_per_cpu_ratio"] == 1.25 / 4
        text = (host.root / "proc/stat").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("cpu3")]
        host.change("proc/stat", line + "\n", "")
        host.change("proc/stat", "cpu  401234 ", "cpu  401734 ")
        values = host.tick()
        assert values["load1_per_cpu_ratio"] == 1.25 / 3
        assert values["cpu_user_ratio"] == 1.0

    def test_a_disk_that_is_mounted_may_be_the_fullest(self, host: Host) -> None:
        """And is not, once it is gone."""
        assert host.tick()["filesystem_fullest_ratio"] == 0.5
        host.add("proc/1/mounts", "/dev/sdb1 /srv/full ext4 rw 0 0")
        assert host.tick()["filesystem_fullest_ratio"] == pytest.approx(0.9)
        host.change("proc/1/mounts", "/dev/sdb1 /srv/full ext4 rw 0 0\n", "")
        assert host.tick()["filesystem_fullest_ratio"] == 0.5

    def test_a_sensor_that_appears_is_found_and_one_that_sleeps_is_left_out(self, host: Host) -> None:
        """Folders are looked at every few ticks; a sensor's file is read in each."""
        folder = host.root / "sys/class/hwmon"
        collector = HwmonCollector(host.paths)
        assert collector.read() == {
            ("node_hwmon_temp_celsius", "hwmon0/temp1"): 58.0,
            ("node_hwmon_temp_celsius", "hwmon0/temp2"): 64.5,
            ("node_hwmon_temp_celsius", "hwmon1/temp1"): 41.0,
        }
        (folder / "hwmon7").mkdir()
        (folder / "hwmon7/temp1_input").write_text("-5000\n")
        (folder / "hwmon0/temp1_input").write_text("")
        shutil.rmtree(folder / "hwmon1")
        assert ("node_hwmon_temp_celsius", "hwmon0/temp1") not in collector.read()
        for _ in range(LOOK_EVERY):
            reading = collector.read()
        assert reading == {
            ("node_hwmon_temp_celsius", "hwmon0/temp2"): 64.5,
            ("node_hwmon_temp_celsius", "hwmon7/temp1"): -5.0,
        }
        for chip in ("hwmon0", "hwmon7"):
            shutil.rmtree(folder / chip)

        def until_it_looks_again() -> None:
            while True:
                collector.read()

        with pytest.raises(CollectorMissing, match="no temperature sensor"):
            until_it_looks_again()
        collector.close()


class TestContainers:
    def test_where_init_cannot_be_looked_at_the_containers_own_files_serve(self, host: Host) -> None:
        """hidepid, another user's init, or none at all: nothing fails but what is really not there."""
        shutil.rmtree(host.root / "proc/1")
        (host.root / "proc/1").symlink_to("1")  # every look at it is an error
        assert host.paths.net("dev") == f"{host.root}/proc/net/dev"
        with pytest.raises(CollectorMissing, match="self/mounts"):
            FilesystemCollector(host.paths, host.half_full).read()
        (host.root / "proc/self").mkdir()
        own = "overlay / overlay rw 0 0\n/dev/vda1 /data ext4 rw 0 0\n"
        (host.root / "proc/self/mounts").write_text(own)
        fresh = Host(host.root)
        values = fresh.tick()
        assert fresh.asked == {"/data"}
        assert values["filesystem_fullest_ratio"] == 0.5
        assert values["memory_available_ratio"] == 0.75

    def test_an_empty_procfs_and_sysfs_leave_everything_missing(self, tmp_path: Path) -> None:
        """A container without any mount of its host: an agent that knows nothing, not one that fails."""
        collectors = [c for c in build_collectors(Paths(str(tmp_path), str(tmp_path))) if c.name != "timex"]
        sample = Sampler(collectors, CATALOGUE, 60.0).sample(0.0)
        known = {f.name for f, v in zip(CATALOGUE, sample.values.tolist(), strict=True) if not math.isnan(v)}
        assert known == set()
        assert all(status.missing for status in sample.collectors.values())
        assert set(sample.collectors) == set(COLLECTORS) - {"timex"}

    @pytest.mark.parametrize(
        "table",
        [
            b"cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n",
            b"tmpfs /sys/fs/cgroup tmpfs ro 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
            b"cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\n",
        ],
        ids=["v2", "v1", "hybrid"],
    )
    def test_control_groups_are_no_file_systems_of_the_host(self, table: bytes) -> None:
        """Of either version, nor is the read-only tmpfs that holds those of version 1."""
        assert [mount.point for mount in parse_mounts(table + b"/dev/vda1 / ext4 rw 0 0\n")] == ["/"]


@pytest.fixture(scope="module")
def starter() -> Bundle:
    return verify_bundle(starter_bundle())


class TestStates:
    def test_the_metric_counts_every_state(self, starter: Bundle) -> None:
        """Never seen, seen before but not now, never moved, moves."""
        scorer = NodeScorer(starter, INTERVAL_S)
        width = len(scorer.features)
        rows = np.random.default_rng(3).normal(10.0, 1.0, (30, width))
        rows[:, 0] = np.nan
        rows[:, 1:4] = 0.25
        rows[-1, 4:6] = np.nan
        for at, row in enumerate(rows):
            score = scorer.step(1.7e9 + INTERVAL_S * at, row)
        text = expose(make_snapshot(score=score, bundle=None), "1", TEXT)
        lines = [line for line in text.splitlines() if line.startswith("anomaly_agent_features{")]
        assert lines == [
            f'anomaly_agent_features{{state="active"}} {width - 6:.1f}',
            'anomaly_agent_features{state="constant"} 3.0',
            'anomaly_agent_features{state="missing"} 1.0',
            'anomaly_agent_features{state="imputed"} 2.0',
        ]

    @pytest.mark.parametrize(
        ("name", "value"), [("network_errors_per_second", 50.0), ("tcp_listen_overflows_per_second", 40.0)]
    )
    def test_the_first_move_of_an_always_flat_metric_scores(
        self, starter: Bundle, name: str, value: float
    ) -> None:
        """With the bundle of a fresh install: the quietest hour is louder, and the reason is named first."""
        scorer = NodeScorer(starter, INTERVAL_S)
        features = starter.manifest.features
        at = scorer.features.index(name)
        floor = np.array([feature.floor for feature in features])
        noise = np.random.default_rng(1).normal(20.0, 1.0, (484, len(features)))
        rows = floor * noise
        rows[:480, at] = 0.0
        rows[480:, at] = value
        scores = [scorer.step(1.7e9 + INTERVAL_S * tick, row) for tick, row in enumerate(rows)]
        assert scores[479].states[at] == "constant"
        assert scores[480].states[at] == "active"
        quiet = np.array([score.score for score in scores[240:480]])
        moved = scores[480:]
        assert np.mean([score.score for score in moved]) > np.quantile(quiet, 0.99)
        assert max(score.score for score in moved) > 1.5 * np.median(quiet)
        for score in moved:
            assert int(np.argmax(score.contributions)) == at
            assert score.contributions[at] > 1 / 3
