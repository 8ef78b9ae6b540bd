"""Kernel files that are opened once and read again every tick."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

from node_anomaly_core.errors import SourceError

MAX_BYTES = 4 << 20
"""No file that is read here is this large; one that claims to be is refused."""

WHOLE = 64 << 10
"""Read size for a file that the kernel prints in one piece (single_open in its source), as /proc/stat."""
SHORT = 256
"""The same for a file of one line, such as a sysctl: the kernel makes room for as much as is asked for."""

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP})
MAX_DIGITS = 20
"""Of a 64-bit number."""
_WIDTH = MAX_DIGITS + 12
"""Of a number and the blanks before it."""

Key = TypeVar("Key")


class CollectorMissing(SourceError):  # noqa: N818 -- a state of the host, not a mistake
    """The host has no such thing (no PSI, no swap device, no conntrack): its features are missing."""


class HeldFile:
    """A file held open and read from its start by `read`; opened at the first read.

    If the descriptor has gone stale (the device behind it vanished and came back) it is opened again once.

    `piece` is WHOLE or SHORT for a file that comes in one piece: one read that returns less has then seen all
    of it. Other files (a sequence of records, such as the mount table) are read until nothing comes.
    """

    def __init__(self, path: str, piece: int = 0) -> None:
        self.path = path
        self._piece = piece
        self._fd = -1

    def read(self) -> bytes:
        """The whole content now.

        Raises:
            CollectorMissing: there is no such file, or the kernel says it does not support it.
            OSError: it cannot be opened or read.
            ValueError: it is larger than MAX_BYTES.
        """
        if self._fd >= 0:
            try:
                return self._read()
            except OSError:
                self.close()
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            return self._read()
        except OSError as error:
            self.close()
            error.filename = self.path  # pread does not know it
            if error.errno in _ABSENT:
                raise CollectorMissing(f"{self.path}: {os.strerror(error.errno)}") from error
            raise

    def _read(self) -> bytes:
        part = os.pread(self._fd, self._piece or WHOLE, 0)
        if len(part) < self._piece:
            return part
        # A short read is no end of a sequence: the kernel hands out about a page of it at a time.
        parts: list[bytes] = []
        offset = 0
        while part:
            parts.append(part)
            offset += len(part)
            if offset > MAX_BYTES:
                raise ValueError(f"{self.path}: more than {MAX_BYTES} bytes")
            part = os.pread(self._fd, WHOLE, offset)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the descriptor; a later read opens the file again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class HeldFiles:
    """What every collector does with its files besides reading: close them."""

    def __init__(self, *paths: str, piece: int = 0) -> None:
        self._files = [HeldFile(path, piece) for path in paths]

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            file.close()


def decimal(token: bytes) -> float:
    """An unsigned decimal number as the kernel prints it; ValueError for anything else."""
    if not token.isdigit() or len(token) > MAX_DIGITS:
        raise ValueError(f"not a decimal number: {token[:32]!r}")
    return float(token)


def numbers(tokens: Sequence[bytes]) -> bool:
    """Whether each of them is an unsigned decimal number as the kernel prints it."""
    return b"".join(tokens).isdigit() and max(map(len, tokens)) <= MAX_DIGITS


def numbers_after(data: bytes, starts: Iterable[tuple[bytes, Key]]) -> dict[Key, float]:
    r"""Key -> the unsigned number that follows its start of a line; a line without one is left out.

    A start begins with the line feed before it: `(b"\nctxt ", key)`.
    """
    text = b"\n" + data
    found: dict[Key, float] = {}
    for start, key in starts:
        at = text.find(start)
        if at < 0:
            continue
        at += len(start)
        token = text[at : at + _WIDTH].split(None, 1)
        if token and token[0].isdigit() and len(token[0]) <= MAX_DIGITS:
            found[key] = float(token[0])
    return found
