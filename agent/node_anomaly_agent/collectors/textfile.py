"""A textfile `.prom` as a collector: written whole by a job of the user's, read when it has changed.

The format is that of node_exporter's textfile collector, so one file can serve both.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence

from node_anomaly_agent.collectors.prom_text import TextReader, Want
from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Reading

FUTURE_S = 86400.0
"""A clock that is set moves what was written a moment ago; what is further off would be fresh for ever."""

MAX_BYTES = 1 << 20

STALE_TICKS = 20
"""A file that has not been written for this many intervals is stale, unless its feature says otherwise."""


class TextfileCollector:
    """Reads one file; its name is the path, so that its status says which file it is about."""

    def __init__(
        self,
        path: str,
        wants: Mapping[str, Sequence[Want]],
        max_age_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = path
        self._reader = TextReader(wants)
        self._max_age_s = max_age_s
        self._clock = clock
        self._seen: tuple[int, int, int] = (-1, -1, -1)
        self._reading: Reading = {}

    def read(self) -> Reading:
        """The wanted series of the file as it is now.

        Raises:
            SourceError: there is no such file, or it is stale, too large, no regular file, or not in the
                text format.
            OSError: it cannot be read.
        """
        try:
            # Not blocking: a pipe under this name must not hold up the tick.
            descriptor = os.open(self.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            # A failure: somebody named this file, so its absence is no matter of what kind of host this is.
            raise SourceError(f"{self.name}: no such file", "see to the job that writes it") from error
        try:
            return dict(self._read(descriptor))
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> Reading:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{self.name}: not a regular file")
        age = self._clock() - status.st_mtime
        if age > self._max_age_s or age < -FUTURE_S:
            when = f"{age:.0f} s ago" if age > 0 else f"{-age:.0f} s from now by this host's clock"
            raise SourceError(
                f"{self.name}: stale, written {when} and {self._max_age_s:.0f} s are allowed",
                "see to the job that writes it, or set max_age_seconds",
            )
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            if status.st_size > MAX_BYTES:
                raise SourceError(f"{self.name}: more than {MAX_BYTES >> 20} MiB")
            data = os.read(descriptor, MAX_BYTES)
            try:
                self._reading = self._reader.read(data)
            except ValueError as error:
                raise SourceError(
                    f"{self.name}: {error}", "write it under another name, then rename it"
                ) from error
            self._seen = seen
        return self._reading

    def close(self) -> None:
        """Nothing is held open between two ticks."""
