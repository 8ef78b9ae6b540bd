"""The systemd journal as a source of log lines; a cursor says how far it has been read."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from node_anomaly_agent.logs.libsystemd import Journal, JournalError, release
from node_anomaly_agent.logs.source import (
    MAX_LINE_BYTES,
    UNKNOWN_SEVERITY,
    Batch,
    Budget,
    SourceStatus,
)

PLACES = ("var/log/journal", "run/log/journal")
BATCH_ENTRIES = 512
STEP_ENTRIES = 1024
"""What is looked at, and what is stepped over, before the journal's mapped pages are let go of."""

LOOK_SHARE = 0.6
"""Of the time there is for looking at entries; after that the rest is only counted."""

COUNT_SHARE = 0.9
"""Of the time until the rest is not even stepped over, but reckoned from the numbers that entries bear."""

UNITS_KNOWN = 1024
MAX_CURSOR = 1024
_CURSOR = re.compile(r"s=([0-9a-f]+);i=([0-9a-f]{1,16});")
_JOIN = "add its user to the group systemd-journal (or adm)"

_READ = SourceStatus(success=True, streams=1)

GroupOf = Callable[[str], str | None]
"""The group of a unit, "" for none, and None for a unit that is not to be read."""


class JournaldSource:
    """Reads the journal of this host, or of another root.

    Args:
        root: where the host's file system is; "/" opens the local journal whatever its place is.
        group_of: told each unit once; None if units play no part, which saves looking them up.
    """

    name = "journald"

    def __init__(self, root: Path, group_of: GroupOf | None = None) -> None:
        self._root = root
        self._folders = tuple(str(root / place) for place in PLACES)
        where = " and ".join(self._folders)
        self._none = SourceStatus(success=False, error=f"no journal in {where}", missing=True)
        self._group_of = group_of
        self._units: dict[bytes, str | None] = {}
        self._journal: Journal | None = None
        self._cursor = ""
        self._from_start = False  # the journal was empty when it was opened: all that comes is new
        self._line_bytes = 0.0
        self._mix: dict[str | None, int] = {}
        self._status = SourceStatus(success=True)

    def read(self, budget: Budget) -> Iterator[Batch]:
        """What was logged since the last read; from the end of the journal on when there is no position."""
        self._status = _READ
        begun = time.monotonic()
        left = budget.deadline - begun
        if left <= 0:
            return
        try:
            journal = self._opened()
            if journal is None:
                return
            journal.refresh()
            self._mix.clear()
            more = True
            for batch in self._looked_at(journal, begun + LOOK_SHARE * left, budget.size):
                more = batch is not None
                if batch is not None:
                    yield batch
            if more:  # a storm: the rest is counted, and its bytes are reckoned
                yield from self._counted(journal, begun + COUNT_SHARE * left)
        except (JournalError, OSError) as error:
            self._drop()
            self._status = SourceStatus(success=False, error=f"the journal cannot be read: {error}")

    def _looked_at(self, journal: Journal, until: float, size: int) -> Iterator[Batch | None]:
        """Batches within the budget; then None if there is nothing more to read."""
        looked_at = 0
        while looked_at < size and time.monotonic() < until:
            found: dict[str, list[bytes]] = {}
            levels: dict[str, bytearray] = {}
            entries = 0
            while entries < BATCH_ENTRIES and journal.next():
                entries += 1
                group = self._group(journal)
                if group is not None:
                    message = journal.field(b"MESSAGE") or b""
                    found.setdefault(group, []).append(message[:MAX_LINE_BYTES].replace(b"\n", b" "))
                    levels.setdefault(group, bytearray()).append(_priority(journal.field(b"PRIORITY")))
            if entries:
                self._stand(journal)
            self._mix[None] = self._mix.get(None, 0) + entries - sum(map(len, found.values()))
            for group, messages in found.items():
                self._mix[group] = self._mix.get(group, 0) + len(messages)
                data = b"\n".join(messages) + b"\n"
                looked_at += len(data)
                self._line_bytes = len(data) / len(messages)
                yield Batch(group, len(messages), len(data), data, bytes(levels[group]))
            if entries < BATCH_ENTRIES:
                yield None
                return

    def _counted(self, journal: Journal, until: float) -> Iterator[Batch]:
        """The rest: stepped over while there is time, then reckoned, so that no tick begins behind."""
        passed = STEP_ENTRIES
        while passed == STEP_ENTRIES and time.monotonic() < until:
            passed = journal.skip(STEP_ENTRIES)
            if passed:
                self._stand(journal)
                yield from self._only_counted(passed)
        if passed < STEP_ENTRIES:
            return
        before = self._cursor
        if not journal.to_end():
            return
        rest = entries_between(before, journal.cursor())
        if rest is None:  # two journals' numbers: where it stood, and on with the next tick
            journal.to_cursor(before)
        elif rest:
            self._stand(journal)
            yield from self._only_counted(rest)

    def _only_counted(self, entries: int) -> Iterator[Batch]:
        """Batches of entries that nobody looked at, in the groups of those that were."""
        mix: dict[str | None, int] = {"": 1}
        if self._group_of is not None and any(self._mix.values()):
            mix = self._mix
        left, weight = entries, sum(mix.values())
        for group, share in mix.items():
            lines = round(left * share / weight) if weight else 0
            left, weight = left - lines, weight - share
            if group is not None and lines:
                yield Batch(group, lines, int(lines * self._line_bytes), b"", None, estimated=True)

    def _stand(self, journal: Journal) -> None:
        """What is read up to here is read: libsystemd would keep it mapped."""
        self._cursor = journal.cursor()
        self._from_start = False
        release()

    def _group(self, journal: Journal) -> str | None:
        if self._group_of is None:
            return ""
        unit = journal.field(b"_SYSTEMD_UNIT") or b""
        if unit not in self._units:
            if len(self._units) >= UNITS_KNOWN:
                self._units.clear()
            self._units[unit] = self._group_of(unit.decode("utf-8", "replace"))
        return self._units[unit]

    def _opened(self) -> Journal | None:
        """The journal, standing on the last entry that was read; None if there is none to read."""
        if self._journal is not None:
            return self._journal
        refusal = self._look()
        if refusal is not None:
            self._status = refusal
            return None
        try:
            journal = Journal(self._directory(), MAX_LINE_BYTES + 16)
        except OSError:
            error = "libsystemd.so.0 is not installed: install it (Debian: libsystemd0, RHEL: systemd-libs)"
            self._status = SourceStatus(success=False, error=error, missing=True)
            return None
        self._journal = journal
        if self._cursor:
            self._go_on(journal)
        elif self._from_start or not journal.to_end():
            self._from_start = True
            journal.to_start()
        else:
            self._cursor = journal.cursor()
        return journal

    def _go_on(self, journal: Journal) -> None:
        try:
            found = journal.to_cursor(self._cursor)
        except JournalError:
            self._cursor = ""  # no cursor of any journal: from the end on, at the next read
            raise
        if found:
            return
        note = "the journal no longer holds the entry last read (vacuumed): going on after the gap"
        self._status = SourceStatus(success=True, error=note, streams=1)
        if found is None:  # nothing newer is left either
            if not journal.to_end():
                self._cursor, self._from_start = "", True
                journal.to_start()
            return
        # Standing on an entry that was never read: step back, so that the next one is this.
        if not journal.back():
            journal.to_start()

    def _directory(self) -> str | None:
        """None for the host's own journal; of another root the first place that exists."""
        if self._root == Path("/"):
            return None
        return next((folder for folder in self._folders if Path(folder).is_dir()), None)

    def _look(self) -> SourceStatus | None:
        """Why there is nothing to read, None if there is; libsystemd passes over what it may not open."""
        files, refused = 0, ""
        for folder in self._folders:
            try:
                for path in _journal_files(folder):
                    files += 1
                    if not os.access(path, os.R_OK):
                        refused = path
            except FileNotFoundError:
                continue
            except OSError:
                refused = folder
        if refused:
            error = f"{refused}: not readable by this user: {_JOIN}"
            return SourceStatus(success=False, error=error)
        if not files:
            return self._none
        return None

    def available(self) -> bool:
        """Whether there is a journal that this user may read."""
        return self._look() is None

    def status(self) -> SourceStatus:
        """How the latest read went."""
        return self._status

    def state(self) -> dict[str, object]:
        """The cursor of the last entry read."""
        return {"cursor": self._cursor, "from_start": self._from_start}

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on after a saved cursor; one that is gone from the journal is seen when it is opened."""
        cursor = state.get("cursor")
        if not isinstance(cursor, str) or len(cursor) > MAX_CURSOR or not cursor.isprintable():
            return False
        self._drop()
        self._cursor = cursor
        self._from_start = state.get("from_start") is True and not cursor
        return True

    def close(self) -> None:
        """Unmap every file."""
        self._drop()

    def _drop(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _journal_files(folder: str) -> Iterator[str]:
    """The system's own journal files, here and in the machines' folders; users' may be refused, not these.

    Asked at every tick of a host without a journal: no Path is made of anything.
    """
    machines = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_system_journal(entry.name):
                yield entry.path
            elif entry.is_dir():
                machines.append(entry.path)
    for machine in machines:
        with suppress(PermissionError), os.scandir(machine) as entries:
            yield from (entry.path for entry in entries if _is_system_journal(entry.name))


def _is_system_journal(name: str) -> bool:
    return name.startswith("system") and name.endswith(".journal")


def entries_between(before: str, after: str) -> int | None:
    """How many entries lie behind one cursor up to another, by the numbers that journald gives them.

    None if the numbers are of two journals, or the later one is the smaller.
    """
    first, last = _CURSOR.match(before), _CURSOR.match(after)
    if first is None or last is None or first[1] != last[1]:
        return None
    passed = int(last[2], 16) - int(first[2], 16)
    return passed if passed >= 0 else None


def _priority(value: bytes | None) -> int:
    return value[0] - 48 if value and len(value) == 1 and 48 <= value[0] <= 55 else UNKNOWN_SEVERITY
