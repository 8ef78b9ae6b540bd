"""The journal is read from where it was left, whatever became of it in between."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest

import journal
from node_anomaly_agent.logs import journald
from node_anomaly_agent.logs.journald import JournaldSource
from node_anomaly_agent.logs.source import UNKNOWN_SEVERITY, Budget

PLACE = "var/log/journal/" + "a" * 32
HOUR_US = 3_600_000_000


@pytest.fixture
def root(tmp_path):
    journal.write(tmp_path / PLACE / "system.journal", said("old", 10))
    return tmp_path


def said(text, count, **fields):
    return [{"MESSAGE": f"{text} {n}", "PRIORITY": str(n % 8), **fields} for n in range(count)]


def taken(source, size=1 << 20, seconds=5.0):
    return list(source.read(Budget(time.monotonic() + seconds, size)))


def lines(source, **how):
    return sum(batch.lines for batch in taken(source, **how))


def test_it_begins_at_the_end_and_then_takes_what_comes(root):
    source = JournaldSource(root)
    assert taken(source) == []
    journal.write(root / PLACE / "system@2.journal", said("new", 20), journal.START_US + HOUR_US)
    (batch,) = taken(source)
    assert (batch.lines, batch.group) == (20, "")
    assert batch.data.splitlines()[0] == b"new 0"
    assert batch.size == len(batch.data)
    assert batch.severities == bytes(n % 8 for n in range(20))
    assert taken(source) == []
    assert source.status().success


def test_an_empty_journal_that_fills_is_read_from_its_start(tmp_path):
    journal.write(tmp_path / PLACE / "system.journal", [])
    source = JournaldSource(tmp_path)
    assert taken(source) == []
    journal.write(tmp_path / PLACE / "system@2.journal", said("first", 3))
    assert lines(source) == 3


def test_another_process_goes_on_after_the_cursor(root):
    """Nothing twice and nothing lost, over files and reopened mappings."""
    first = JournaldSource(root)
    taken(first)
    state = json.loads(json.dumps(first.state()))
    first.close()
    journal.write(root / PLACE / "system@2.journal", said("new", 2500), journal.START_US + HOUR_US)
    second = JournaldSource(root)
    assert second.restore(state)
    assert lines(second) == 2500
    assert lines(second) == 0


def test_letting_go_of_what_was_read_loses_nothing(root):
    """What is read would stay mapped, and count as the agent's memory."""
    source = JournaldSource(root)
    taken(source)
    journal.write(
        root / PLACE / "system@2.journal", said("new " + "x" * 200, 20_000), journal.START_US + HOUR_US
    )
    found = b"".join(batch.data for batch in taken(source, size=1 << 30, seconds=60)).splitlines()
    assert len(found) == 20_000
    assert found[-1].endswith(b" 19999")
    assert mapped_kib() < 1024


def mapped_kib():
    """Resident memory of this process that is journal files."""
    held, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = line.endswith(".journal")
        elif inside and line.startswith("Rss:"):
            held += int(line.split()[1])
    return held


