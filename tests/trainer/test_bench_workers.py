"""Processes of a bench: real ones, that end well, fail, die, or are no longer wanted."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench_data import Chatter, Die, Fail, Litter, Silent, Sleep, Write
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.bench import carry_out as carrying_out
from node_anomaly_trainer.bench import workers
from node_anomaly_trainer.bench.carry_out import carry_out, in_a_line, remaining
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


def test_a_task_is_not_heard_more_than_twice_a_second():
    begun = time.monotonic()
    first, *others, last = run_tasks([Chatter()], 1)
    assert (first, last) == (Moved(0, 0.0, "on"), Ended(0))
    assert len(others) <= 2 * (time.monotonic() - begun)


def test_what_the_system_refuses_is_said_with_its_path_and_without_a_line_of_ours():
    full = "No space left on device"
    refused, nowhere = ended([Fail(OSError(28, full, "/out/smd/a.csv")), Fail(OSError(28, full))], 1).values()
    assert refused.error == "/out/smd/a.csv: No space left on device"
    assert refused.hint == "check the path, its permissions and free space"
    assert nowhere.error == full


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
    events = run_tasks([Sleep(tmp_path / "a"), Silent(tmp_path / "b")], 2)
    while not ((tmp_path / "a").exists() and (tmp_path / "b").exists()):
        next(events)
    pids = [int((tmp_path / name).read_text() or 0) for name in "ab"]
    begun = time.monotonic()
    events.close()
    assert time.monotonic() - begun < 4.0, "they go at once when they are asked to"
    assert not any(alive(pid) for pid in pids if pid)


def test_a_process_that_does_not_go_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_PATIENCE_S", 0.05)
    events = run_tasks([Silent(tmp_path / "a", stubborn=True)], 1)
    next(events)
    begun = time.monotonic()
    events.close()
    assert time.monotonic() - begun < 15.0, "nobody waits until it has done"
    assert not alive(int((tmp_path / "a").read_text()))


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


class Told(SilentProgress):
    """Keeps what is reported."""

    def __init__(self):
        self.lines = []

    @contextmanager
    def phase(self, name):
        yield lambda done, note: self.lines.append((round(done, 3), note))


def test_a_task_counts_by_what_it_costs_and_never_for_more_than_all_of_it(monkeypatch):
    """Whatever it says itself, and the failed ones are over too."""
    events = [Moved(0, 0.5, ""), Moved(0, 7.0, ""), Ended(1, "odd"), Ended(0)]
    monkeypatch.setattr(carrying_out, "run_tasks", lambda _tasks, _jobs: iter(events))
    seconds = iter((1_000.0, 1_010.0, 1_020.0, 1_030.0, 1_040.0))
    monkeypatch.setattr(carrying_out, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    tasks, told = {"a": Fail(ValueError()), "b": Fail(ValueError())}, Told()
    failed = carry_out(tasks, {"a": 4, "b": 1, "not asked for": 9}, "entities", 1, told)
    assert list(failed) == ["b"]
    assert told.lines == [
        (0.4, "0 of 2 done, about 15 s left, a"),
        (0.8, "0 of 2 done, about 5 s left, a"),
        (1.0, "1 of 2 done, b"),
        (1.0, "2 of 2 done, a"),
    ]


@pytest.mark.alone
def test_nothing_to_do_starts_nothing():
    begun = time.monotonic()
    assert carry_out({}, {}, "entities", 4, SilentProgress()) == {}
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [
        (0.01, 60, ""),
        (0.02, 1, ", about 49 s left"),
        (0.5, 89, ", about 89 s left"),
        (0.5, 90, ", about 2 min left"),
        (0.5, 30, ", about 30 s left"),
        (0.25, 600, ", about 30 min left"),
        (1.0, 60, ""),
    ],
)
def test_the_remaining_time_is_guessed_from_what_was_done(done, seconds, said):
    assert remaining(done, seconds) == said


def test_a_failure_without_a_hint_is_only_itself():
    assert in_a_line("odd", "") == "odd"
    assert in_a_line("odd", "look") == "odd. Try: look"
