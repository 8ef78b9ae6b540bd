"""The mount table, read again only when the kernel says that it has changed."""

from __future__ import annotations

import os
import select

from node_anomaly_agent.collectors.procfile import HeldFile


class MountTable(HeldFile):
    """A mount table under /proc. On a host of containers it has hundreds of lines, printed at every read.

    poll(2) tells whether anything was mounted, unmounted or remounted since it was asked last
    (proc_pid_mounts(5)). It does not tell of a file system that the kernel made read-only after an error:
    that is in what statvfs(3) answers.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._content = b""
        self._watch: select.poll | None = None

    def read(self) -> bytes:
        """The whole table as it is now; raises what HeldFile.read does."""
        if self._watch is not None and not self._watch.poll(0):
            return self._content
        self._content = super().read()
        # Only the kernel's own file tells of changes; a copy of one, which has a size, is read each time.
        if self._watch is None and os.fstat(self._fd).st_size == 0:
            self._watch = select.poll()
            self._watch.register(self._fd, select.POLLPRI)
        return self._content

    def look_again(self) -> None:
        """Read the table at the next call, whether or not the kernel says that it has changed."""
        self._watch = None

    def close(self) -> None:
        """Close the descriptor and forget the table."""
        super().close()
        self._watch = None
