"""Where the lines went that were not read yet when a file was renamed, or copied and truncated."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from contextlib import suppress

from node_anomaly_agent.logs.discovery import is_text_log, rotated_from
from node_anomaly_agent.logs.lines import LineFormat
from node_anomaly_agent.logs.marks import MIN_HEAD_BYTES, Mark
from node_anomaly_agent.logs.tail import Tail, open_file

MAX_CANDIDATES = 64


def find_rotated(mark: Mark, line_format: LineFormat, taken: Container[tuple[int, int]]) -> Tail | None:
    """A file beside the marked one that holds what was read of it, open at the marked position.

    Sought among the names that begin like the marked one (`app.log.1`, `app-20261125.log`), newest first.
    `taken` are files that are followed already.
    """
    directory, _, name = os.path.realpath(mark.path).rpartition("/")
    stem = name.split(".", 1)[0]
    candidates: list[tuple[float, str]] = []
    with suppress(OSError), os.scandir(directory or "/") as entries:
        for entry in entries:
            if entry.name.startswith(stem) and is_text_log(entry.name):
                with suppress(OSError):
                    candidates.append((entry.stat().st_mtime, entry.path))
    for _, path in sorted(candidates, reverse=True)[:MAX_CANDIDATES]:
        with suppress(OSError):
            tail = _resumed(path, mark, line_format, taken)
            if tail is not None:
                return tail
    return None


def _resumed(
    path: str, mark: Mark, line_format: LineFormat, taken: Container[tuple[int, int]]
) -> Tail | None:
    descriptor, status = open_file(path)
    try:
        if (status.st_dev, status.st_ino) not in taken and mark.fits(descriptor, status):
            tail = Tail(mark.path, descriptor, status, line_format)
            tail.resume(mark)
            tail.group = mark.group
            tail.adrift = True
            descriptor = -1
            return tail
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def is_elsewhere(mark: Mark) -> bool:
    """Whether the marked file itself is still there, under another name in its directory."""
    directory, _, name = os.path.realpath(mark.path).rpartition("/")
    try:
        with os.scandir(directory or "/") as entries:
            return any(entry.inode() == mark.inode and entry.name != name for entry in entries)
    except OSError:
        return False


def find_generations(
    path: str, since: int, line_format: LineFormat, taken: Container[tuple[int, int]], heads: Sequence[bytes]
) -> list[Tail]:
    """Files that had this path since a time (ns since the epoch) and were rotated before anybody read them.

    `heads` are the beginnings of the files that are followed: what begins alike is a copy that somebody made.
    """
    directory, _, name = os.path.realpath(path).rpartition("/")
    found: list[Tail] = []
    with suppress(OSError), os.scandir(directory or "/") as entries:
        names = [
            entry.path for entry in entries if rotated_from(entry.name) == name and is_text_log(entry.name)
        ]
        for candidate in sorted(names)[:MAX_CANDIDATES]:
            with suppress(OSError):
                descriptor, status = open_file(candidate)
                tail = Tail(path, descriptor, status, line_format)
                copied = any(tail.head.startswith(head) for head in heads if len(head) >= MIN_HEAD_BYTES)
                if status.st_mtime_ns < since or tail.identity in taken or copied:
                    tail.close()
                    continue
                tail.adrift = True
                found.append(tail)
    return found