def test_a_journal_that_is_ahead_of_the_time_there_is_is_counted_to_its_end(root, monkeypatch):
    """Stepped over while there is time, and then by the numbers of its entries: no tick begins behind."""
    monkeypatch.setattr(journald, "LOOK_SHARE", 0.0)
    monkeypatch.setattr(journald, "COUNT_SHARE", 0.0)
    journal.write(root / PLACE / "system.journal", said("more", 30), journal.START_US + HOUR_US // 2)
    source = JournaldSource(root)
    taken(source)
    journal.write(root / PLACE / "system.journal", said("new", 9000), journal.START_US + HOUR_US)
    batches = taken(source)
    assert [(batch.lines, batch.estimated) for batch in batches] == [(9000, True)]
    assert taken(source) == []


def test_numbers_of_two_journals_are_not_subtracted(root, monkeypatch):
    """The rest is left for the next tick, and not one entry is lost or counted twice."""
    source = JournaldSource(root)
    taken(source)
    journal.write(root / PLACE / "system@2.journal", said("new", 9000), journal.START_US + HOUR_US)
    with monkeypatch.context() as hurried:
        hurried.setattr(journald, "LOOK_SHARE", 0.0)
        hurried.setattr(journald, "COUNT_SHARE", 0.0)
        assert taken(source) == []
    assert lines(source) == 9000


def test_what_is_only_counted_falls_to_the_groups_of_what_was_looked_at(root):
    groups = {"db.service": "db", "noise.service": None}
    source = JournaldSource(root, lambda unit: groups.get(unit, ""))
    taken(source)
    units = ("db.service", "noise.service", "db.service", "web.service")
    entries = [{"MESSAGE": f"m {n}", "_SYSTEMD_UNIT": units[n % 4]} for n in range(8000)]
    journal.write(root / PLACE / "system@2.journal", entries, journal.START_US + HOUR_US)
    counted = Counter()
    for batch in taken(source, size=5000):
        counted[batch.group] += batch.lines
    assert counted == {"db": pytest.approx(4000, rel=0.01), "": pytest.approx(2000, rel=0.01)}


@pytest.mark.parametrize(
    ("before", "after", "entries"),
    [
        ("s=ab;i=f;b=1;m=2", "s=ab;i=1f;b=1;m=9", 16),
        ("s=ab;i=f;b=1", "s=ab;i=f;b=1", 0),
        ("s=ab;i=f;b=1", "s=ab;i=e;b=1", None),
        ("s=ab;i=f;b=1", "s=ac;i=1f;b=1", None),
        ("", "s=ab;i=1f;b=1", None),
        ("nonsense", "s=ab;i=1f;b=1", None),
    ],
)
def test_entries_between_two_cursors(before, after, entries):
    assert journald.entries_between(before, after) == entries


def test_a_vacuumed_cursor_is_said_and_what_is_left_is_read(root):
    source = JournaldSource(root)
    taken(source)
    journal.write(root / PLACE / "system@2.journal", said("new", 7), journal.START_US + HOUR_US)
    state = source.state()
    source.close()
    (root / PLACE / "system.journal").unlink()
    again = JournaldSource(root)
    assert again.restore(state)
    assert lines(again) == 7
    assert again.status().success
    assert "vacuumed" in again.status().error
    assert lines(again) == 0
    assert again.status().error == ""


def test_a_storm_is_counted_beyond_the_bytes_that_are_looked_at(root):
    source = JournaldSource(root)
    taken(source)
    journal.write(root / PLACE / "system@2.journal", said("new", 6000), journal.START_US + HOUR_US)
    batches = taken(source, size=10_000)
    assert sum(batch.lines for batch in batches) == 6000
    assert len(b"".join(batch.data for batch in batches)) < 40_000
    exact = sum(len(f"new {n}\n") for n in range(6000))
    assert sum(batch.size for batch in batches) == pytest.approx(exact, rel=0.2)


def test_without_time_nothing_is_begun_and_nothing_lost(root):
    source = JournaldSource(root)
    taken(source)
    journal.write(root / PLACE / "system@2.journal", said("new", 50), journal.START_US + HOUR_US)
    assert lines(source, seconds=-1.0) == 0
    assert lines(source) == 50


def test_units_are_told_apart_and_may_be_left_out(root):
    groups = {"db.service": "db", "noise.service": None}
    source = JournaldSource(root, lambda unit: groups.get(unit, ""))
    taken(source)
    entries = [
        *said("a", 3, _SYSTEMD_UNIT="db.service"),
        *said("b", 4, _SYSTEMD_UNIT="noise.service"),
        *said("c", 5),
    ]
    journal.write(root / PLACE / "system@2.journal", entries, journal.START_US + HOUR_US)
    assert {batch.group: batch.lines for batch in taken(source)} == {"db": 3, "": 5}


def test_odd_messages_are_one_line_each(root):
    """Newlines, NUL, no message at all, no or a foreign priority."""
    source = JournaldSource(root)
    taken(source)
    entries = [
        {"MESSAGE": "a\nb\nc"},
        {"MESSAGE": b"\x00\xff\n"},
        {"PRIORITY": "3"},
        {"MESSAGE": "x" * 100_000, "PRIORITY": "high"},
    ]
    journal.write(root / PLACE / "system@2.journal", entries, journal.START_US + HOUR_US)
    (batch,) = taken(source)
    assert batch.lines == batch.data.count(b"\n") == 4
    assert batch.severities == bytes([UNKNOWN_SEVERITY, UNKNOWN_SEVERITY, 3, UNKNOWN_SEVERITY])
    assert batch.size < 20_000


def test_a_damaged_file_costs_its_own_entries_only(root):
    source = JournaldSource(root)
    taken(source)
    journal.write(root / PLACE / "system@2.journal", said("lost", 500), journal.START_US + HOUR_US)
    file = root / PLACE / "system@2.journal"
    whole = bytearray(file.read_bytes())
    whole[4096 : 4096 + 60_000] = b"\xff" * 60_000
    file.write_bytes(whole)
    journal.write(root / PLACE / "system@3.journal", said("kept", 40), journal.START_US + 2 * HOUR_US)
    assert lines(source) >= 40
    assert source.status().success


def test_a_host_without_a_journal_lacks_it(tmp_path):
    source = JournaldSource(tmp_path)
    assert taken(source) == []
    status = source.status()
    assert (status.success, status.missing) == (False, True)
    assert not source.available()


def test_a_journal_that_may_not_be_read_names_the_group_to_join(root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read everything
    source = JournaldSource(root)
    assert taken(source) == []
    status = source.status()
    assert (status.success, status.missing) == (False, False)
    assert "systemd-journal" in status.error


@pytest.mark.parametrize("state", [{}, {"cursor": 3}, {"cursor": "x" * 5000}, {"cursor": "a\nb"}], ids=str)
def test_a_foreign_state_is_refused(root, state):
    assert not JournaldSource(root).restore(state)


def test_a_cursor_of_nonsense_is_a_failure_and_not_the_end(root):
    """It starts from the end at the next read."""
    source = JournaldSource(root)
    assert source.restore({"cursor": "nonsense"})
    assert taken(source) == []
    assert "the journal cannot be read" in source.status().error
    journal.write(root / PLACE / "system@2.journal", said("new", 5), journal.START_US + HOUR_US)
    taken(source)
    assert source.status().success
