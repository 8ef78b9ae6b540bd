"""Space, inodes and read-only state of local file systems: the mount table and statvfs(3).

Types and mount points are excluded as the catalogue's PromQL excludes them. Nothing remote is ever asked, nor
what is mounted below something remote: the way there does not return from a dead server, and a tick must.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from node_anomaly_agent.collectors.mount_table import MountTable
from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import CollectorMissing
from node_anomaly_core.catalogue import FILESYSTEM_EXCLUDE, MOUNT_EXCLUDE, REMOTE_FILESYSTEM
from node_anomaly_core.expressions import Reading

MAX_MOUNTS = 512
"""Mounts asked in one tick. With more, the collector reports an error rather than a partial answer."""

READ_AGAIN = 4
"""So many reads apart, a minute by default, the table is looked at anew where statvfs does not tell."""

_TYPES = re.compile(FILESYSTEM_EXCLUDE)
_POINTS = re.compile(MOUNT_EXCLUDE)
_REMOTE = re.compile(REMOTE_FILESYSTEM)
_ESCAPE = re.compile(rb"\\([0-7]{3})")

Statvfs = Callable[[str], os.statvfs_result]


@dataclass(frozen=True, slots=True)
class Mount:
    """One local file system as the mount table lists it."""

    point: str
    read_only: bool


def parse_mounts(data: bytes) -> tuple[Mount, ...]:
    """The local mounts of a mount table, the last one for each mount point; odd lines are skipped.

    So are mounts below a remote one.
    """
    found: dict[str, Mount] = {}
    remote: set[str] = set()
    for line in data.split(b"\n"):
        fields = line.split(b" ", 4)
        if len(fields) < 4:
            continue
        kind = fields[2].decode("utf-8", "replace")
        excluded, is_remote = _TYPES.fullmatch(kind), _REMOTE.fullmatch(kind)
        if excluded and not is_remote and not remote:
            continue
        point = os.fsdecode(_ESCAPE.sub(lambda m: bytes([int(m[1], 8) & 0xFF]), fields[1]))
        if is_remote:
            remote.add(point)
            found.pop(point, None)  # what it lies over is out of sight
        else:
            remote.discard(point)  # it lies over the other one
        if excluded:
            continue
        if "\0" in point or not point.startswith("/") or _POINTS.fullmatch(point):
            continue
        found[point] = Mount(point, b"ro" in fields[3].split(b","))
    # Not below a remote root: this process is there as well, and every local disk of such a host.
    ways = tuple(f"{point}/" for point in remote if point != "/")
    return tuple(mount for mount in found.values() if not mount.point.startswith(ways))


class FilesystemCollector:
    """Reads init's mount table (its own if it may not) and asks each mount below `rootfs`.

    In a mount namespace of its own (a hardened service, a pod) statvfs calls a mount read-only that is so for
    this process alone. What it says against a table just read is that; of such mounts only the table can tell
    when they become read-only for all, so it is read again now and then.
    """

    name = "filesystem"

    def __init__(self, paths: Paths, statvfs: Statvfs = os.statvfs) -> None:
        self._of_init = MountTable(paths.proc("1", "mounts"))
        self._own = MountTable(paths.proc("self", "mounts"))
        self._root = paths.rootfs.rstrip("/")
        self._statvfs = statvfs
        self._table = b""
        self._mounts: tuple[Mount, ...] = ()
        self._for_us_alone: set[str] = set()
        self._reads = 0

    def read(self) -> Reading:
        """Bytes, inodes and read-only state of each mount; a mount that cannot be asked is left out.

        Raises:
            CollectorMissing: there is no mount table.
            ValueError: more than MAX_MOUNTS local mounts.
        """
        self._reads += 1
        if self._for_us_alone and self._reads % READ_AGAIN == 0:
            self._of_init.look_again()
        try:
            table, is_own = self._of_init.read(), False
        except (OSError, CollectorMissing):
            table, is_own = self._own.read(), True
        changed = table is not self._table and table != self._table
        if changed:
            mounts = parse_mounts(table)
            self._mounts = self._seen_from_host(mounts) if is_own else mounts
            self._table = table
            self._for_us_alone = set()
        if len(self._mounts) > MAX_MOUNTS:
            raise ValueError(f"more than {MAX_MOUNTS} local mounts")
        reading: Reading = {}
        for mount in self._mounts:
            self._ask(mount, reading, changed)
        return reading

    def _ask(self, mount: Mount, reading: Reading, table_is_new: bool) -> None:
        try:
            found = self._statvfs(self._root + mount.point)
        except OSError:
            return
        unit = float(found.f_frsize)
        reading["node_filesystem_size_bytes", mount.point] = found.f_blocks * unit
        reading["node_filesystem_avail_bytes", mount.point] = found.f_bavail * unit
        reading["node_filesystem_files", mount.point] = float(found.f_files)
        reading["node_filesystem_files_free", mount.point] = float(found.f_ffree)
        flag = bool(found.f_flag & os.ST_RDONLY)
        if table_is_new and flag and not mount.read_only:
            self._for_us_alone.add(mount.point)
        read_only = mount.read_only or (flag and mount.point not in self._for_us_alone)
        reading["node_filesystem_readonly", mount.point] = float(read_only)

    def _seen_from_host(self, mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
        """A container's own table names the host's mounts below rootfs; they lose that prefix."""
        if not self._root:
            return mounts
        inside = [m for m in mounts if m.point == self._root or m.point.startswith(self._root + "/")]
        stripped = (Mount(m.point[len(self._root) :] or "/", m.read_only) for m in inside)
        return tuple(m for m in stripped if not _POINTS.fullmatch(m.point))

    def close(self) -> None:
        """Close both tables."""
        self._of_init.close()
        self._own.close()
