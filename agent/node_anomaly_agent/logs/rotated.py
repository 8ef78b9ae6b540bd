"""Where the lines went that were not read yet when a file was renamed, or copied and truncated."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Container, Iterator, Sequence
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
    paths: Collection[str],
    since: int,
    make_format: Callable[[], LineFormat],
    taken: Container[tuple[int, int]],
    heads: Sequence[bytes],
) -> Iterator[tuple[str, Tail]]:
    """Files that had one of the paths since a time (ns since the epoch) and were rotated unread, with it.

    `taken` are files that are followed already, and may grow meanwhile. `heads` are the beginnings of the
    files that are followed: what begins alike is a copy that somebody made.
    """
    known = tuple(head for head in heads if len(head) >= MIN_HEAD_BYTES)
    places = {path: _place(path) for path in paths}
    beside = _rotated_beside(places.values())
    for path, place in places.items():
        for candidate in sorted(beside[place])[:MAX_CANDIDATES]:
            with suppress(OSError):
                tail = _missed(candidate, path, since, make_format(), taken, known)
                if tail is not None:
                    yield path, tail


def _place(path: str) -> tuple[str, str]:
    """The directory and the name that a path leads to."""
    directory, _, name = os.path.realpath(path).rpartition("/")
    return directory, name


def _rotated_beside(places: Collection[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """The rotated files of each place.

    A directory is listed once, however many of its files are asked for: a thousand may appear in one tick.
    """
    beside: dict[tuple[str, str], list[str]] = {place: [] for place in places}
    for directory in {directory for directory, _ in places}:
        with suppress(OSError), os.scandir(directory or "/") as entries:
            for entry in entries:
                base = rotated_from(entry.name)
                found = None if base is None else beside.get((directory, base))
                if found is not None and is_text_log(entry.name):
                    found.append(entry.path)
    return beside


def _missed(
    candidate: str,
    path: str,
    since: int,
    line_format: LineFormat,
    taken: Container[tuple[int, int]],
    known: tuple[bytes, ...],
) -> Tail | None:
    """A rotated file, open at its start, if it is one of those. Raises OSError."""
    descriptor, status = open_file(candidate)
    tail = Tail(path, descriptor, status, line_format)
    if status.st_mtime_ns < since or tail.identity in taken or tail.head.startswith(known):
        tail.close()
        return None
    tail.adrift = True
    return tail
