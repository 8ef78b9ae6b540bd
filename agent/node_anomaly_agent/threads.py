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


class Errands:
    """One thread that does what it is given, one after the other; it begins with the first task.

    To hand a task over takes a tenth of what a thread for each costs. A task that never returns keeps the
    thread, so whoever gives the next one has to have seen the end of the last.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._begun = False

    def give(self, task: Callable[[], None]) -> bool:
        """Have a task done, which must not raise; False if the system has no thread to give."""
        if not self._begun:
            self._begun = started(threading.Thread(target=self._work, name=self._name, daemon=True))
        if self._begun:
            self._tasks.put(task)
        return self._begun

    def end(self) -> None:
        """Let the thread go after what it has been given."""
        if self._begun:
            self._tasks.put(None)
        self._begun = False

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
