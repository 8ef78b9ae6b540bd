"""Where the large arrays of a run lie: in memory, or on disk as far as memory does not hold them.

What members are fed is written once, tick by tick, and read in slices: the kernel may keep as much of it in
memory as there is room for. A file is gone with its array, and with the process however it ends.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.arrays import in_memory
from node_anomaly_trainer.config import TrainingConfig
from node_anomaly_trainer.memory import (
    ROOT,
    allowed_bytes,
    disk_bytes,
    needed_bytes,
    require_memory,
    tried,
)
from node_anomaly_trainer.progress import Note

GIB = 2.0**30
RESERVE = 1.05
"""Of the room on disk beyond what is needed; others write there, too."""


class Workspace:
    """In memory until `admit` hears of a history that is too large for that."""

    def __init__(
        self, config: TrainingConfig, note: Note, *, rival: bool = False, allowed: float | None = None
    ) -> None:
        """`rival` where a bundle in production will be replayed; `allowed` bytes instead of all there are."""
        self._config = config
        self._note = note
        self._judged = 1.0 - config.fit_fraction if rival else 0.0
        self._allowed = allowed
        self.on_disk = False

    def admit(self, nodes: int, ticks: int, features: int) -> None:
        """Decide where it will be done. Raises TrainingError where it can be done nowhere."""
        self.on_disk = False
        allowed = allowed_bytes() if self._allowed is None else self._allowed
        needed = needed_bytes(nodes, ticks, features, self._judged)
        if tried(needed, allowed):
            return
        scratch = self._config.scratch
        disk = disk_bytes(nodes, ticks, features, self._judged)
        if not self._config.check_memory:
            if not scratch:
                return
            allowed = math.inf
        try:
            require_memory(nodes, ticks, features, allowed, self._judged, on_disk=bool(scratch))
        except TrainingError as error:
            if scratch:
                raise
            raise TrainingError(
                error.message,
                f"{error.hint}; or set training.scratch to a directory on a disk with {disk / GIB:.0f} GiB "
                "free, where most of it may lie",
            ) from None
        require_scratch(Path(scratch), RESERVE * disk)
        self.on_disk = True
        left = needed_bytes(nodes, ticks, features, self._judged, on_disk=True)
        self._note(
            f"memory: about {needed / GIB:.1f} GiB are more than there are, so {disk / GIB:.1f} go to "
            f"{scratch} and {left / GIB:.1f} stay; that is slower"
        )

    def empty(self, shape: tuple[int, ...], kind: DTypeLike) -> NDArray[Any]:
        """An array in memory, or one whose content is in a file. Raises TrainingError without room there."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
        if not self.on_disk or size == 0:
            return in_memory(shape, kind)
        scratch = self._config.scratch
        try:
            with tempfile.TemporaryFile(dir=scratch, prefix="anomaly-") as file:
                # A hole that finds no room when it is written to ends the process (SIGBUS).
                os.posix_fallocate(file.fileno(), 0, size)
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise TrainingError(
                f"training.scratch: {scratch}: {error.strerror or error}, {size / GIB:.1f} GiB were missing",
                "make room there, or name another directory",
            ) from error
        return np.frombuffer(mapped, dtype=kind).reshape(shape)


def require_scratch(directory: Path, needed: float, root: Path = ROOT) -> None:
    """Raises TrainingError unless so many bytes fit there, on something other than memory."""
    fix = "name a directory on a disk that this process may write to"
    try:
        with tempfile.TemporaryFile(dir=directory, prefix="anomaly-") as file:
            free = shutil.disk_usage(directory).free
            device = os.fstat(file.fileno()).st_dev
    except OSError as error:
        raise TrainingError(
            f"training.scratch: {directory}: {error.strerror or os.strerror(errno.EIO)}", fix
        ) from error
    if _is_memory(device, root):
        raise TrainingError(f"training.scratch: {directory} is memory itself (tmpfs)", fix)
    if free < needed:
        raise TrainingError(
            f"training.scratch: {directory} has {free / GIB:.1f} GiB free, {needed / GIB:.1f} are needed",
            "make room there, or read a shorter range or some of the nodes by matchers",
        )


def _is_memory(device: int, root: Path) -> bool:
    """By /proc/self/mountinfo, see proc_pid_mountinfo(5); not where it cannot be read."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split(" ")[2:3] == [wanted]:
            return after.split(" ")[0] in ("tmpfs", "ramfs")
    return False
