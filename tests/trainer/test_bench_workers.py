"""Processes of a bench: real ones, that end well, fail, die, or are no longer wanted."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from bench_data import Die, Fail, Litter, Sleep, Write
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.bench.carry_out import carry_out, remaining
from node_anomaly_trainer.bench.workers import Ended, Moved, run_tasks
from node_anomaly_trainer.progress import PlainProgress, SilentProgress


def ended(tasks, jobs):
    return {event.index: event for event in run_tasks(tasks, jobs) if isinstance(event, Ended)}


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_tasks_run_one_after_the_other_in_a_process_with_one_thread(tmp_path):
    before = dict(os.environ)
    events = list(run_tasks([Write(tmp_path / "a"), Write(tmp_path / "b")], 1))
    assert [event.index for event in events] == [0, 0, 1, 1] or [event.index for event in events] == [0, 0, 1]
    assert events[0] == Moved(0, 0.5, "half")
    assert events[-1] == Ended(1)
    first, second = (json.loads((tmp_path / name).read_text()) for name in "ab")
    assert first["pid"] == second["pid"] != os.getpid()
    assert first["deaf"]
    assert {value for name, value in first.items() if name not in ("pid", "deaf")} == {"1"}
    assert dict(os.environ) == before
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not alive(first["pid"])


def test_what_the_system_refuses_is_said_with_its_path_and_without_a_line_of_ours():
    (refused,) = ended([Fail(OSError(28, "No space left on device", "/out/smd/a.csv"))], 1).values()
    assert refused.error == "/out/smd/a.csv: No space left on device"
    assert refused.hint == "check the path, its permissions and free space"


def test_a_task_that_fails_or_dies_takes_no_other_with_it(tmp_path):
    tasks = [
        Fail(TrainingError("too short", "give it more")),
        Fail(ValueError("odd")),
        Die(-signal.SIGKILL),
        Die(3),
        Write(tmp_path / "last"),
    ]
    events = ended(tasks, 2)
    assert sorted(events) == [0, 1, 2, 3, 4]
    assert events[0] == Ended(0, "too short", True, "give it more")
    assert events[1].error.startswith("ValueError: odd (")
    assert "bench_data.py:" in events[1].error
    assert not events[1].foreseen
    assert events[2].error == (
        "its process ended with signal 9; the machine may be short of memory: try fewer --jobs"
    )
    assert events[3].error == "its process ended with exit code 3"
    assert events[4].error == ""
    assert (tmp_path / "last").exists()


def test_processes_end_when_nobody_listens_any_more(tmp_path):
    events = run_tasks([Sleep(tmp_path / "a"), Sleep(tmp_path / "b")], 2)
    while not ((tmp_path / "a").exists() and (tmp_path / "b").exists()):
        next(events)
    pids = [int((tmp_path / name).read_text() or 0) for name in "ab"]
    events.close()
    assert not any(alive(pid) for pid in pids if pid)


def test_what_a_killed_process_had_in_its_temporary_directory_is_gone_at_the_end(tmp_path):
    events = run_tasks([Litter(tmp_path / "where"), Write(tmp_path / "last")], 1)
    assert next(events).error.startswith("its process ended with signal 9")
    folder = Path((tmp_path / "where").read_text())
    assert (folder / "left").exists()
    assert folder.parent.name.startswith("anomaly-bench-")
    assert [event.index for event in events][-1] == 1
    assert not folder.parent.exists()


def test_all_errors_come_back_by_name_and_the_progress_counts_them(tmp_path, capsys):
    import sys

    tasks = {
        "web/a": Fail(ValueError("odd")),
        "web/b": Write(tmp_path / "b"),
        "web/c": Fail(TrainingError("the disk is full", "free space")),
    }
    costs = {"web/a": 1, "web/b": 3, "web/c": 1}
    failed = carry_out(tasks, costs, "entities", 1, PlainProgress(sys.stderr))
    assert list(failed) == ["web/a", "web/c"]
    assert (failed["web/c"].message, failed["web/c"].hint) == ("the disk is full", "free space")
    said = capsys.readouterr().err
    assert "web/a failed: ValueError: odd" in said
    assert "web/c failed: the disk is full. Try: free space\n" in said
    assert "1 of 3 done" in said


@pytest.mark.alone
def test_nothing_to_do_starts_nothing():
    begun = time.monotonic()
    assert carry_out({}, {}, "entities", 4, SilentProgress()) == {}
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [(0.01, 60, ""), (0.5, 30, ", about 30 s left"), (0.25, 600, ", about 30 min left"), (1.0, 60, "")],
)
def test_the_remaining_time_is_guessed_from_what_was_done(done, seconds, said):
    assert remaining(done, seconds) == said
