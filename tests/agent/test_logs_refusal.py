"""Logs that may not be read: the path, the group to join, and nothing counted twice once it is joined."""

from __future__ import annotations

import grp
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from log_world import EVERY_LOOK, read_all
from node_anomaly_agent.logs import refusal
from node_anomaly_agent.logs.discovery import Pattern
from node_anomaly_agent.logs.files import FileSource

NOBODY = 65534
ADMINS = grp.getgrgid(os.getgid() if os.getuid() else 4)  # adm on Debian


def as_nobody(action) -> object:
    """What a child process returns that has given up being root; as another user, what we return."""
    if os.getuid() != 0:
        return action()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(writing, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


@pytest.fixture
def open_directory():
    """Unlike tmp_path, one that everybody may enter."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    for path in directory.rglob("*"):
        path.chmod(0o700)
    shutil.rmtree(directory)


def status_of(glob: str) -> dict[str, object]:
    source = FileSource([Pattern(glob)], limits=EVERY_LOOK)
    lines = sum(batch.lines for batch in read_all(source))
    status = source.status()
    return {"lines": lines, "success": status.success, "missing": status.missing, "error": status.error}


def close(path: Path, mode: int) -> None:
    if os.getuid() == 0:
        os.chown(path, 0, ADMINS.gr_gid)
    path.chmod(mode)


def test_a_file_of_a_group_names_the_path_and_the_group_to_join(open_directory, monkeypatch):
    monkeypatch.setattr(refusal, "_own_groups", set)
    path = open_directory / "auth.log"
    path.write_bytes(b"secret\n")
    close(path, 0o060)
    answer = as_nobody(lambda: status_of(f"{open_directory}/*.log"))
    assert not answer["success"]
    assert not answer["missing"]
    assert str(path) in answer["error"]
    assert f"join the group {ADMINS.gr_name}" in answer["error"]


def test_a_file_of_its_owner_alone_says_that_no_group_helps(open_directory):
    path = open_directory / "auth.log"
    path.write_bytes(b"secret\n")
    close(path, 0o000)
    answer = as_nobody(lambda: status_of(f"{open_directory}/*.log"))
    assert "admits no group" in answer["error"]
    assert "setfacl" in answer["error"]


def test_a_closed_directory_is_named_instead_of_finding_nothing(open_directory):
    (open_directory / "audit").mkdir()
    close(open_directory / "audit", 0o000)
    answer = as_nobody(lambda: status_of(f"{open_directory}/audit/*.log"))
    assert not answer["missing"]
    assert str(open_directory / "audit") in answer["error"]


def test_one_readable_file_is_read_though_another_is_closed(open_directory):
    (open_directory / "open.log").write_bytes(b"line\n")
    (open_directory / "shut.log").write_bytes(b"line\n")
    close(open_directory / "shut.log", 0o000)

    def look() -> object:
        source = FileSource([Pattern(f"{open_directory}/*.log")], limits=EVERY_LOOK)
        read_all(source)
        return source.status().streams, source.status().success

    assert as_nobody(look) == [1, False] or as_nobody(look) == (1, False)


def test_a_file_that_may_be_read_later_begins_where_it_was_when_it_was_refused(open_directory, monkeypatch):
    """Ten old lines are not news on the day that the agent joins the group."""
    from node_anomaly_agent.logs import follow

    path = open_directory / "auth.log"
    path.write_bytes(b"old\n" * 10)
    source = FileSource([Pattern(f"{open_directory}/*.log")], limits=EVERY_LOOK)
    really_open = follow.open_file

    def refuse(name):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(follow, "open_file", refuse)
    read_all(source)
    assert not source.status().success
    read_all(source)
    assert not source.status().success
    monkeypatch.setattr(follow, "open_file", really_open)
    with path.open("ab") as file:
        file.write(b"new\n")
    assert sum(batch.lines for batch in read_all(source)) == 1
    assert source.status().success


def test_a_sick_disk_is_not_a_matter_of_groups(tmp_path):
    error = refusal.describe_refusal(str(tmp_path), OSError(5, "Input/output error"))
    assert "Input/output error" in error
    assert "group" not in error
