"""The systemd journal as a source of log lines; a cursor says how far it has been read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from node_anomaly_agent.logs.libsystemd import Journal, JournalError
from node_anomaly_agent.logs.source import (
    MAX_LINE_BYTES,
    UNKNOWN_SEVERITY,
    Batch,
    Budget,
    SourceStatus,
)

PLACES = ("var/log/journal", "run/log/journal")
BATCH_ENTRIES = 1024
REOPEN_ENTRIES = 10_000
"""libsystemd keeps what it has read mapped: after so many entries the files are closed and opened again."""

UNITS_KNOWN = 1024
MAX_CURSOR = 1024
_JOIN = "add its user to the group systemd-journal (or adm)"

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
        self._group_of = group_of
        self._units: dict[bytes, str | None] = {}
        self._journal: Journal | None = None
        self._cursor = ""
        self._from_start = False  # the journal was empty when it was opened: all that comes is new
        self._entries = 0
        self._status = SourceStatus(success=True)

    def read(self, budget: Budget) -> Iterator[Batch]:
        """What was logged since the last read; from the end of the journal on when there is no position."""
        self._status = SourceStatus(success=True, streams=1)
        try:
            size = budget.size
            while (journal := self._opened()) is not None:
                journal.refresh()
                for batch in self._entries_of(journal, Budget(budget.deadline, size)):
                    size -= batch.size if batch.data else 0
                    yield batch
                if self._entries < REOPEN_ENTRIES:
                    return
                self._drop()  # and go on with fresh mappings
        except (JournalError, OSError) as error:
            self._drop()
            self._status = SourceStatus(success=False, error=f"the journal cannot be read: {error}")

    def _entries_of(self, journal: Journal, budget: Budget) -> Iterator[Batch]:
        size, typical = 0, 0.0
        while time.monotonic() < budget.deadline:
            if size >= budget.size:  # a storm: the rest is counted, and its bytes are reckoned
                passed = journal.skip(BATCH_ENTRIES)
                if passed:
                    self._stand(journal, passed)
                    yield Batch("", passed, int(passed * typical), b"", None, estimated=True)
                if passed < BATCH_ENTRIES or self._entries >= REOPEN_ENTRIES:
                    return
                continue
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
            if not entries:
                return
            self._stand(journal, entries)
            for group, messages in found.items():
                data = b"\n".join(messages) + b"\n"
                size += len(data)
                typical = len(data) / len(messages)
                yield Batch(group, len(messages), len(data), data, bytes(levels[group]))
            if entries < BATCH_ENTRIES or self._entries >= REOPEN_ENTRIES:
                return

    def _stand(self, journal: Journal, entries: int) -> None:
        self._cursor = journal.cursor()
        self._entries += entries
        self._from_start = False

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
        self._journal, self._entries = journal, 0
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
            where = " and ".join(self._folders)
            return SourceStatus(success=False, error=f"no journal in {where}", missing=True)
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


def _priority(value: bytes | None) -> int:
    return value[0] - 48 if value and len(value) == 1 and 48 <= value[0] <= 55 else UNKNOWN_SEVERITY
