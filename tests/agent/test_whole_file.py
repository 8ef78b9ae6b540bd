"""Files that others read: whole at every moment, and no litter of those who were killed."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np

from node_anomaly_agent.state import STATE_FILE, AgentState, encode_state, load_state, save_state
from node_anomaly_agent.whole_file import ABANDONED_S, write_whole

ROUNDS = 25


def test_a_state_that_is_being_written_when_the_process_is_killed_is_the_last_one_or_the_new_one(tmp_path):
    contents = [
        encode_state(AgentState(1.7e9, 15.0, "0" * 16, {}, {"rows": np.full((20_000, 4), float(number))}))
        for number in range(2)
    ]
    save_state(tmp_path, contents[0])
    moments = random.Random(0)
    for _ in range(ROUNDS):
        child = os.fork()
        if child == 0:
            while True:
                for content in contents:
                    save_state(tmp_path, content)
        time.sleep(moments.uniform(0.002, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        loaded = load_state(tmp_path)
        assert loaded is not None
        assert np.unique(loaded.scorer["rows"]) in (0.0, 1.0)
    left = [path for path in tmp_path.iterdir() if path.name != STATE_FILE]
    assert left, "no kill came while a file was being written: this test has not tried anything"
    for path in left:
        os.utime(path, (time.time() - ABANDONED_S - 1,) * 2)
    save_state(tmp_path, contents[0])
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


def test_what_another_process_is_writing_and_files_of_others_stay(tmp_path):
    young, others = tmp_path / ".agent.state.abc.part", tmp_path / ".keep"
    for path in (young, others):
        path.touch()
    os.utime(others, (0, 0))
    write_whole(tmp_path / "agent.state", b"x", 0o600)
    assert young.exists()
    assert others.exists()


def test_the_bytes_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    done, sync, move = [], os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(type(tmp_path), "replace", lambda one, to: (done.append("move"), move(one, to)))
    write_whole(tmp_path / "agent.state", b"x", 0o600)
    assert done == ["sync", "move"]
