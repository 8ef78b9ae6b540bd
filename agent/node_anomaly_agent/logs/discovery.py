"""Which files the configured globs name now.

Directories are listed anew only when their modification time says that a name came or went; the names found
are looked up at every survey, because a link may lead elsewhere without a trace in its directory.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

GroupOf = Callable[[str], str | None]

MAX_DEPTH = 12
"""Directories that `**` descends."""

MAX_DIRECTORIES = 2048
"""Of more, the rest is left out and said to be: a survey is part of a tick."""

MAX_KEPT_NAMES = 4096
"""A larger directory is listed anew each time."""

MAX_NAMES = 16_384
"""Names of a directory that are read: of more, which ones is the file system's choice, and it is said."""

MAX_LOOKED_UP = 8192
"""Files that a survey looks up, for the same reason."""

_SETTLED_S = 2.0  # a directory changed this recently may change again within the same time stamp
_MAGIC = re.compile(r"[*?\[]")

_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzma", ".Z", ".zip", ".tgz")
_NOT_TEXT = (".journal", ".journal~")
_NO_TEXT_AT_ALL = _COMPRESSED + _NOT_TEXT
_NOT_LOGS = frozenset({"wtmp", "btmp", "lastlog", "faillog", "tallylog"})
_ROTATED = re.compile(
    r"^(.+?)(?:[.-]\d{1,14}(?:[-.T]?\d{2,6})*|[.-]\d{4}-\d{2}-\d{2}(?:[-.T_]\d+)*|\.old|\.bak|~)$"
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob (`*`, `?`, `[...]`, and `**` for directories of any depth) and the group of what it finds."""

    glob: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file that a glob names; `rotated` if it is called like an old one."""

    path: str
    glob: str
    group: str
    status: os.stat_result
    rotated: bool


@dataclass(slots=True)
class _Listing:
    stamp: tuple[int, int]
    names: list[tuple[str, bool]] = field(default_factory=list)


def is_text_log(name: str) -> bool:
    """Whether a file of that name may be a log as text: not packed, not one of the binary ones."""
    return name not in _NOT_LOGS and not name.endswith(_NO_TEXT_AT_ALL)


def rotated_from(name: str) -> str | None:
    """The name that a rotated file had while it was written, if its name looks like one.

    `app.log.1`, `messages-20261125` and `0.log.20261125-101500` are; `app-20261125.log` is a live file.
    """
    if not (name[-1:].isdigit() or name.endswith(("~", ".old", ".bak"))):
        return None
    match = _ROTATED.match(name)
    return match[1] if match else None


def _parts(glob: str) -> tuple[str, ...]:
    """The parts of a glob below the root, plain ones that follow each other in one piece.

    `**` at its end names the files below too.
    """
    names = Path(os.path.abspath(glob)).parts[1:]  # noqa: PTH100  # Path.absolute() keeps the ".."
    parts: list[str] = []
    plain = False
    for name in (*names, "*") if names[-1:] == ("**",) else names:
        before, plain = plain, not _MAGIC.search(name)
        if before and plain:
            parts[-1] += f"/{name}"
        else:
            parts.append(name)
    return tuple(parts)


@lru_cache(maxsize=256)
def _matcher(glob: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(glob)).match


class Discovery:
    """Finds files. All methods belong to the loop's thread.

    Args:
        patterns: the first one that names a file decides on its group.
        excluded: globs over whole paths (`*` matches slashes too) of what to leave out.
        group_of: a path's group, in place of its pattern's; None leaves it out too.
    """

    def __init__(
        self, patterns: Sequence[Pattern], excluded: Sequence[str] = (), group_of: GroupOf | None = None
    ) -> None:
        self.patterns = tuple(patterns)
        self._parts = [_parts(pattern.glob) for pattern in self.patterns]
        self._excluded = [_matcher(glob) for glob in excluded]
        self._group_of = group_of
        self._listings: dict[str, _Listing] = {}
        self._used: set[str] = set()
        self.refused: dict[str, OSError] = {}
        """Directories that may not be listed, after the latest survey."""

    def survey(self, known: frozenset[str] = frozenset()) -> Iterator[Found]:
        """Every file once, whatever the number of names it has.

        `known` are paths that are or were followed: a rotated name beside one of them is an old file, even
        in the moment when nothing has the plain name.
        """
        self.refused = {}
        self._used = set()
        seen: set[tuple[int, int]] = set()
        looked_up = 0
        for pattern, parts in zip(self.patterns, self._parts, strict=True):
            for path in self._expand("", parts, MAX_DEPTH):
                directory, _, name = path.rpartition("/")
                if not is_text_log(name) or any(match(path) for match in self._excluded):
                    continue
                group = pattern.group if self._group_of is None else self._group_of(path)
                if group is None:
                    continue
                base = rotated_from(name)
                if base is not None and self._is_followed(f"{directory}/{base}", known):
                    continue
                looked_up += 1
                if looked_up > MAX_LOOKED_UP:
                    self._refuse(directory, f"the globs name more than {MAX_LOOKED_UP} files")
                    break
                try:
                    status = os.stat(path)  # noqa: PTH116  # a Path a file costs more than the call
                except OSError:  # it vanished, a link leads nowhere, or to itself
                    continue
                identity = (status.st_dev, status.st_ino)
                if stat.S_ISREG(status.st_mode) and identity not in seen:
                    seen.add(identity)
                    yield Found(path, pattern.glob, group, status, base is not None)
        self._listings = {path: found for path, found in self._listings.items() if path in self._used}

    @staticmethod
    def _is_followed(path: str, known: frozenset[str]) -> bool:
        return path in known or os.path.exists(path)  # noqa: PTH110  # as above

    def _expand(self, base: str, parts: Sequence[str], depth: int) -> Iterator[str]:
        """Paths under `base` that the rest of a glob names; the last part may be a file."""
        if not parts:
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            yield from self._expand(base, rest, depth)
            if depth:
                for name, is_directory in self._list(base):
                    if is_directory and not name.startswith("."):
                        yield from self._expand(f"{base}/{name}", parts, depth - 1)
            return
        for path in self._step(base, part):
            if rest:
                yield from self._expand(path, rest, depth)
            elif path:
                yield path

    def _step(self, base: str, part: str) -> Iterator[str]:
        """Paths that one part of a glob leads to. The root is "", so that a slash can follow any."""
        if not _MAGIC.search(part):
            yield f"{base}/{part}"
        else:
            match = _matcher(part)
            for name, _ in self._list(base):
                if match(name) and (not name.startswith(".") or part.startswith(".")):
                    yield f"{base}/{name}"

    def _refuse(self, path: str, why: str) -> None:
        self.refused.setdefault(path, OSError(errno.E2BIG, why))

    def _list(self, directory: str) -> list[tuple[str, bool]]:
        """Names in a directory, and whether each is a directory (not a link to one)."""
        path = directory or "/"
        if len(self._used) >= MAX_DIRECTORIES:
            self._refuse(path, f"the globs lead through more than {MAX_DIRECTORIES} directories")
            return []
        self._used.add(path)
        try:
            status = os.stat(path)  # noqa: PTH116  # as above
            stamp = (status.st_ino, status.st_mtime_ns)
            listing = self._listings.get(path)
            if listing is None or listing.stamp != stamp:
                with os.scandir(path) as entries:
                    names = sorted(
                        (entry.name, entry.is_dir(follow_symlinks=False))
                        for entry in islice(entries, MAX_NAMES)
                    )
                    if next(entries, None) is not None:
                        self._refuse(path, f"it has more than {MAX_NAMES} names")
                listing = _Listing(stamp, names)
                if len(names) <= MAX_KEPT_NAMES and time.time() - status.st_mtime > _SETTLED_S:
                    self._listings[path] = listing
                else:
                    self._listings.pop(path, None)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.refused[path] = error
            return []
        return listing.names
