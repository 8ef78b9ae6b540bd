"""Files that are followed: every complete line is counted once, whatever happens to its file."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from log_world import EVERY_LOOK, Log, Reader, read_all
from node_anomaly_agent.logs.discovery import Pattern
from node_anomaly_agent.logs.files import FileSource
from node_anomaly_agent.logs.follow import Limits
from node_anomaly_agent.logs.source import MAX_LINE_BYTES, Budget

PIECES = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.sampled_from([b"\n", b"a\n", b"\0", b"\xff\xfe\n", b"error: x\n", b"partial"]), max_size=8
    ).map(b"".join),
    st.integers(1, 3).map(lambda times: b"y" * (times * 9000)),
)


def follow(directory, name: str = "*.log", **options) -> FileSource:
    return FileSource(
        [Pattern(f"{directory}/{name}", "app")], limits=options.pop("limits", EVERY_LOOK), **options
    )


@pytest.fixture
def log(tmp_path) -> Log:
    return Log(tmp_path / "app.log")


@pytest.fixture
def reader(tmp_path) -> Reader:
    made = Reader(lambda: follow(tmp_path))
    made.tick()
    return made


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PIECES),
        st.tuples(st.sampled_from(["read", "rename", "save", "die", "some", "copytruncate"]), st.none()),
    ),
    max_size=25,
)


def test_a_copy_that_is_overwritten_by_the_next_one_counts_nothing_twice(tmp_path):
    """`cp app.log app.log.1; : > app.log` twice within the minutes that a rotated file is followed."""
    path, copy = tmp_path / "app.log", tmp_path / "app.log.1"
    reader = Reader(lambda: follow(tmp_path))
    reader.tick()
    written = 0
    for generation in range(6):
        for piece in range(3):
            lines = b"".join(b"%d %d %d\n" % (generation, piece, at) for at in range(50 + 7 * generation))
            with path.open("ab") as file:
                file.write(lines)
            written += lines.count(b"\n")
            if piece != 1:
                reader.tick()
        shutil.copyfile(path, copy)
        os.truncate(path, 0)
    reader.tick()
    reader.tick()
    assert reader.lines == written


@given(STEPS)
@settings(max_examples=150)
def test_every_complete_line_is_counted_once(steps):
    """Cut anywhere into writes, renamed anywhere, copied and truncated, killed and restarted anywhere.

    Generations begin with their number, as logs begin with a time: two files of the same bytes are the same.
    """
    with tempfile.TemporaryDirectory() as directory:
        reader, log = Reader(lambda: follow(directory)), Log(Path(directory) / "app.log")
        reader.tick()
        log.write(b"generation 0 begins, and it is not like any other\n")
        saved = reader.save()
        for step, data in steps:
            if step == "write":
                log.write(data)
            elif step == "read":
                reader.tick()
            elif step == "some":
                reader.take_some(1)
            elif step == "save":
                reader.tick()
                saved = reader.save()
            elif step == "die":
                reader.die_and_restart(saved)
            else:
                log.rename() if step == "rename" else log.copytruncate()
                log.write(b"generation %d begins, and it is not like any other\n" % log.generation)
        reader.tick()
        assert reader.lines == len(log.complete)
        assert reader.size == sum(len(line) + 1 for line in log.complete)
        reader.source.close()


@given(st.lists(PIECES, max_size=12))
def test_the_lines_looked_at_are_those_written_with_long_ones_cut(pieces):
    with tempfile.TemporaryDirectory() as directory:
        reader, log = Reader(lambda: follow(directory)), Log(Path(directory) / "app.log")
        reader.tick()
        for piece in pieces:
            log.write(piece)
            reader.tick()
        assert reader.data == b"".join(line[:MAX_LINE_BYTES] + b"\n" for line in log.complete)
        reader.source.close()


def test_what_was_there_at_the_first_start_is_not_read(tmp_path, log):
    log.write(b"old\nold, and not ended")
    reader = Reader(lambda: follow(tmp_path))
    reader.tick()
    log.write(b" until now\nnew\n")
    reader.tick()
    assert reader.data == b"old, and not ended until now\nnew\n"


def test_a_file_that_appears_later_is_read_from_its_start(reader, log):
    log.write(b"one\ntwo\n")
    reader.tick()
    assert reader.lines == 2


def test_a_glob_that_is_new_in_the_configuration_begins_at_the_end_of_its_files(tmp_path, log, reader):
    log.write(b"one\n")
    (tmp_path / "other.txt").write_bytes(b"old\n" * 10)
    reader.tick()
    saved = reader.save()
    reader._make = lambda: FileSource(
        [Pattern(f"{tmp_path}/*.log"), Pattern(f"{tmp_path}/*.txt")], limits=EVERY_LOOK
    )
    reader.die_and_restart(saved)
    reader.tick()
    assert reader.lines == 1


def test_the_last_lines_of_a_renamed_and_deleted_file_are_drained(reader, log):
    log.write(b"one\n")
    reader.tick()
    with log.path.open("ab") as old:
        log.rename()
        old.write(b"written before the writer reopened\n")
    log.path.with_name("app.log.1").unlink()
    log.write(b"new\n")
    reader.tick()
    assert reader.lines == 3


def test_a_truncated_file_that_has_outgrown_the_position_is_known_by_its_bytes(reader, log):
    log.write(b"12:00 first\n" * 10)
    reader.tick()
    os.truncate(log.path, 0)
    log.write(b"12:01 other\n" * 50)
    reader.tick()
    assert reader.lines == 60
    assert reader.source.follower.truncations == 1


def test_what_a_copy_took_along_before_the_truncation_is_read_from_the_copy(reader, log):
    log.write(b"12:00 this line is long enough to be known again\n")
    reader.tick()
    log.write(b"12:01 written between the last look and the copy\n")
    log.copytruncate()
    log.write(b"12:02 after\n")
    reader.tick()
    reader.tick()
    assert reader.lines == 3


def test_the_hole_that_a_writer_leaves_who_does_not_append_is_no_line_and_no_bytes(reader, tmp_path):
    path = tmp_path / "app.log"
    with path.open("wb", buffering=0) as file:
        file.write(b"x" * 199_999 + b"\n")
        reader.tick()
        os.truncate(path, 0)
        file.write(b"after the hole\n")
        reader.tick()
        file.write(b"more\n")
        reader.tick()
    assert (reader.lines, reader.size) == (3, 200_000 + 15 + 5)
    assert reader.data.endswith(b"\nafter the hole\nmore\n")


def test_an_editor_that_writes_a_file_anew_adds_only_what_it_added(reader, log):
    log.write(b"a line of some length, number one\nand another one\n")
    reader.tick()
    copy = log.path.with_name("copy")
    copy.write_bytes(log.path.read_bytes() + b"added\n")
    copy.replace(log.path)
    reader.tick()
    assert reader.lines == 3


def test_a_line_that_never_ends_is_held_in_the_file_and_not_in_memory(reader, log):
    for _ in range(20):
        log.write(b"z" * 1_000_000)
        reader.tick()
    assert reader.lines == 0
    assert len(str(reader.source.state())) < 1000
    log.write(b"\nnext\n")
    reader.tick()
    assert (reader.lines, reader.size) == (2, 20_000_006)
    assert reader.data == b"z" * MAX_LINE_BYTES + b"\nnext\n"


def test_packed_binary_and_rotated_files_are_left_alone(tmp_path):
    source = follow(tmp_path, "*")
    read_all(source)
    for name in ("app.log", "app.log.1", "app.log.2.gz", "app.log-20261124", "app.log.old", "wtmp", "x.zst"):
        (tmp_path / name).write_bytes(b"line\n")
        if name != "app.log":
            os.utime(tmp_path / name, (1.7e9, 1.7e9))
    assert sum(batch.lines for batch in read_all(source)) == 1


def test_links_are_followed_once_and_what_is_no_file_not_at_all(tmp_path):
    source = follow(tmp_path)
    read_all(source)
    (tmp_path / "real.log").write_bytes(b"line\n")
    (tmp_path / "link.log").symlink_to("real.log")
    (tmp_path / "hard.log").hardlink_to(tmp_path / "real.log")
    (tmp_path / "nowhere.log").symlink_to("missing")
    (tmp_path / "loop.log").symlink_to("loop.log")
    (tmp_path / "directory.log").mkdir()
    os.mkfifo(tmp_path / "pipe.log")
    assert sum(batch.lines for batch in read_all(source)) == 1
    assert source.status().success
    assert source.status().streams == 1


def test_a_path_has_the_group_that_the_configuration_says_or_is_left_out(tmp_path):
    def group_of(path: str) -> str | None:
        return None if path.endswith("debug.log") else "web" if "nginx" in path else ""

    source = FileSource([Pattern(f"{tmp_path}/**/*.log")], limits=EVERY_LOOK, group_of=group_of)
    read_all(source)
    (tmp_path / "deep" / "nginx").mkdir(parents=True)
    for name in ("app.log", "debug.log", "deep/nginx/access.log"):
        (tmp_path / name).write_bytes(b"line\n")
    assert sorted(batch.group for batch in read_all(source)) == ["", "web"]


def test_a_link_that_is_set_anew_leads_to_the_new_file(tmp_path, reader):
    (tmp_path / "a.txt").write_bytes(b"one\n")
    (tmp_path / "current.log").symlink_to("a.txt")
    reader.tick()
    (tmp_path / "b.txt").write_bytes(b"two\nthree\n")
    (tmp_path / "current.log").unlink()
    (tmp_path / "current.log").symlink_to("b.txt")
    reader.tick()
    reader.tick()
    assert reader.lines == 3


def test_a_host_without_such_files_is_missing_and_not_refused(tmp_path):
    source = follow(tmp_path)
    read_all(source)
    status = source.status()
    assert (status.success, status.missing) == (False, True)
    assert str(tmp_path) in status.error


def test_more_files_than_may_be_open_are_read_all_the_same(tmp_path):
    reader = Reader(lambda: follow(tmp_path, limits=Limits(open_files=3, survey_s=0.0)))
    reader.tick()
    for turn in range(4):
        for number in range(10):
            with (tmp_path / f"{number}.log").open("ab") as file:
                file.write(b"line %d\n" % turn)
        for _ in range(8):
            reader.tick()
    assert reader.lines == 40
    assert len(reader.source.follower.tails) <= 3
    assert reader.source.follower.evictions > 0


def test_a_file_that_was_rotated_does_not_make_room_for_its_successor_before_its_end_is_read(tmp_path):
    """All are rotated at once, and no more may be open: whichever was closed is not looked at again."""
    reader = Reader(lambda: follow(tmp_path, limits=Limits(open_files=3, survey_s=0.0)))
    names = [tmp_path / f"{number}.log" for number in range(3)]
    reader.tick()
    for path in names:
        path.write_bytes(b"before\n")
    for _ in range(3):
        reader.tick()
    for path in names:
        with path.open("ab") as file:
            file.write(b"at the last moment\n")
        path.rename(f"{path}.1")
        path.write_bytes(b"after\n")
    for _ in range(6):
        reader.tick()
    assert reader.data.count(b"after\n") == 3
    assert b"at the last moment\n" in reader.data
    assert reader.source.follower.truncations == 0
    assert not reader.source.follower.refused


def test_lines_written_while_the_agent_was_away_are_counted_as_late_and_not_looked_at(tmp_path, reader, log):
    log.write(b"seen\n")
    reader.tick()
    saved = reader.save()
    log.write(b"missed\n" * 3)
    reader.die_and_restart(saved)
    late = read_all(reader.source)
    assert [(batch.lines, batch.late, batch.data) for batch in late] == [(3, True, b"")]
    log.write(b"now\n")
    (fresh,) = read_all(reader.source)
    assert (fresh.lines, fresh.late, fresh.data) == (1, False, b"now\n")


def test_of_a_long_absence_only_the_end_is_counted_and_the_rest_is_reckoned(tmp_path, log):
    reader = Reader(lambda: follow(tmp_path, max_backlog=10_000))
    reader.tick()
    log.write(b"0123456789\n" * 10)
    reader.tick()
    saved = reader.save()
    log.write(b"0123456789\n" * 100_000)
    reader.die_and_restart(saved)
    batches = read_all(reader.source)
    assert all(batch.late for batch in batches)
    assert [batch.estimated for batch in batches] == [True] + [False] * (len(batches) - 1)
    assert sum(batch.size for batch in batches) == 1_100_000
    assert abs(sum(batch.lines for batch in batches) - 100_000) <= 1000


def test_following_files_leaves_half_of_the_descriptors_to_the_rest_of_the_agent(tmp_path, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (40, 4096))
    reader = Reader(lambda: follow(tmp_path))
    reader.tick()
    for number in range(50):
        (tmp_path / f"{number}.log").write_bytes(b"line\n")
    for _ in range(6):
        reader.tick()
    assert reader.source.status().streams <= 20
    assert reader.lines == 50


def test_a_glob_over_half_the_host_is_cut_off_and_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr("node_anomaly_agent.logs.discovery.MAX_DIRECTORIES", 10)
    for number in range(30):
        (tmp_path / str(number)).mkdir()
    source = follow(tmp_path, "**")
    read_all(source)
    assert "name the files more precisely" in source.status().error


def test_a_directory_of_very_many_files_is_read_in_part_and_said_to_be(tmp_path, monkeypatch):
    """The tick is not late for it: 100,000 took two seconds."""
    monkeypatch.setattr("node_anomaly_agent.logs.discovery.MAX_NAMES", 20)
    for number in range(30):
        (tmp_path / f"{number}.log").touch()
    os.mkfifo(tmp_path / "pipe.log")
    source = FileSource([Pattern(f"{tmp_path}/*.log")])
    read_all(source)
    assert 19 <= len(source.follower.tails) <= 20
    assert "more than 20 names; name the files more precisely" in source.status().error


def test_globs_that_name_very_many_files_are_cut_off_and_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr("node_anomaly_agent.logs.discovery.MAX_LOOKED_UP", 20)
    for number in range(30):
        (tmp_path / f"{number}.log").touch()
    source = FileSource([Pattern(f"{tmp_path}/*.log")])
    read_all(source)
    assert len(source.follower.tails) == 20
    assert "name more than 20 files" in source.status().error


def test_a_hole_of_gigabytes_is_no_million_lines(tmp_path, reader):
    """Of a sparse file only what was written is reckoned, and the tick is on time."""
    log = tmp_path / "app.log"
    log.write_bytes(b"a line\n" * 1000)
    with log.open("r+b") as file:
        file.truncate(10 << 30)
    for _ in range(3):
        begun = time.monotonic()
        reader.tick(seconds=0.1)
        assert time.monotonic() - begun < 5.0
    with log.open("ab") as file:
        file.write(b"\nthe next\n")
    for _ in range(3):
        reader.tick(seconds=0.1)
    assert 1000 <= reader.lines <= 1800  # holes begin at whole blocks of the file system
    assert reader.size < 20_000


def test_two_stars_at_the_end_name_all_files_below_and_a_relative_glob_is_below_the_working_directory(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    source = FileSource([Pattern("logs/**")], limits=EVERY_LOOK)
    read_all(source)
    (tmp_path / "logs" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "logs" / "deep" / "er" / "app").write_bytes(b"line\n")
    assert sum(batch.lines for batch in read_all(source)) == 1


def test_files_beyond_the_bound_fail_the_source_and_are_said_to_be_too_many(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.log").touch()
    source = follow(tmp_path, limits=Limits(files=3, survey_s=0.0))
    read_all(source)
    assert not source.status().success
    assert source.status().error.startswith("2 files are too many")


@pytest.mark.parametrize(("deleted", "quiet_s"), [(False, 300.0), (True, 20.0)], ids=["renamed", "deleted"])
def test_an_old_file_is_let_go_once_it_has_been_quiet(tmp_path, deleted, quiet_s):
    """A deleted one soon: its space is free only then."""
    now = [0.0]

    def tick(seconds: float) -> int:
        now[0] += seconds
        list(source.read(Budget(now[0] + 1, 1 << 20)))
        return source.status().streams

    source = follow(tmp_path, clock=lambda: now[0])
    (tmp_path / "app.log").write_bytes(b"line\n")
    assert tick(1) == 1
    (tmp_path / "app.log").rename(tmp_path / "app.old")
    if deleted:
        (tmp_path / "app.old").unlink()
    tick(1)
    assert tick(quiet_s - 10) == 1
    assert tick(15) == 0


def test_nothing_of_a_line_is_in_the_state(reader, log):
    log.write(b"password=hunter2\nnot ended, hunter2")
    reader.tick()
    assert "hunter2" not in reader.save()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 1},
        {"version": 2, "globs": [], "files": []},
        {"version": 1, "globs": [], "files": [[1]]},
        {"version": 1, "globs": [3], "files": []},
        {"version": 1, "globs": [], "files": "x"},
        {"version": 1, "globs": [], "files": [["p", "", 1, -1, 0, 0, "", 0, "", 0]]},
    ],
)
def test_positions_that_cannot_be_used_change_nothing(tmp_path, state):
    source = follow(tmp_path)
    before = source.state()
    assert source.restore({"at": 1} | state) is False
    assert source.state() | {"at": 0} == before | {"at": 0}


def test_beyond_the_budget_lines_are_only_counted_and_quiet_files_are_looked_at(tmp_path, reader):
    (tmp_path / "storm.log").write_bytes(b"noise\n" * 200_000)
    (tmp_path / "quiet.log").write_bytes(b"the one that matters\n")
    batches = read_all(reader.source, size=50_000)
    looked = b"".join(batch.data for batch in batches)
    assert sum(batch.lines for batch in batches) == 200_001
    assert b"the one that matters\n" in looked
    assert 8_000 < len(looked) <= 50_000


def test_when_time_runs_out_lines_are_reckoned_from_bytes_and_nothing_is_left_behind(tmp_path):
    now = [100.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    source = follow(tmp_path, clock=clock)
    list(source.read(Budget(200.0, 1 << 20)))
    with (tmp_path / "storm.log").open("wb") as file:
        for number in range(400_000):
            file.write(b"line %d of a storm\n" % number)
    batches = list(source.read(Budget(now[0] + 0.03, 1 << 20)))
    assert batches[-1].estimated
    assert sum(batch.size for batch in batches) == (tmp_path / "storm.log").stat().st_size
    assert sum(batch.lines for batch in batches) == pytest.approx(400_000, rel=0.02)
    assert list(source.read(Budget(now[0] + 10, 1 << 20))) == []


def test_a_tick_that_is_late_already_reads_nothing_and_loses_nothing(reader, log):
    log.write(b"one\n")
    assert read_all(reader.source, seconds=-1.0) == []
    reader.tick()
    assert reader.lines == 1


def test_a_rename_to_and_fro_counts_nothing_twice(reader, log, tmp_path):
    log.write(b"one\n")
    reader.tick()
    log.path.rename(tmp_path / "aside")
    reader.tick()
    (tmp_path / "aside").rename(log.path)
    reader.tick()
    log.write(b"two\n")
    reader.tick()
    assert reader.lines == 2
