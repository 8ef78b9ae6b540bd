"""One agent keeps its state in a directory: a second one would overwrite what the first has learnt."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from node_anomaly_agent.state import StateError

LOCK_FILE = "agent.lock"

_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class StateLock:
    """flock(2) on a file beside the state, held until it is released or the process ends, however it ends.

    Any thread, one at a time.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def take(self) -> None:
        """Hold the lock; nothing happens where it is held already.

        Raises StateError where another process holds it. A file system without locks, or a directory that is
        not there or refuses, locks nobody out: what is wrong there, the write itself says.
        """
        if self._descriptor is not None:
            return
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._directory / LOCK_FILE, flags, 0o600)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _TAKEN:
                raise StateError(
                    f"another agent keeps its state in {self._directory}",
                    "stop it, or give this one a directory of its own with --state.directory",
                ) from error
            return
        self._descriptor = descriptor

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.release()
