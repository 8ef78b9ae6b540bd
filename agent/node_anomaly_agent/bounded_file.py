"""Files that others put in place, read without waiting for anybody and never beyond a bound."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_HANDED_OVER = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/", "/dev/null")


def read_bounded(path: Path, limit: int) -> bytes:
    """At most `limit` + 1 bytes of a regular file, the one more to tell a file that is larger.

    Raises OSError, also for whatever is no regular file: a pipe that nobody writes to would be waited for
    for good.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    finally:
        os.close(descriptor)


def read_given(path: Path, limit: int) -> bytes:
    """The same of a file that whoever started this process named, who may have handed it over open.

    `/dev/stdin` and a shell's `<(...)`, which is `/dev/fd/63`, are pipes with a writer who was asked to
    write; `/dev/null` is how to say "none". Any other pipe is refused. Raises OSError.
    """
    if not str(path).startswith(_HANDED_OVER):
        return read_bounded(path, limit)
    with path.open("rb") as file:
        return file.read(limit + 1)
