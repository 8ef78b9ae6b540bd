"""Bytes to lines: how many there are, and the beginnings that are looked at. Pure."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from node_anomaly_agent.logs.source import MAX_LINE_BYTES

NEWLINE = b"\n"

_SMALL = 4096
_STRIDE = MAX_LINE_BYTES // 2


def count_newlines(data: bytes) -> int:
    """How many lines end in `data`. numpy compares 16 to 64 bytes at a time, bytes.count() one."""
    if len(data) < _SMALL:
        return data.count(NEWLINE)
    return int(np.count_nonzero(np.frombuffer(data, dtype=np.uint8) == NEWLINE[0]))


def clip_long(data: bytes) -> bytes:
    """The lines with what is longer than MAX_LINE_BYTES cut off. `data` ends with a newline, or is empty.

    Nearly always no line is long, and that is seen without splitting: a newline in every half of that size.
    """
    end = len(data)
    if end <= MAX_LINE_BYTES:
        return data
    for start in range(0, end, _STRIDE):
        if data.find(NEWLINE, start, start + _STRIDE) < 0:
            break
    else:
        return data
    return NEWLINE.join([line[:MAX_LINE_BYTES] for line in data.split(NEWLINE)])


class LineFormat(Protocol):
    """What is wrapped around the messages of one stream. `raw` is whole lines of the file."""

    def decode(self, raw: bytes, lines: int) -> tuple[int, bytes]:
        """How many messages end in these lines of the file, and what of each is looked at, one a line."""

    def count(self, raw: bytes, lines: int) -> int:
        """Only how many messages end."""

    def reset(self) -> None:
        """What comes next does not follow on what came before."""


class PlainText:
    """Lines as they stand in the file: nothing is wrapped around them."""

    def decode(self, raw: bytes, lines: int) -> tuple[int, bytes]:
        """All of them."""
        return lines, clip_long(raw)

    def count(self, raw: bytes, lines: int) -> int:
        """All of them."""
        return lines

    def reset(self) -> None:
        """Nothing is kept."""
