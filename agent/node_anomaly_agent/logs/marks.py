"""Where reading of a file stands, and by which bytes the file is known again.

A name says little: logs are renamed, and truncated under the same name. An inode number says more, but is
given to the next file once its file is gone. So the first bytes of a file and the last ones before the
position are remembered too: a file that was emptied and has grown beyond the position again differs in them.
Saved are digests of these bytes: no content leaves the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

HEAD_BYTES = 256
TAIL_BYTES = 64
MIN_HEAD_BYTES = 32
"""Fewer do not tell a copy from another file."""


def digest(data: bytes) -> str:
    """What is saved in place of the bytes."""
    return blake2b(data, digest_size=8).hexdigest()


_NOTHING = digest(b"")


@dataclass(frozen=True, slots=True)
class Mark:
    """A position in a file.

    Attributes:
        path: the name under which the file was found.
        group: the configured group of what that name's glob finds.
        inode: its number when it was read.
        position: offset of the first byte that belongs to no counted line.
        modified: the file's modification time then, in ns since the epoch.
        head_length: bytes from offset 0 that `head` is the digest of.
        tail_length: bytes before `position` that `tail` is the digest of.
        hollow: the file was truncated and nothing but NUL bytes was seen since.
    """

    path: str
    group: str
    inode: int
    position: int
    modified: int
    head_length: int
    head: str
    tail_length: int
    tail: str
    hollow: bool

    def fits(self, descriptor: int, status: os.stat_result) -> bool:
        """Whether an open file holds what was read. Raises OSError.

        Another inode is a copy only if enough bytes say so, and if it was written since: a log without time
        stamps looks the same in every generation.
        """
        if status.st_size < self.position:
            return False
        if status.st_ino != self.inode and (
            self.head_length < MIN_HEAD_BYTES or status.st_mtime_ns < self.modified
        ):
            return False
        head = os.pread(descriptor, self.head_length, 0)
        tail = os.pread(descriptor, self.tail_length, self.position - self.tail_length)
        return (len(head), len(tail)) == (self.head_length, self.tail_length) and (
            (digest(head), digest(tail)) == (self.head, self.tail)
        )

    def to_json(self) -> list[object]:
        """As it is saved."""
        flags = int(self.hollow)
        return [
            self.path, self.group, self.inode, self.position, self.modified,
            self.head_length, self.head, self.tail_length, self.tail, flags,
        ]  # fmt: skip


def bare_mark(path: str, group: str, inode: int, position: int) -> Mark:
    """A position in a file of which no byte was read."""
    return Mark(path, group, inode, position, 0, 0, _NOTHING, 0, _NOTHING, hollow=False)


def mark_from_json(value: object) -> Mark | None:
    """A saved mark, or None if it is not one."""
    if not isinstance(value, list) or len(value) != 10:
        return None
    path, group, inode, position, modified, head_length, head, tail_length, tail, hollow = value
    numbers = (inode, position, modified, head_length, tail_length, hollow)
    if not all(type(number) is int and number >= 0 for number in numbers):
        return None
    if not all(isinstance(text, str) for text in (path, group, head, tail)) or "\0" in path:
        return None
    if head_length > HEAD_BYTES or tail_length > min(TAIL_BYTES, position):
        return None
    return Mark(path, group, inode, position, modified, head_length, head, tail_length, tail, bool(hollow))


def marks_from_json(state: Mapping[str, object], key: str, limit: int) -> list[Mark] | None:
    """The saved marks under a key, or None if one of them is none or there are too many."""
    values = state.get(key)
    if not isinstance(values, list) or len(values) > limit:
        return None
    marks = [mark_from_json(value) for value in values]
    return None if None in marks else [mark for mark in marks if mark is not None]
