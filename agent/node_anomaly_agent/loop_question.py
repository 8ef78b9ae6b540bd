"""A question that other threads put to the loop, which answers it between two ticks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from node_anomaly_agent.log_setup import Log

T = TypeVar("T")


class LoopQuestion(Generic[T]):
    """One question; whoever asks waits for the answer, one at a time.

    Args:
        make: makes the answer, on the loop's thread; None for "I don't know".
        wake: ends the loop's wait.
        log: told of an answer that could not be made.
    """

    def __init__(self, make: Callable[[], T | None], wake: Callable[[], None], log: Log) -> None:
        self._make = make
        self._wake = wake
        self._log = log
        self._asking = threading.Lock()
        self._answered = threading.Event()
        self._wanted = False
        self._answer: T | None = None

    def ask(self, patience_s: float) -> T | None:
        """The loop's answer, or None if there is none within so many seconds. Any thread but the loop's."""
        with self._asking:
            self._answered.clear()
            self._wanted = True
            self._wake()
            self._answered.wait(patience_s)
            self._wanted = False
            answer, self._answer = self._answer, None
            return answer

    def answer(self) -> None:
        """Answer, if anybody asks. The loop's thread."""
        if not self._wanted:
            return
        try:
            self._answer = self._make()
        except Exception:  # noqa: BLE001  # who asks goes without, the loop goes on
            self._log.exception("a question could not be answered")
        self._answered.set()
