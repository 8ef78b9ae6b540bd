"""The mount table is not read while nothing is mounted, and never stale when something is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node_anomaly_agent.collectors.filesystem import FilesystemCollector
from node_anomaly_agent.collectors.mount_table import MountTable
from node_anomaly_agent.collectors.paths import Paths

STORY = """
import os, subprocess, sys
from node_anomaly_agent.collectors import mount_table, procfile

reads = []
pread = os.pread
procfile.os.pread = lambda *given: reads.append(given) or pread(*given)
table = mount_table.MountTable("/proc/self/mounts")
point = sys.argv[1]

def line():
    before = len(reads)
    found = [row.split() for row in table.read().split(b"\\n") if point.encode() in row]
    return ([row[3].split(b",")[0].decode() for row in found], len(reads) > before)

def run(*command):
    subprocess.run(command, check=True)

print(line(), line(), line())
run("mount", "-t", "tmpfs", "none", point)
print(line(), line())
run("mount", "-o", "remount,ro", point)
print(line(), line())
run("umount", point)
print(line(), line())
table.close()
print(line(), line())
"""


def in_a_namespace() -> list[str]:
    """The command that lets another one mount; skips where this user may not."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if (
        not shutil.which("unshare")
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this user cannot have a mount namespace of its own")
    return command


def test_it_is_read_once_after_each_change_and_not_between(tmp_path: Path) -> None:
    """A mount, a remount and an unmount in a namespace of its own: (mode, whether it was read)."""
    command = [*in_a_namespace(), sys.executable, "-c", STORY, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "([], True) ([], False) ([], False)",
        "(['rw'], True) (['rw'], False)",
        "(['ro'], True) (['ro'], False)",
        "([], True) ([], False)",
        "([], True) ([], False)",
    ]


def test_a_copy_of_a_table_is_read_each_time(tmp_path: Path) -> None:
    """Only the kernel's own file tells of changes."""
    path = tmp_path / "mounts"
    path.write_text("a\n")
    table = MountTable(str(path))
    assert table.read() == b"a\n"
    path.write_text("b\n")
    assert table.read() == b"b\n"
    table.close()


def test_a_file_system_that_the_kernel_made_read_only_counts_though_no_mount_changed(tmp_path: Path) -> None:
    """After an I/O error statvfs says so before anybody remounts anything."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "mounts").write_text("/dev/sda1 / ext4 rw,errors=remount-ro 0 0\n")
    flags = [0]

    def statvfs(_: str) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 10, 5, 5, 10, 5, 5, flags[0], 255))

    collector = FilesystemCollector(Paths(str(tmp_path), str(tmp_path), "/"), statvfs)
    assert collector.read()["node_filesystem_readonly", "/"] == 0.0
    flags[0] = os.ST_RDONLY | os.ST_RELATIME
    assert collector.read()["node_filesystem_readonly", "/"] == 1.0
    collector.close()


def test_what_is_read_only_for_this_process_alone_is_not_read_only_on_the_host(tmp_path: Path) -> None:
    """A service with ProtectSystem=strict, and a pod that mounts the host read-only, see statvfs say so."""
    (tmp_path / "1").mkdir()
    table = tmp_path / "1" / "mounts"
    table.write_text("/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /srv ext4 ro 0 0\n")

    def statvfs(_: str) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 10, 5, 5, 10, 5, 5, os.ST_RDONLY, 255))

    collector = FilesystemCollector(Paths(str(tmp_path), str(tmp_path), "/"), statvfs)
    for _ in range(2):
        reading = collector.read()
        assert (reading["node_filesystem_readonly", "/"], reading["node_filesystem_readonly", "/srv"]) == (
            0,
            1,
        )
    table.write_text("/dev/sda1 / ext4 ro 0 0\n/dev/sdb1 /srv ext4 rw 0 0\n")
    reading = collector.read()
    assert (reading["node_filesystem_readonly", "/"], reading["node_filesystem_readonly", "/srv"]) == (1, 0)
    collector.close()


def test_a_table_is_read_anew_when_asked_although_nothing_was_mounted() -> None:
    table = MountTable("/proc/self/mounts")
    before = table.read()
    assert table.read() is before
    table.look_again()
    again = table.read()
    assert again == before
    assert again is not before
    assert table.read() is again
    table.close()
