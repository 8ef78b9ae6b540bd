"""Threads that may be refused: a host and a control group have a bound on them, and others use it up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

NO_THREAD = "no thread can be started"
NO_THREAD_HINT = "find out what uses up TasksMax, pids.max or kernel.pid_max, or raise it"


def started(thread: threading.Thread) -> bool:
    """Start a thread; False if the system has none to give, and then there is nothing to join."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


_Tasks = SimpleQueue[Callable[[], None] | None]


class Errands:
    """One thread that does what it is given, one after the other; it begins with the first task.

    To hand a task over takes a tenth to a third of what a thread for each costs. A task that never returns
    keeps the thread, so whoever gives the next one has to have seen the end of the last.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: _Tasks = SimpleQueue()
        self._thread: threading.Thread | None = None

    def give(self, task: Callable[[], None]) -> bool:
        """Have a task done, which must not raise; False if the system has no thread to give."""
        if self._thread is None or not self._thread.is_alive():
            tasks: _Tasks = SimpleQueue()  # of its own: one that was let go may still have a task
            thread = threading.Thread(target=_work, args=(tasks,), name=self._name, daemon=True)
            if not started(thread):
                return False
            self._tasks, self._thread = tasks, thread
        self._tasks.put(task)
        return True

    def end(self) -> None:
        """Let the thread go after what it has been given."""
        self._tasks.put(None)
        self._thread = None


def _work(tasks: _Tasks) -> None:
    while (task := tasks.get()) is not None:
        task()
        del task  # or what it holds would stay until the next one
