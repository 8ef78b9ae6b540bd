"""The agent's own cost, and what stays unknown."""

from __future__ import annotations

import math
import mmap
import os
import time
from pathlib import Path

from node_anomaly_agent.process_stats import COUNT_EVERY, ProcessReader, ProcessStats, read_process_stats


def test_this_process_is_read():
    stats = read_process_stats()
    assert stats.cpu_s > 0
    assert 1 << 20 < stats.resident_bytes < stats.virtual_bytes
    assert 0 < time.time() - stats.start_time < 86400
    assert 3 <= stats.open_fds <= stats.max_fds
    assert abs(stats.cpu_s - sum(os.times()[:2])) < 1


def frozen(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "self").mkdir()
    for name, text in files.items():
        (tmp_path / name.replace("_", "/")).write_text(text)
    return tmp_path


def test_a_name_with_spaces_and_brackets_does_not_shift_the_fields(tmp_path):
    numbers = " ".join(str(number) for number in range(4, 53))
    stats = read_process_stats(frozen(tmp_path, self_stat=f"7 (a ) b) S {numbers}", stat="btime 1000\n"))
    assert stats.virtual_bytes == 23
    assert stats.resident_bytes == 24 * os.sysconf("SC_PAGE_SIZE")
    assert stats.start_time == 1000 + 22 / os.sysconf("SC_CLK_TCK")


def test_what_cannot_be_read_is_unknown(tmp_path):
    assert str(read_process_stats(tmp_path)) == str(ProcessStats())
    short = read_process_stats(frozen(tmp_path, self_stat="7 (a) S 1 2"))
    assert math.isnan(short.cpu_s)


def test_no_limit_is_not_a_number(tmp_path):
    numbers = " ".join(str(number) for number in range(4, 53))
    limits = "Max open files            unlimited            unlimited            files\n"
    stats = read_process_stats(frozen(tmp_path, self_stat=f"7 (a) S {numbers}", self_limits=limits))
    assert math.isnan(stats.max_fds)
    assert math.isnan(stats.open_fds)
    assert math.isnan(stats.start_time)


def test_open_files_are_counted_every_few_reads_and_all_else_in_each(tmp_path):
    reader = ProcessReader()
    first = reader.read()
    held = [(tmp_path / str(at)).open("w") for at in range(5)]
    # A mapping of its own: memory that this process freed before would be used again, and nothing would grow.
    ballast = mmap.mmap(-1, 64 << 20)
    ballast.write(bytes([1]) * len(ballast))
    later = [reader.read() for _ in range(COUNT_EVERY)]
    for file in held:
        file.close()
    reader.close()
    size = len(ballast)
    ballast.close()
    assert [stats.open_fds - first.open_fds for stats in later] == [0.0] * (COUNT_EVERY - 1) + [5.0]
    assert all(stats.resident_bytes - first.resident_bytes > size / 4 for stats in later)
    assert {stats.start_time for stats in later} == {first.start_time}
