"""What to say about a file or directory that may not be read: which group to join, or what else helps."""

from __future__ import annotations

import errno
import grp
import os
import stat

_REMEDIES = {
    errno.EMFILE: "raise LimitNOFILE of the agent's service",
    errno.ENFILE: "raise fs.file-max of the host",
    errno.E2BIG: "name the files more precisely",
}


def describe_refusal(path: str, error: OSError) -> str:
    """One line: what, where, and what to do next."""
    reason = f"{path} cannot be read: {error.strerror or error}"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return f"{reason}; {_REMEDIES.get(error.errno or 0, 'check the disk, or exclude it')}"
    try:
        closed = _closed(path)
    except OSError:
        return f"{reason}; let the agent's user read it, or exclude it"
    where = "" if closed[0] == path else f" ({closed[0]} is closed)"
    status = closed[1]
    needed = stat.S_IRGRP if closed[0] == path else stat.S_IXGRP
    name = _group_name(status.st_gid)
    if status.st_mode & needed and status.st_gid not in _own_groups():
        return f"{reason}{where}; let the agent's user join the group {name}"
    mode = stat.S_IMODE(status.st_mode)
    return f"{reason}{where}; its mode {mode:04o} admits no group: grant it with setfacl, or exclude it"


def _closed(path: str) -> tuple[str, os.stat_result]:
    """The first directory on the way that may not be entered, or the path itself."""
    absolute = os.path.realpath(path)
    parts = absolute.split("/")
    for end in range(1, len(parts)):
        directory = "/".join(parts[:end]) or "/"
        if not os.access(directory, os.X_OK):
            return directory, os.stat(directory)  # noqa: PTH116  # beside realpath's strings
    return path, os.stat(path)  # noqa: PTH116  # as above


def _own_groups() -> set[int]:
    return {os.getegid(), *os.getgroups()}


def _group_name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
