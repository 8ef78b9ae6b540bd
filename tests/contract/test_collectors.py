"""The conformance suite: what every collector promises, run over each row of COLLECTORS.

The host is tests/fixtures/host, a copy in a temporary folder where a test changes it.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from node_anomaly_agent.collectors import COLLECTORS, Collector, CollectorMissing, Paths
from node_anomaly_agent.collectors.filesystem import FilesystemCollector
from node_anomaly_agent.collectors.timex import STA_NANO, TimexCollector
from node_anomaly_core.catalogue import METRIC_LABEL

NAMES = sorted(COLLECTORS)
WITHOUT_FILES = {"timex"}
MAY_BE_EMPTY = {"diskstats", "filesystem", "hwmon", "thermal"}
"""A host without a disk, a process that sees no mount, sensors that are switched off."""


def some_space(path: str) -> os.statvfs_result:
    """A file system of 1000 blocks of 4 KiB, 250 of them available."""
    return os.statvfs_result((4096, 4096, 1000, 300, 250, 5000, 4000, 4000, 0, 255))


def some_time() -> bytes:
    """A struct timex that says 1.5 ms in nanoseconds."""
    return struct.pack("@illlli", 0, 1_500_000, 0, 0, 0, STA_NANO)


def build(name: str, root: Path) -> Collector:
    """The collector over a fixture tree; the two that call the kernel get an invented kernel."""
    paths = Paths(str(root / "proc"), str(root / "sys"), "/")
    if name == "filesystem":
        return FilesystemCollector(paths, some_space)
    if name == "timex":
        return TimexCollector(paths, some_time)
    return COLLECTORS[name].factory(paths)


@pytest.fixture
def host(tmp_path: Path, fixtures: Path) -> Path:
    """A copy of the invented machine that a test may break."""
    return Path(shutil.copytree(fixtures / "host", tmp_path / "host"))


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("name", NAMES)
class TestEveryCollector:
    def test_is_listed_under_its_own_name(self, name: str, host: Path) -> None:
        """The key in COLLECTORS is the collector's name, and its help says what it reads."""
        assert build(name, host).name == name
        assert COLLECTORS[name].help

    def test_reads_the_invented_machine(self, name: str, host: Path) -> None:
        """It yields something, and every value is a finite number."""
        reading = build(name, host).read()
        assert reading
        assert all(isinstance(value, float) and math.isfinite(value) for value in reading.values())

    def test_yields_only_metrics_that_features_use(self, name: str, host: Path) -> None:
        """Every metric is in METRIC_LABEL, and has a label value exactly if it should."""
        for metric, label in build(name, host).read():
            assert metric in METRIC_LABEL
            assert bool(label) == bool(METRIC_LABEL[metric])

    def test_reading_twice_gives_the_same(self, name: str, host: Path) -> None:
        """On a host where nothing happens two reads are equal."""
        collector = build(name, host)
        assert collector.read() == collector.read()

    def test_opens_nothing_before_the_first_read(self, name: str, host: Path) -> None:
        """Building a collector is free."""
        before = open_files()
        build(name, host)
        assert open_files() == before

    def test_close_lets_go_of_every_file(self, name: str, host: Path) -> None:
        """After close no descriptor is left, and a later read works again."""
        before = open_files()
        collector = build(name, host)
        first = collector.read()
        collector.close()
        assert open_files() == before
        assert collector.read() == first
        collector.close()

    def test_an_empty_host_is_a_missing_thing(self, name: str, tmp_path: Path) -> None:
        """Without its files a collector says that the host lacks them, and nothing worse."""
        collector = build(name, tmp_path)
        if name in WITHOUT_FILES:
            assert collector.read()
        else:
            with pytest.raises(CollectorMissing, match=str(tmp_path)):
                collector.read()
        collector.close()

    def test_truncated_and_emptied_files_are_refused_or_skipped(self, name: str, host: Path) -> None:
        """Half a file or none of it yields fewer readings or a ValueError, never another exception."""
        files = [path for path in host.rglob("*") if path.is_file()]
        whole = {path: path.read_bytes() for path in files}
        full = build(name, host).read()
        for share in (0.0, 0.3, 0.7, 0.95):
            for path, content in whole.items():
                path.write_bytes(content[: int(len(content) * share)])
            collector = build(name, host)
            with suppress(ValueError):
                assert collector.read().keys() <= full.keys()
            collector.close()

    def test_emptied_files_are_no_success_where_a_kernel_always_has_lines(
        self, name: str, host: Path
    ) -> None:
        """Files of no bytes are refused, or yield nothing where a healthy host may have nothing."""
        for path in [path for path in host.rglob("*") if path.is_file()]:
            path.write_bytes(b"")
        collector = build(name, host)
        if name in MAY_BE_EMPTY:
            assert collector.read() == {}
        elif name not in WITHOUT_FILES:
            with pytest.raises(ValueError, match="no"):
                collector.read()
        collector.close()

    def test_a_directory_instead_of_a_file_is_an_error_it_reports(self, name: str, host: Path) -> None:
        """What cannot be read raises OSError, CollectorMissing or leaves its readings out."""
        for path in [path for path in host.rglob("*") if path.is_file()]:
            path.unlink()
            path.mkdir()
        collector = build(name, host)
        with suppress(OSError, CollectorMissing):
            collector.read()
        collector.close()
