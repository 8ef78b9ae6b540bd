"""Time as the loop sees it, and a wait that a signal or another thread can end."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import Protocol


class Clock(Protocol):
    """What the loop needs of time; tests give it one that moves when told."""

    def time(self) -> float:
        """Unix seconds."""

    def monotonic(self) -> float:
        """Seconds that never jump."""

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as `wake` is called."""

    def wake(self) -> None:
        """End the current wait, or the next one. Safe in a signal handler and in any thread."""


class SystemClock:
    """The machine's clocks; waiting is a `select` on a pipe.

    `threading.Event` would not do: its lock is not reentrant, so a signal handler that sets the event
    while the main thread is inside `wait` can deadlock.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def time(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Return after so many seconds, or as soon as `wake` is called."""
        ready, _, _ = select.select([self._read], [], [], max(seconds, 0.0))
        if ready:
            with suppress(BlockingIOError):
                os.read(self._read, 4096)

    def wake(self) -> None:
        """End the current wait, or the next one."""
        with suppress(BlockingIOError):  # a full pipe already wakes
            os.write(self._write, b"\0")

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self._read)
        os.close(self._write)
