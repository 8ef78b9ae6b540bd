"""Which processes use most, from literal files and from this host's."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.episode_processes import ProcessCount, look, parse_io, parse_stat, top, top_processes

STAT = (
    b"42 (tail) (x)\x1b) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 9000 1000000 512 "
    b"18446744073709551615 1 1 0"
)


def test_a_stat_is_read_past_a_name_with_brackets_and_shows_nothing_a_terminal_obeys():
    assert parse_stat(STAT) == ProcessCount("tail) (x)?", 9000.0, 300.0, 512.0)


@given(st.binary(max_size=80))
def test_what_is_no_stat_is_refused(data):
    try:
        parse_stat(data)
    except ValueError:
        return
    assert data.count(b")") >= 1


def test_disk_use_is_reads_and_writes_and_unknown_where_one_is_missing():
    assert parse_io(b"rchar: 1\nread_bytes: 10\nwrite_bytes: 5\ncancelled_write_bytes: 9\n") == 15
    assert math.isnan(parse_io(b"read_bytes: 10\n"))


def test_the_top_of_each_is_chosen_and_a_number_used_again_is_another_process():
    before = {1: ProcessCount("a", 1, 100, 10, 0.0), 2: ProcessCount("b", 1, 100, 10, 0.0)}
    after = {
        1: ProcessCount("a", 1, 150, 10, 1000.0),
        2: ProcessCount("c", 7, 900, 99, math.nan),
    }
    first, second = top(before, after, 2.0, 100.0, 4096.0)
    assert (first.name, first.cpu_cores, first.io_bytes_per_second) == ("a", 0.25, 500.0)
    assert (second.name, second.resident_bytes) == ("c", 99 * 4096.0)
    assert math.isnan(second.cpu_cores)


def test_files_that_vanish_or_are_torn_leave_a_process_out(tmp_path):
    for pid, content in ((1, STAT), (2, b"2 (torn"), (3, None)):
        (tmp_path / str(pid)).mkdir()
        if content is not None:
            (tmp_path / str(pid) / "stat").write_bytes(content)
    (tmp_path / "meminfo").write_text("")
    assert list(look(tmp_path)) == [1]
    with pytest.raises(FileNotFoundError):
        look(tmp_path / "none")


def test_this_process_is_found_on_this_host():
    def burn(_seconds: float) -> None:
        until = os.times().user + 0.2
        while os.times().user < until:
            sum(range(1000))

    found = {use.pid: use for use in top_processes(Path("/proc"), burn)}
    assert found[os.getpid()].cpu_cores > 0.01
