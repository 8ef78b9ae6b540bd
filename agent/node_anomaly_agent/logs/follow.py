"""The files that are followed: found, opened, lost, found again, let go."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from node_anomaly_agent.logs.discovery import Discovery, Found
from node_anomaly_agent.logs.lines import LineFormat
from node_anomaly_agent.logs.marks import Mark, bare_mark, marks_from_json
from node_anomaly_agent.logs.rotated import find_generations, find_rotated, is_elsewhere
from node_anomaly_agent.logs.tail import Tail, open_file

STATE_VERSION = 1
MAX_GLOBS = 256

_TIMESTAMP_NS = 20_000_000  # time stamps of files are up to a timer tick of the kernel behind the clock
_OLD_S = 60.0  # a rotated name that nothing was written to for so long is an old file that lost its neighbour


@dataclass(frozen=True, slots=True)
class Limits:
    """What following files may take.

    Attributes:
        open_files: files held open, at most half of what the process may open; of more, the longest quiet
            are closed and looked at by each survey.
        files: files of which the position is kept.
        survey_s: seconds between two looks for new names; a little less than a usual tick.
        renamed_s: quiet seconds after which a renamed file is let go: its writer may not know yet.
        deleted_s: the same of a deleted one, whose space is free only then.
    """

    open_files: int = 512
    files: int = 2048
    survey_s: float = 14.0
    renamed_s: float = 300.0
    deleted_s: float = 20.0


class Follower:
    """Keeps one Tail for each file. All methods belong to the loop's thread.

    A file that was there when its glob was first surveyed is read from its end, one that appears later from
    its start.

    Args:
        discovery: which files there are.
        make_format: what is wrapped around the lines of a file, made anew for each.
        limits: bounds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        discovery: Discovery,
        make_format: Callable[[], LineFormat],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._discovery = discovery
        self._make_format = make_format
        self._limits = limits
        self._clock = clock
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._open_files = min(limits.open_files, max(1, soft // 2))  # the rest of the agent opens files too
        self.tails: dict[tuple[int, int], Tail] = {}
        self._parked: dict[tuple[int, int], Mark] = {}
        self._followed: set[tuple[int, int]] = set()
        self._looking: Tail | None = None  # which is no candidate where one has to make room
        self._saved: list[Mark] = []
        self._globs: set[str] = set()
        self._next_survey = clock()
        self._saved_at: int | None = None
        self._looked_at = self._surveyed_at = time.time_ns()
        self.refused: dict[str, OSError] = {}
        """Files that may not be read, and directories that may not be listed."""
        self.evictions = 0
        self.truncations = 0
        self.ignored = 0
        """Files beyond the bound, at the latest survey."""

    def refresh(self) -> None:
        """Look for new files if it is time, and at every open one. Raises nothing for what the host does."""
        now = self._clock()
        looking_at = time.time_ns()
        self._followed = set(self.tails)  # in this refresh: what has to make room meanwhile is no news
        replaced: dict[str, str] = {}
        # Those without a name first: what a copy is overwritten with is still in the file that it is made of.
        for tail in sorted(self.tails.values(), key=lambda tail: not tail.adrift):
            if self.tails.get(tail.identity) is not tail:
                continue  # one before it has a successor, for which this one had to make room: it is closed
            self._looking = tail
            try:
                self._refresh(tail, now, replaced)
            except OSError as error:  # a sick disk; the next survey tries again from the mark
                self.refused[tail.path] = error
                self._parked[tail.identity] = tail.mark()
                self._drop(tail)
        self._looking = None
        self._find_missed(replaced, self._looked_at, now, late=False)
        self._looked_at = looking_at
        if now >= self._next_survey:
            self._next_survey = now + self._limits.survey_s
            self._survey(now)
            self._surveyed_at = looking_at

    @property
    def parked(self) -> int:
        """Files whose position is kept without holding them open."""
        return len(self._parked)

    def state(self) -> dict[str, object]:
        """Positions, JSON-able."""
        marks = [tail.mark() for tail in self.tails.values()]
        marks += [*self._parked.values(), *self._saved]
        return {
            "version": STATE_VERSION,
            "at": time.time_ns() if self._saved_at is None else self._saved_at,
            "globs": sorted(self._globs)[:MAX_GLOBS],
            "files": [mark.to_json() for mark in marks[: 2 * self._limits.files]],
        }

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from saved positions; they are matched with files at the next refresh."""
        globs, saved_at = state.get("globs"), state.get("at")
        marks = marks_from_json(state, "files", 2 * self._limits.files)
        if state.get("version") != STATE_VERSION or marks is None or not isinstance(saved_at, int):
            return False
        if not isinstance(globs, list) or not all(isinstance(glob, str) for glob in globs):
            return False
        self._globs = set(globs)
        self._saved = marks
        self._saved_at = saved_at
        return True

    def close(self) -> None:
        """Let go of every file; the positions stay in `state`."""
        for tail in list(self.tails.values()):
            self._parked[tail.identity] = tail.mark()
            self._drop(tail)

    def _survey(self, now: float) -> None:
        earlier, self.refused = self.refused, {}
        self.ignored = 0
        saved_at, self._saved_at = self._saved_at, None
        marks = (*self._saved, *self._parked.values())
        names = frozenset([tail.path for tail in self.tails.values()] + [mark.path for mark in marks])
        present: set[tuple[int, int]] = set()
        appeared: dict[str, str] = {}
        globs: set[str] = set()
        for found in self._discovery.survey(names):
            identity = (found.status.st_dev, found.status.st_ino)
            present.add(identity)
            globs.add(found.glob)
            tail = self.tails.get(identity)
            if tail is not None:
                if tail.adrift:  # renamed to another name that a glob names, or back again
                    tail.path, tail.adrift = found.path, False
                continue
            parked = self._parked.get(identity)
            if parked is not None and parked.position == found.status.st_size and found.path not in earlier:
                continue
            if self._meet(found, identity, now, late=saved_at is not None):
                appeared[found.path] = found.group
        self.refused.update(self._discovery.refused)
        everywhere = {pattern.glob for pattern in self._discovery.patterns}
        self._globs = (self._globs | everywhere) if not self._discovery.refused else self._globs | globs
        if not self.refused:
            self._parked = {identity: mark for identity, mark in self._parked.items() if identity in present}
        paths = {mark.path: mark.group for mark in self._saved}
        if self._saved:
            self._find_lost(now)
        if saved_at is not None:
            paths |= {tail.path: tail.group for tail in self.tails.values()}
            self._find_missed(paths, saved_at, now, late=True)
        else:
            self._find_missed(appeared, self._surveyed_at, now, late=False)

    def _meet(self, found: Found, identity: tuple[int, int], now: float, *, late: bool) -> bool:
        """A file that is not open: one of the saved, one that was parked, or (True) one that has appeared."""
        parked = self._parked.get(identity)
        if parked is None and len(self.tails) + len(self._parked) >= self._limits.files:
            self.ignored += 1
            return False
        marks = [mark for mark in self._saved if mark.path == found.path or mark.inode == identity[1]]
        marks.sort(key=lambda mark: (mark.inode != identity[1], mark.path != found.path))
        same = [mark for mark in marks if mark.inode == identity[1] or not is_elsewhere(mark)]
        candidates = same if parked is None else [parked, *same]
        met = parked is not None or any(mark.path == found.path for mark in marks)
        old = found.rotated and time.time() - found.status.st_mtime > _OLD_S
        at_end = not met and (old or found.glob not in self._globs)
        try:
            tail = self._open(found.path, found.group, candidates, now)
        except OSError as error:
            self.refused[found.path] = error
            if not met:  # what it holds now is old by the time it may be read
                position = found.status.st_size if at_end else 0
                self._parked[identity] = bare_mark(found.path, found.group, identity[1], position)
            return False
        if tail is None:
            return False
        if at_end:
            with suppress(OSError):
                tail.to_end()
        if late:
            tail.late_until = tail.size
        return not met and not at_end

    def _open(self, path: str, group: str, candidates: list[Mark], now: float) -> Tail | None:
        """Open a file at the first mark that fits it, or at its start. Raises OSError."""
        descriptor, status = open_file(path)
        tail = Tail(path, descriptor, status, self._make_format())
        tail.group = group
        tail.quiet_since = now
        if tail.identity in self.tails:
            tail.close()
            return None
        try:
            for mark in candidates:
                if mark.fits(descriptor, status):
                    tail.resume(mark)
                    if mark in self._saved:
                        self._saved.remove(mark)
                    break
        except BaseException:
            tail.close()
            raise
        self._parked.pop(tail.identity, None)
        self._follow(tail)
        return tail

    def _refresh(self, tail: Tail, now: float, replaced: dict[str, str]) -> None:
        """Look at one file; adds its path and group to `replaced` if other content has the name now."""
        seen, was_adrift = tail.seen, tail.adrift
        status = None if tail.adrift else self._status_by_name(tail)
        if status is None and not tail.adrift:
            tail.adrift = True
            if self._succeed(tail, now):
                return
            replaced[tail.path] = tail.group
        before = tail.refresh(status or os.fstat(tail.descriptor))
        if before is not None and was_adrift:  # a copy that was overwritten by the next one
            self._drop(tail)
            return
        if before is not None:
            self.truncations += 1
            self._adopt(find_rotated(before, self._make_format(), self.tails), now)
            replaced[tail.path] = tail.group
        if tail.seen != seen:
            tail.quiet_since = now
        elif tail.adrift and tail.backlog <= 0:
            patience = self._limits.renamed_s if tail.links else self._limits.deleted_s
            if now - tail.quiet_since >= patience:
                self._drop(tail)

    @staticmethod
    def _status_by_name(tail: Tail) -> os.stat_result | None:
        """The file's status, or None if its name leads elsewhere or nowhere."""
        try:
            status = os.stat(tail.path)  # noqa: PTH116  # a Path a file a tick costs more than the call
        except OSError:
            return None
        return status if (status.st_dev, status.st_ino) == tail.identity else None

    def _succeed(self, tail: Tail, now: float) -> bool:
        """Open what has taken a file's name. True if it is the same content anew, as editors leave it."""
        try:
            deleted = os.fstat(tail.descriptor).st_nlink == 0
            successor = self._open(tail.path, tail.group, [tail.mark()] if deleted else [], now)
        except FileNotFoundError:
            return False
        except OSError as error:
            self.refused[tail.path] = error
            return False
        if successor is None or not successor.position:
            return False
        self._drop(tail)
        return True

    def _find_lost(self, now: float) -> None:
        """After a restart: what was read and has another name now, or is a copy."""
        kept: list[Mark] = []
        for mark in self._saved:
            tail = find_rotated(mark, self._make_format(), self.tails)
            if tail is not None:
                tail.late_until = tail.size
                self._adopt(tail, now)
            elif not _is_gone(mark.path) and mark.path in self.refused:
                kept.append(mark)
        self._saved = kept

    def _find_missed(self, paths: dict[str, str], looked_at: int, now: float, *, late: bool) -> None:
        """Whole generations of files that came and were rotated since the last look."""
        if not paths:
            return
        heads = [tail.head for tail in self.tails.values()]
        since = looked_at - _TIMESTAMP_NS
        for path, tail in find_generations(paths, since, self._make_format, self._followed, heads):
            tail.group, tail.late_until = paths[path], tail.size if late else 0
            self._adopt(tail, now)

    def _adopt(self, tail: Tail | None, now: float) -> None:
        """Follow a rotated file to its end."""
        if tail is not None:
            tail.quiet_since = now
            self._follow(tail)

    def _follow(self, tail: Tail) -> None:
        self._make_room()
        self.tails[tail.identity] = tail
        self._followed.add(tail.identity)

    def _make_room(self) -> None:
        while len(self.tails) >= self._open_files:
            others = [tail for tail in self.tails.values() if tail is not self._looking]
            if not others:
                return  # what was written to it before it was rotated is not read yet
            longest = min(others, key=_reluctance)
            self.evictions += 1
            if not longest.adrift:
                self._parked[longest.identity] = longest.mark()
            self._drop(longest)

    def _drop(self, tail: Tail) -> None:
        self.tails.pop(tail.identity, None)
        with suppress(OSError):
            tail.close()

    def by_backlog(self) -> Iterator[Tail]:
        """Those with something to read, the least first."""
        return iter(sorted((t for t in self.tails.values() if t.backlog > 0), key=lambda t: t.backlog))


def _reluctance(tail: Tail) -> tuple[bool, bool, float]:
    """How unwilling one is to close a file: of one that has lost its name, the rest would be lost, too."""
    unread = tail.backlog > 0
    return (unread and tail.adrift, unread, tail.quiet_since)


def _is_gone(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
