"""The ledger outlives restarts and damage, and tells an allowed return from a replay."""

from __future__ import annotations

import fcntl
import math
import re
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.ledger import LEDGER_FILE, LOCK_FILE, MAX_LEFT, Ledger, Memory, check, parse_memory
from node_anomaly_core.errors import BundleError

A, B, C = "a" * 16, "b" * 16, "c" * 16


def refused(memory: Memory, version: str, trained_at: float, *, signed: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        check(memory, version, trained_at, signed=signed)
    assert f"bundle activate {version}" in caught.value.hint
    return caught.value.reason


def test_it_is_the_same_after_a_restart(tmp_path):
    one = Ledger(tmp_path)
    one.accepted(A, 10.0, 100.0)
    one.accepted(B, 20.0, 200.0)
    one.reached("https://x/stable", 7)
    one.leave(B, A)
    memory = Ledger(tmp_path).read()
    assert memory == Memory(20.0, {"https://x/stable": 7}, A, (B,), (A, B), 200.0)
    assert parse_memory(memory.to_bytes()) == memory
    assert parse_memory(Memory().to_bytes()) == Memory()


def test_an_older_signed_bundle_is_a_replay_until_somebody_asks_for_it(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.accepted(A, 10.0, 0.0)
    ledger.accepted(B, 20.0, 0.0)
    assert refused(ledger.read(), A, 10.0) == "replay"
    check(ledger.read(), A, 10.0, signed=False)
    check(ledger.read(), A, 10.0, signed=True, allowed=A)
    check(ledger.read(), B, 20.0, signed=True)
    ledger.allow(A)
    check(ledger.read(), A, 10.0, signed=True)
    ledger.accepted(A, 10.0, 0.0)
    check(ledger.read(), B, 20.0, signed=True)  # the newest may always come back
    ledger.accepted(C, 30.0, 0.0)
    assert refused(ledger.read(), A, 10.0) == "replay"  # a newer one ends the permission


def test_what_was_left_stays_out_signed_or_not_until_somebody_asks_for_it(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.leave(B, A)
    assert refused(ledger.read(), B, 20.0) == "rolled_back"
    assert refused(ledger.read(), B, 20.0, signed=False) == "rolled_back"
    ledger.allow(B)
    check(ledger.read(), B, 20.0, signed=True)
    assert ledger.read().left == ()


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(content):
    with pytest.raises(ValueError, match="ledger"):
        parse_memory(content)


def test_a_damaged_file_is_said_and_started_anew(tmp_path):
    said: list[str] = []
    (tmp_path / LEDGER_FILE).write_bytes(b"{")
    ledger = Ledger(tmp_path, said.append)
    assert ledger.read() == Memory()
    assert str(tmp_path / LEDGER_FILE) in said[0]
    ledger.reached("x", 1)
    assert Ledger(tmp_path).read().sequences == {"x": 1}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("key", ["newest_trained_at_seconds", "since_seconds"])
def test_a_time_that_is_no_number_is_damage_and_the_next_change_is_written(tmp_path, key, number):
    said: list[str] = []
    written = re.sub(f'("{key}": )[^,\n]+', rf"\g<1>{number}", Memory(1.0, since=1.0).to_bytes().decode())
    assert number in written
    (tmp_path / LEDGER_FILE).write_text(written)
    ledger = Ledger(tmp_path, said.append)
    assert ledger.read() == Memory()
    assert "no time" in said[0]
    ledger.accepted(A, 10.0, 100.0)
    assert Ledger(tmp_path).read() == Memory(10.0, history=(A,), since=100.0)


def test_what_cannot_be_written_as_json_is_said_and_memory_serves(tmp_path):
    said: list[str] = []
    ledger = Ledger(tmp_path, said.append)
    assert ledger.accepted(A, 10.0, math.nan).history == (A,)
    assert "cannot be written" in said[0]


def test_where_nothing_can_be_written_memory_serves_and_it_is_said(tmp_path):
    said: list[str] = []
    blocked = tmp_path / "file"
    blocked.write_text("")
    ledger = Ledger(blocked, said.append)
    ledger.reached("x", 3)
    assert said
    nowhere = Ledger(None)
    nowhere.reached("x", 3)
    assert nowhere.read().sequences == {"x": 3}


def test_it_never_grows_beyond_its_bounds(tmp_path):
    ledger = Ledger(tmp_path)
    for number in range(100):
        ledger.leave(f"{number:016x}", A)
        ledger.accepted(f"{number:016x}", float(number), 0.0)
        ledger.reached(f"source {number}", number)
    memory = ledger.read()
    assert len(memory.left) == len(memory.history) == MAX_LEFT
    assert len(memory.sequences) <= 8
    assert memory.left[-1] == f"{99:016x}"


def test_writers_in_parallel_lose_nothing(tmp_path):
    """As the agent and `bundle activate` would: each with a ledger of its own."""

    def work(name: str) -> None:
        for number in range(1, 21):
            Ledger(tmp_path, patience_s=60.0).reached(name, number)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Ledger(tmp_path).read().sequences == {"a": 20, "b": 20, "c": 20}


@pytest.mark.timeout(20)
def test_a_lock_that_is_held_for_good_holds_up_nobody_and_is_said(tmp_path):
    """It is taken on the loop's thread: at the start, and before a stop is heard."""
    said: list[str] = []
    with (tmp_path / LOCK_FILE).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        begun = time.monotonic()
        assert Ledger(tmp_path, said.append).accepted(A, 10.0, 100.0).history == (A,)
        assert time.monotonic() - begun < 5.0
    assert len(said) == 1
    assert "another process holds it" in said[0]
    assert Ledger(tmp_path).read().history == (A,)


def test_a_lock_that_is_let_go_in_time_is_waited_for(tmp_path):
    said: list[str] = []
    held = (tmp_path / LOCK_FILE).open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    letting_go = threading.Timer(0.2, held.close)
    letting_go.start()
    begun = time.monotonic()
    Ledger(tmp_path, said.append, patience_s=30.0).reached("x", 1)
    assert time.monotonic() - begun >= 0.1
    letting_go.join()
    assert said == []


def test_the_newest_never_becomes_older(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.accepted(B, 20.0, 5.0)
    ledger.accepted(A, 10.0, 6.0)
    assert ledger.read().newest_trained_at == 20.0
    assert ledger.accepted(A, 10.0, 99.0).since == 6.0  # a restart with the same bundle is not its first use
    assert replace(Memory(), newest_trained_at=-math.inf) == Memory()


def test_a_version_that_comes_back_is_the_latest_and_new_again(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.accepted(A, 10.0, 100.0)
    ledger.accepted(B, 20.0, 200.0)
    memory = ledger.accepted(A, 10.0, 300.0)
    assert (memory.history, memory.since) == ((B, A), 300.0)


def test_the_highest_sequence_of_a_source_stays(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.reached("x", 7)
    ledger.reached("x", 3)
    assert ledger.read().sequences == {"x": 7}
