"""Generations that were missed: found beside their file, at one look into each directory."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from log_world import EVERY_LOOK, Reader
from node_anomaly_agent.logs.discovery import Pattern, is_text_log, rotated_from
from node_anomaly_agent.logs.files import FileSource
from node_anomaly_agent.logs.lines import PlainText
from node_anomaly_agent.logs.rotated import find_generations

MANY = 60
NAMES = st.sets(
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["a", "a.log", "b", "b.log", "a.log.1"]),
            st.sampled_from(["", ".1", ".2", "-20261125", ".old", "~", ".1.gz", ".txt", ".1.2"]),
        ),
    ),
    max_size=12,
)


@given(names=NAMES, asked=st.lists(st.sampled_from(["a", "a.log", "b.log", "link", "none"]), unique=True))
def test_each_path_has_the_rotated_files_that_it_alone_would_be_found_to_have(names, asked):
    with tempfile.TemporaryDirectory() as made:
        home, aside = Path(made) / "home", Path(made) / "aside"
        home.mkdir()
        aside.symlink_to(home)
        (home / "link").symlink_to("a.log")
        for name in names:
            (home / name).write_text(name)
        paths = [f"{directory}/{name}" for name in asked for directory in (home, aside)]
        expected = [
            (path, name)
            for path in paths
            for name in sorted(names)
            if rotated_from(name) == os.path.realpath(path).rpartition("/")[2] and is_text_log(name)
        ]
        found = []
        for path, tail in find_generations(paths, 0, PlainText, frozenset(), []):
            found.append((path, tail.head.decode()))
            tail.close()
        assert found == expected


def test_a_copy_an_old_file_and_one_that_is_followed_are_no_missed_generations(tmp_path):
    for number, begin in enumerate((b"new", b"old", b"taken", b"copied")):
        (tmp_path / f"app.log.{number}").write_bytes(begin + b"." * 40)
    os.utime(tmp_path / "app.log.1", (1, 1))
    status = (tmp_path / "app.log.2").stat()
    taken, heads = {(status.st_dev, status.st_ino)}, [b"", b"n", b"copied" + b"." * 40]
    found = list(find_generations([f"{tmp_path}/app.log"], 10**10, PlainText, taken, heads))
    assert [tail.head[:3] for _, tail in found] == [b"new"]
    assert all(tail.adrift for _, tail in found)


class Listings(Counter[str]):
    """How often each directory was listed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        listed = os.scandir

        def scandir(path: str):
            self[str(path)] += 1
            return listed(path)

        monkeypatch.setattr(os, "scandir", scandir)


@pytest.fixture
def listings(monkeypatch) -> Listings:
    return Listings(monkeypatch)


@pytest.fixture
def reader(tmp_path) -> Reader:
    made = Reader(lambda: FileSource([Pattern(f"{tmp_path}/*.log", "app")], limits=EVERY_LOOK))
    made.tick()
    return made


def write_many(directory: Path) -> None:
    for number in range(MANY):
        with (directory / f"{number}.log").open("ab") as file:
            file.write(b"a line of number %d that is long enough to be known again\n" % number)


def test_many_files_that_appear_at_once_cost_one_look_at_their_directory(tmp_path, reader, listings):
    write_many(tmp_path)
    for number in range(0, MANY, 2):
        (tmp_path / f"{number}.log").rename(tmp_path / f"{number}.log.1")
        (tmp_path / f"{number}.log").write_bytes(b"the next generation\n")
    reader.tick()
    assert reader.lines == MANY + MANY // 2
    assert listings[str(tmp_path)] <= 2, "one for the globs, one for what was missed"


def test_many_files_that_are_found_again_after_a_restart_cost_one_look(tmp_path, reader, listings):
    write_many(tmp_path)
    reader.tick()
    saved = reader.save()
    (tmp_path / "0.log.1").write_bytes(b"came and was rotated while nobody looked\n")
    write_many(tmp_path)
    reader.die_and_restart(saved)
    listings.clear()
    reader.tick()
    assert reader.lines == 2 * MANY + 1
    assert listings[str(tmp_path)] <= 2


def test_many_files_that_are_rotated_at_once_cost_one_look(tmp_path, reader, listings):
    write_many(tmp_path)
    reader.tick()
    for number in range(MANY):
        (tmp_path / f"{number}.log").rename(tmp_path / f"{number}.log.2")
        (tmp_path / f"{number}.log").write_bytes(b"came and was rotated between two looks\n")
        (tmp_path / f"{number}.log").rename(tmp_path / f"{number}.log.1")
    write_many(tmp_path)
    listings.clear()
    reader.tick()
    assert reader.lines == 3 * MANY
    assert listings[str(tmp_path)] <= 2
