"""Threads that may be refused: a host and a control group have a bound on them, and others use it up."""

from __future__ import annotations

import threading

NO_THREAD = "no thread can be started"
NO_THREAD_HINT = "find out what uses up TasksMax, pids.max or kernel.pid_max, or raise it"


def started(thread: threading.Thread) -> bool:
    """Start a thread; False if the system has none to give, and then there is nothing to join."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
