"""Kernel files that are opened once and read again every tick."""

from __future__ import annotations

import errno
import os

from node_anomaly_core.errors import SourceError

MAX_BYTES = 4 << 20
"""No file that is read here is this large; one that claims to be is refused."""

_CHUNK = 64 << 10
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP})
MAX_DIGITS = 20
"""Of a 64-bit number."""


class CollectorMissing(SourceError):  # noqa: N818 -- a state of the host, not a mistake
    """The host has no such thing (no PSI, no swap device, no conntrack): its features are missing."""


class HeldFile:
    """A file held open and read from its start by `read`; opened at the first read.

    If the descriptor has gone stale (the device behind it vanished and came back) it is opened again once.
    """

    def __init__(self, path: str) -> None:
        self.path = path
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
            if error.errno in _ABSENT:
                raise CollectorMissing(f"{self.path}: {os.strerror(error.errno)}") from error
            raise

    def _read(self) -> bytes:
        # A short read is no end of file: seq_file hands out about a page at a time.
        parts: list[bytes] = []
        offset = 0
        while part := os.pread(self._fd, _CHUNK, offset):
            parts.append(part)
            offset += len(part)
            if offset > MAX_BYTES:
                raise ValueError(f"{self.path}: more than {MAX_BYTES} bytes")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the descriptor; a later read opens the file again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class HeldFiles:
    """What every collector does with its files besides reading: close them."""

    def __init__(self, *paths: str) -> None:
        self._files = [HeldFile(path) for path in paths]

    def close(self) -> None:
        """Close every file."""
        for file in self._files:
            file.close()


def decimal(token: bytes) -> float:
    """An unsigned decimal number as the kernel prints it; ValueError for anything else."""
    if not token.isdigit() or len(token) > MAX_DIGITS:
        raise ValueError(f"not a decimal number: {token[:32]!r}")
    return float(token)


def number_after(data: bytes, prefix: bytes) -> float | None:
    """The unsigned number that follows `prefix` at the start of a line; None if there is none."""
    at = 0 if data.startswith(prefix) else data.find(b"\n" + prefix) + 1
    if not at and not data.startswith(prefix):
        return None
    start = at + len(prefix)
    tokens = data[start : start + MAX_DIGITS + 12].split(None, 1)
    try:
        return decimal(tokens[0]) if tokens else None
    except ValueError:
        return None
