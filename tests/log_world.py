"""A log that is written, rotated and read as a test says, and what is counted of it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from node_anomaly_agent.logs.files import FileSource
from node_anomaly_agent.logs.follow import Limits
from node_anomaly_agent.logs.source import Batch, Budget

EVERY_LOOK = Limits(survey_s=0.0)


def read_all(source, *, size: int = 1 << 30, seconds: float = 30.0) -> list[Batch]:
    """One tick with that budget."""
    return list(source.read(Budget(time.monotonic() + seconds, size)))


class Reader:
    """A source, what it counted, and how it dies: what it counted and its positions are one JSON text."""

    def __init__(self, make: Callable[[], FileSource]) -> None:
        self._make = make
        self.source = make()
        self.lines = self.size = 0
        self.data = b""
        self.estimated = False
        self._saved = self.save()

    def tick(self, **budget) -> None:
        for batch in read_all(self.source, **budget):
            self.take(batch)

    def take(self, batch: Batch) -> None:
        self.lines += batch.lines
        self.size += batch.size
        self.data += batch.data
        self.estimated |= batch.estimated
        assert not batch.data or batch.data.count(b"\n") == batch.lines

    def take_some(self, batches: int) -> None:
        """Be stopped in the middle of a tick."""
        reading = self.source.read(Budget(time.monotonic() + 30, 1 << 30))
        for _, batch in zip(range(batches), reading, strict=False):
            self.take(batch)

    def save(self) -> str:
        return json.dumps({"lines": self.lines, "size": self.size, "source": self.source.state()})

    def die_and_restart(self, saved: str) -> None:
        """kill -9: only what was saved remains."""
        self.source.close()
        state = json.loads(saved)
        self.lines, self.size = state["lines"], state["size"]
        self.source = self._make()
        assert self.source.restore(state["source"])


class Log:
    """A file that is appended to, as a logging program does, and rotated as logrotate does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self.whole: list[bytes] = [b""]
        """Everything that was written, by inode; a truncated file goes on under its inode."""

    def write(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)
        self.whole[-1] += data

    def rename(self) -> None:
        if self.path.exists():
            self.generation += 1
            self.path.rename(f"{self.path}.{self.generation}")
            self.path.touch()
            self.whole.append(b"")

    def copytruncate(self) -> None:
        self.generation += 1
        Path(f"{self.path}.{self.generation}").write_bytes(self.path.read_bytes())
        os.truncate(self.path, 0)
        self.whole.append(b"")

    @property
    def complete(self) -> list[bytes]:
        """The lines that have ended."""
        return [line for text in self.whole for line in text.split(b"\n")[:-1]]
