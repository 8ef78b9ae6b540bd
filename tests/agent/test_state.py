"""The state file: whole, checked, and never a reason not to start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.state import (
    MAX_STATE_BYTES,
    STATE_FILE,
    SYSTEM_DIRECTORY,
    AgentState,
    StateError,
    decode_state,
    encode_state,
    load_state,
    save_state,
    saved_directory,
    state_directories,
    writable_directory,
)


def make_state(**changes) -> AgentState:
    fields = {
        "saved_at": 1.7e9,
        "interval_s": 15.0,
        "bundle_version": "0123456789abcdef",
        "sampler": {"series": [["cpu", 1.5]]},
        "scorer": {"rows": np.arange(6.0).reshape(2, 3), "counts": np.array([3], dtype=np.int64)},
    }
    return AgentState(**(fields | changes))


def test_what_was_saved_is_loaded(tmp_path):
    save_state(tmp_path / "new", encode_state(make_state()))
    loaded = load_state(tmp_path / "new")
    assert (loaded.saved_at, loaded.interval_s) == (1.7e9, 15.0)
    assert loaded.sampler == {"series": [["cpu", 1.5]]}
    np.testing.assert_array_equal(loaded.scorer["rows"], np.arange(6.0).reshape(2, 3))
    assert loaded.scorer["counts"].dtype == np.int64
    assert [path.name for path in (tmp_path / "new").iterdir()] == [STATE_FILE], "no temporary file is left"


def test_no_file_is_no_state(tmp_path):
    assert load_state(tmp_path) is None


@given(st.data())
def test_any_changed_byte_is_noticed(data):
    content = bytearray(encode_state(make_state()))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateError):
        decode_state(bytes(content))


@given(st.integers(0, 400))
def test_any_truncation_is_noticed(length):
    content = encode_state(make_state())
    with pytest.raises(StateError):
        decode_state(content[: min(length, len(content) - 1)])


@given(st.binary(max_size=300))
def test_any_other_content_is_refused(content):
    with pytest.raises(StateError):
        decode_state(content)


@pytest.mark.parametrize("meta", [b"", b"[]", b"{}", b'{"format_version": 2}', b"[" * 9999], ids=range(5))
def test_a_file_with_a_right_digest_and_a_wrong_inside_is_refused(meta):
    import hashlib

    from node_anomaly_core.tensors import write_tensors

    body = write_tensors({"meta": np.frombuffer(meta, dtype=np.uint8)})
    content = b"node-anomaly state\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
    with pytest.raises(StateError):
        decode_state(content)


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / STATE_FILE).open("wb") as file:
        file.truncate(MAX_STATE_BYTES + 1)
    with pytest.raises(StateError, match="larger than 16 MiB"):
        load_state(tmp_path)


def test_a_file_that_cannot_be_opened_says_why(tmp_path):
    (tmp_path / STATE_FILE).mkdir()
    with pytest.raises(StateError, match="cannot be read") as caught:
        load_state(tmp_path)
    assert caught.value.hint


def test_a_directory_that_cannot_be_made_says_so():
    with pytest.raises(StateError, match="cannot be written"):
        save_state(Path("/proc/none"), b"x")


def test_a_failed_save_leaves_no_temporary_file(tmp_path):
    (tmp_path / STATE_FILE).mkdir()
    (tmp_path / STATE_FILE / "x").touch()
    with pytest.raises(StateError):
        save_state(tmp_path, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_the_configured_directory_is_the_only_candidate():
    assert state_directories(Path("/a"), {"STATE_DIRECTORY": "/b"}) == (Path("/a"),)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, [SYSTEM_DIRECTORY]),
        ({"STATE_DIRECTORY": "/run/a:/run/b"}, [Path("/run/a"), SYSTEM_DIRECTORY]),
        ({"HOME": "/home/u"}, [SYSTEM_DIRECTORY, Path("/home/u/.local/state/node-anomaly")]),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "/x"}, [SYSTEM_DIRECTORY, Path("/x/node-anomaly")]),
    ],
    ids=["nothing", "systemd", "user", "xdg"],
)
def test_candidates_are_systemds_the_systems_and_the_users(environ, expected):
    assert list(state_directories(None, environ)) == expected


def test_the_first_directory_that_could_be_made_is_chosen_and_not_made(tmp_path):
    (tmp_path / "file").touch()
    chosen = writable_directory([tmp_path / "file" / "x", tmp_path / "a" / "b", tmp_path])
    assert chosen == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    assert writable_directory([tmp_path / "file" / "x"]) is None


def test_the_directory_that_holds_a_state_is_found(tmp_path):
    save_state(tmp_path / "b", b"x")
    assert saved_directory([tmp_path / "a", tmp_path / "b"]) == tmp_path / "b"
    assert saved_directory([tmp_path / "a"]) is None
