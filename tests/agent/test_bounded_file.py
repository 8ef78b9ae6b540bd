"""No file that somebody else can put in place makes the agent wait, whatever it is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from node_anomaly_agent.bounded_file import read_bounded, read_given
from node_anomaly_agent.cli import main
from node_anomaly_agent.config import load_config
from node_anomaly_agent.config_distribution import trusted_keys
from node_anomaly_agent.config_values import InvalidValue
from node_anomaly_agent.episode import EpisodeError
from node_anomaly_agent.episode_commands import list_episodes, show_episode
from node_anomaly_agent.episode_store import write_episode
from node_anomaly_agent.fetch_errors import FetchError
from node_anomaly_agent.fetch_http import Access, Client
from node_anomaly_agent.ledger import LEDGER_FILE, Ledger, Memory
from node_anomaly_agent.once import _recorded_version
from node_anomaly_agent.reload import look
from node_anomaly_agent.state import STATE_FILE, StateError, load_state
from node_anomaly_agent.web_guard import load_in_force
from node_anomaly_core.errors import ConfigError

pytestmark = pytest.mark.timeout(20)
"""What is tested here once hung for good."""

NO_FILE = "it is no regular file"


@pytest.fixture
def pipe(tmp_path) -> Path:
    """A pipe in the file system that nobody writes to."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_one_byte_more_than_is_asked_for_tells_a_larger_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    assert read_bounded(path, 3) == b"1234"
    (tmp_path / "link").symlink_to(path)
    assert read_bounded(tmp_path / "link", 9) == b"12345"


def test_what_is_no_regular_file_is_refused_and_no_descriptor_is_left_open(tmp_path, pipe):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=NO_FILE):
        read_bounded(pipe, 9)
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path, 9)
    with pytest.raises(OSError, match=NO_FILE):
        read_bounded(Path("/dev/zero"), 9)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="No such device"):
            read_bounded(tmp_path / "socket", 9)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_a_shell_hands_over_is_read_though_it_is_a_pipe(pipe):
    read, write = os.pipe()
    try:
        os.write(write, b"interval: 5s")
        os.close(write)
        assert read_given(Path(f"/dev/fd/{read}"), 99) == b"interval: 5s"
    finally:
        os.close(read)
    assert read_given(Path("/dev/null"), 9) == b""
    with pytest.raises(OSError, match=NO_FILE):
        read_given(pipe, 9)


def test_a_pipe_in_place_of_the_state_is_a_state_that_cannot_be_used(tmp_path):
    os.mkfifo(tmp_path / STATE_FILE)
    with pytest.raises(StateError, match=NO_FILE):
        load_state(tmp_path)


def test_a_pipe_in_place_of_an_episode_is_named_and_the_others_are_listed(tmp_path):
    os.mkfifo(tmp_path / "20260101T000000Z.json")
    write_episode(tmp_path, "20260102T000000Z", b"{}")
    _, complaints = list_episodes(tmp_path, as_json=False)
    assert NO_FILE in complaints[0]
    assert len(complaints) == 2


def test_a_pipe_in_place_of_the_ledger_is_said(tmp_path):
    said: list[str] = []
    os.mkfifo(tmp_path / LEDGER_FILE)
    assert Ledger(tmp_path, said.append).read() == Memory()
    assert NO_FILE in said[0]


def test_a_pipe_in_place_of_a_file_of_settings_is_refused_by_its_flag(pipe, capsys):
    assert main(["check-config", f"--config.file={pipe}"]) == 1
    assert f"config file {pipe} cannot be read: {NO_FILE}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=NO_FILE):
        load_in_force(pipe)
    with pytest.raises(ConfigError, match=NO_FILE):
        load_config(None, {"features.file": str(pipe)}, {})
    with pytest.raises(InvalidValue, match=NO_FILE):
        trusted_keys([str(pipe)])


@pytest.mark.parametrize("as_json", [True, False])
def test_a_pipe_in_place_of_an_episode_is_not_shown_and_not_waited_for(tmp_path, as_json):
    os.mkfifo(tmp_path / "20260101T000000Z.json")
    with pytest.raises(EpisodeError, match=NO_FILE):
        show_episode(tmp_path, "latest", as_json=as_json)


def test_a_pipe_in_place_of_a_bundles_digest_is_left_to_the_verification(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    os.mkfifo(tmp_path / "manifest.sha256")
    assert look(tmp_path).path == tmp_path
    assert _recorded_version(tmp_path) == ""


def test_a_pipe_in_place_of_a_token_holds_no_token(pipe):
    with pytest.raises(FetchError, match="does not hold a token"):
        Client(Access(token_file=pipe)).get("http://127.0.0.1:9/", 1)
