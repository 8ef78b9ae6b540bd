"""What a source of log lines is: batches of complete lines within a budget, and a position that is saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

MAX_LINE_BYTES = 16_384
"""Of a longer line the beginning is looked at; all of it counts as one line and as its bytes."""

UNKNOWN_SEVERITY = 255


@dataclass(frozen=True, slots=True)
class Batch:
    """Complete lines that one stream wrote, in order.

    Attributes:
        group: the configured group of the stream, "" for none.
        lines: how many lines, each counted once over all batches and restarts.
        size: their bytes as the stream holds them, line ends included.
        data: the messages, each of at most MAX_LINE_BYTES and ended by one newline, without what a container
            runtime or a journal wraps around them; empty for lines that were only counted.
        severities: one byte a line of `data`, a syslog priority 0 to 7 or UNKNOWN_SEVERITY; None where the
            record has none and the text must tell.
        estimated: `lines` was reckoned from bytes, because the stream wrote more than may be read.
        late: the lines were written before this start of the agent, while nobody read: they count in totals
            that go on over restarts, and in no rate. Their data is empty.
    """

    group: str
    lines: int
    size: int
    data: bytes
    severities: bytes | None = None
    estimated: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one read may take: stop after whichever comes first.

    Attributes:
        deadline: time.monotonic() at which no further batch may be begun.
        size: bytes whose lines are looked at; beyond it they are only counted.
    """

    deadline: float
    size: int


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How a source does.

    `error` is "" or one line that says what, where and what to do next (which group to join); `missing` tells
    a host that has no such logs from one that refuses them. `streams` are open files, or 1.
    """

    success: bool
    error: str = ""
    missing: bool = False
    streams: int = 0


class LogSource(Protocol):
    """One kind of log. All methods belong to the loop's thread."""

    @property
    def name(self) -> str:
        """`files`, `journald` or `containers`."""

    def read(self, budget: Budget) -> Iterator[Batch]:
        """What was written since the last read. Never raises for anything the host does; see `status`."""

    def status(self) -> SourceStatus:
        """How the latest read went."""

    def state(self) -> dict[str, object]:
        """Positions after the last batch that was taken, JSON-able and bounded in size."""

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from saved positions; False, and nothing changes, if they cannot be used."""

    def close(self) -> None:
        """Let go of every file."""
