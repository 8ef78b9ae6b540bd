"""One file that is followed: what is new in it, whether it is still the same, and where reading stands."""

from __future__ import annotations

import errno
import os
import stat

from node_anomaly_agent.logs.lines import NEWLINE, LineFormat, count_newlines
from node_anomaly_agent.logs.marks import HEAD_BYTES, TAIL_BYTES, Mark, digest

CHUNK_BYTES = 64 << 10
"""One read: it fits the processor's cache, and its copies are small. Four times as much is no faster."""

MAX_PREFIX_BYTES = 64 << 10
"""Of a line that was held back over several reads this much of the beginning is read again once it ends."""

MAX_EXTENTS = 64
"""Pieces of data between the holes of a sparse file that are told apart; the rest is taken for data."""

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # a FIFO of that name must not block
_USUAL_LINE_BYTES = 100.0


class NotAFileError(OSError):
    """A directory, a device, a pipe: nothing to follow."""


def open_file(path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading. Raises OSError, NotAFileError among them."""
    descriptor = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFileError(errno.EINVAL, "not a regular file", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


class Tail:
    """A position in an open file, moved on by complete lines only.

    A line that has not ended is not counted and not kept: its bytes stay in the file, and once it ends its
    beginning is read again. So memory does not depend on what is written.

    Args:
        path: the name it was found under.
        descriptor: open for reading; the tail closes it.
        status: of the descriptor.
        line_format: what is wrapped around the lines.
        position: where to begin: the start of a line.
    """

    __slots__ = (
        "adrift", "descriptor", "device", "format", "group", "head", "hollow", "inode", "late_until",
        "line_bytes", "links", "modified", "path", "position", "quiet_since", "scanned", "seen", "size",
        "tail",
    )  # fmt: skip

    def __init__(
        self, path: str, descriptor: int, status: os.stat_result, line_format: LineFormat, position: int = 0
    ) -> None:
        self.path = path
        self.format = line_format
        self.group = ""
        self.descriptor = descriptor
        self.device, self.inode = status.st_dev, status.st_ino
        self.position = self.scanned = position
        self.head = b""
        self.tail = b""
        self.hollow = False
        self.adrift = False
        """The name leads elsewhere or nowhere: the file was renamed or deleted."""
        self.links = status.st_nlink
        self.late_until = 0
        """Lines before this offset were written while nobody read."""
        self.line_bytes = 0.0
        self.quiet_since = 0.0
        self.size = status.st_size
        self.modified = status.st_mtime_ns
        self.seen: tuple[int, int] | None = None
        self._remember()

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    @property
    def backlog(self) -> int:
        """Bytes that were there at the latest refresh and are not read yet."""
        return self.size - self.scanned

    def mark(self) -> Mark:
        """The position as it is saved."""
        return Mark(
            self.path, self.group, self.inode, self.position, self.modified,
            len(self.head), digest(self.head), len(self.tail), digest(self.tail), self.hollow,
        )  # fmt: skip

    def resume(self, mark: Mark) -> None:
        """Go on from a mark that fits this file. Raises OSError."""
        self.position = self.scanned = mark.position
        self.hollow = mark.hollow
        self._remember()

    def refresh(self, status: os.stat_result) -> Mark | None:
        """Take note of the file's size; the mark before, if it turned out to be truncated. Raises OSError."""
        self.size = status.st_size
        self.links = status.st_nlink
        seen = (status.st_size, status.st_mtime_ns)
        if seen == self.seen:
            return None
        self.seen = seen
        before = None if self._same() else self.mark()
        self.modified = status.st_mtime_ns
        if before:
            self._start_again()
        elif self.size < self.scanned:  # the line that was being written was taken back
            self.scanned = self.position
        if len(self.head) < HEAD_BYTES:
            self.head = os.pread(self.descriptor, HEAD_BYTES, 0)
        return before

    def take(self, limit: int) -> tuple[bytes, int, int]:
        """Read on by at most `limit` bytes: the complete lines, how many, and their bytes in the file.

        The lines are without what is in the middle of a very long one. No lines: none has ended yet, or the
        file has shrunk meanwhile. Raises OSError.
        """
        wanted = min(limit, self.backlog)
        chunk = os.pread(self.descriptor, wanted, self.scanned)
        if len(chunk) < wanted:  # it shrank since the refresh; the next one sees to it
            self.size = self.scanned + len(chunk)
            self.seen = None
        if self.hollow and self.scanned == self.position:
            chunk = self._skip_nulls(chunk)
        end = chunk.rfind(NEWLINE) + 1
        if not end:
            self.scanned += len(chunk)
            return b"", 0, 0
        held = self.scanned - self.position
        body = chunk if end == len(chunk) else chunk[:end]
        lines = count_newlines(body)
        size = held + end
        if held:
            body = os.pread(self.descriptor, min(held, MAX_PREFIX_BYTES), self.position) + body
        self.tail = (
            chunk[:end][-TAIL_BYTES:]
            if held > MAX_PREFIX_BYTES
            else (self.tail + body[-TAIL_BYTES:])[-TAIL_BYTES:]
        )
        self.position = self.scanned + end
        self.scanned += len(chunk)
        mean = size / lines
        self.line_bytes = mean if not self.line_bytes else 0.7 * self.line_bytes + 0.3 * mean
        return body, lines, size

    def skip(self, until: int) -> tuple[int, int]:
        """Jump to the last line end before an offset: lines (reckoned from bytes), bytes. Raises OSError."""
        begin = max(self.scanned, until - CHUNK_BYTES)
        sample = os.pread(self.descriptor, until - begin, begin)
        end = sample.rfind(NEWLINE) + 1
        target = begin + end if end else until
        size = self._data_between(self.position, target)
        latest = end / count_newlines(sample[:end]) if end else 0.0
        known = [mean for mean in (self.line_bytes, latest) if mean]  # of the lines before, and of the last
        mean = sum(known) / len(known) if known else _USUAL_LINE_BYTES
        self.position = target
        self.scanned = max(until, target)
        self._remember()
        self.format.reset()
        return max(1, round(size / mean)) if size > 0 else 0, size

    def to_end(self) -> None:
        """Begin behind the last line that has ended. Raises OSError."""
        if self.size > self.scanned:
            self.skip(self.size)

    def close(self) -> None:
        """Let go of the file."""
        self.format.reset()
        os.close(self.descriptor)

    def _same(self) -> bool:
        """Whether what was read is still there."""
        if self.size < self.position:
            return False
        if os.pread(self.descriptor, len(self.head), 0) != self.head:
            return False
        return os.pread(self.descriptor, len(self.tail), self.position - len(self.tail)) == self.tail

    def _start_again(self) -> None:
        """At the beginning of new content; or at the end, where the same content was only cut."""
        cut = len(self.head) == HEAD_BYTES and self.size < self.position
        cut = cut and os.pread(self.descriptor, HEAD_BYTES, 0) == self.head
        self.position = self.scanned = self.size if cut else 0
        self.hollow = not cut
        self.format.reset()
        self._remember()

    def _skip_nulls(self, chunk: bytes) -> bytes:
        """Without the NUL bytes that a writer which does not append leaves before its place."""
        rest = chunk.lstrip(b"\0")
        self.position += len(chunk) - len(rest)
        if not rest:
            with_data = self._next_data(self.position)
            self.position = min(with_data, self.size)
        self.scanned = self.position
        self.hollow = not rest
        self.tail = b""
        return rest

    def _next_data(self, offset: int) -> int:
        """Where a sparse file goes on to have data: a hole of gigabytes is not read."""
        try:
            return max(offset, os.lseek(self.descriptor, offset, os.SEEK_DATA))
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else offset

    def _data_between(self, begin: int, end: int) -> int:
        """Bytes that somebody wrote: the holes of a sparse file are no lines."""
        held, at = 0, begin
        for _ in range(MAX_EXTENTS):
            start = min(self._next_data(at), end)
            if start >= end:
                return held
            try:
                at = min(os.lseek(self.descriptor, start, os.SEEK_HOLE), end)
            except OSError:  # a file system without holes
                at = end
            held += at - start
        return held + end - at

    def _remember(self) -> None:
        """Read the bytes by which the file is known again."""
        self.head = os.pread(self.descriptor, HEAD_BYTES, 0)
        begin = max(0, self.position - TAIL_BYTES)
        self.tail = os.pread(self.descriptor, self.position - begin, begin)
