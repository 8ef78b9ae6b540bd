"""Tasks in processes of their own, each with one thread: started fresh, told one task after the other.

A process that dies takes only its task with it. Ctrl-C is the parent's to handle: the processes do not hear
it, and are ended when the parent stops asking for events. Their temporary files lie in a directory that the
parent removes: whoever is killed cannot.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Protocol

from node_anomaly_core.errors import AnomalyError

Report = Callable[[float, str], None]

ONE_THREAD = {
    "LOKY_MAX_CPU_COUNT": "1",  # scikit-learn's n_jobs=-1
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
"""Environment of every process: libraries read it when they are first imported."""

_REPORT_SECONDS = 0.5
_PATIENCE_S = 5.0
_OF_THE_SYSTEM = "check the path, its permissions and free space"


class Task(Protocol):
    """Work that can be sent to another process; what it gives is what it leaves on disk."""

    def run(self, report: Report) -> None:
        """Do it, telling how far it is."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Task number `index` is this far, 0..1."""

    index: int
    share: float
    note: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Task number `index` is over; `error` is empty if it succeeded.

    `foreseen` is True for an error that was raised as one that a user can act on; `hint` says how, if known.
    """

    index: int
    error: str = ""
    foreseen: bool = False
    hint: str = ""


def run_tasks(tasks: Sequence[Task], jobs: int) -> Iterator[Moved | Ended]:
    """Run all tasks, `jobs` at a time, in order; every one ends exactly once.

    Closing the iterator, or an exception in the caller, ends the processes and what they were doing.
    """
    with TemporaryDirectory(prefix="anomaly-bench-", ignore_cleanup_errors=True) as scratch:
        yield from _run(tasks, jobs, {**ONE_THREAD, "TMPDIR": scratch})


def _run(tasks: Sequence[Task], jobs: int, environment: Mapping[str, str]) -> Iterator[Moved | Ended]:
    waiting = list(reversed(range(len(tasks))))
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < jobs:
                workers.append(_Worker(environment))
                workers[-1].give(waiting.pop(), tasks)
            ready = wait([worker.connection for worker in workers])
            for worker in [one for one in workers if one.connection in ready]:
                event = worker.hear()
                yield event
                if isinstance(event, Moved):
                    continue
                if waiting and worker.alive:
                    worker.give(waiting.pop(), tasks)
                else:
                    workers.remove(worker)
                    worker.end()
    finally:
        for worker in workers:
            worker.ask_to_end()  # all of them first: one that takes its time holds up no other
        for worker in workers:
            worker.end()


class _Worker:
    """One process and the task it has."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.alive = True
        self._index = -1
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _environment(environment), _deaf_to_interrupts():
            self._process.start()
        theirs.close()  # so that a process that dies closes the last one

    def give(self, index: int, tasks: Sequence[Task]) -> None:
        self._index = index
        with suppress(OSError):  # it is dead, and hear() says so
            self.connection.send(tasks[index])

    def hear(self) -> Moved | Ended:
        try:
            event = self.connection.recv()
        except (EOFError, OSError):
            self.alive = False
            self._process.join(_PATIENCE_S)
            return Ended(self._index, f"its process ended with {_cause(self._process.exitcode)}")
        kind, *rest = event
        return Moved(self._index, *rest) if kind == "moved" else Ended(self._index, *rest)

    def ask_to_end(self) -> None:
        """Tell the process to go, and do not wait for it."""
        self.connection.close()  # one that waits for a task goes by itself
        self._process.terminate()

    def end(self) -> None:
        """The process is gone when this returns."""
        self.ask_to_end()
        self._process.join(_PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        hint = "; the machine may be short of memory: try fewer --jobs" if -code == signal.SIGKILL else ""
        return f"signal {-code}{hint}"
    return f"exit code {code}"


def _serve(connection: Connection) -> None:
    """Do tasks until nobody has any more for us."""
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            task.run(_sender(connection))
            answer = ("ended", "", False, "")
        except AnomalyError as error:
            answer = ("ended", error.message, True, error.hint)
        except BrokenPipeError:
            return  # nobody is there any more
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            answer = ("ended", f"{where}{error.strerror or error}", True, _OF_THE_SYSTEM)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other tasks go on and this one is named
            at = traceback.extract_tb(error.__traceback__)[-1]
            answer = ("ended", f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})", False, "")
        connection.send(answer)


def _sender(connection: Connection) -> Report:
    last = 0.0

    def report(done: float, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_SECONDS:
            last = now
            connection.send(("moved", done, note))

    return report


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These variables in the environment of processes started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started meanwhile never see Ctrl-C: they inherit what is blocked."""
    resource_tracker.ensure_running()  # which every process needs, and which unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
