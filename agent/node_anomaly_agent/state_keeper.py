"""Saves the state every two minutes and at the stop, without ever holding up a tick."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from node_anomaly_agent.clock import Clock
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.state import AgentState, StateError, load_state, save_state, sealed, state_parts
from node_anomaly_agent.state_lock import StateLock
from node_anomaly_agent.threads import NO_THREAD, NO_THREAD_HINT, started

SAVE_EVERY_S = 120.0
"""What a kill can cost. One save takes 3 ms of CPU, as much as a tick."""

RETRY_S = 1.0  # a save that is still being written makes the next one wait this long
STOP_PATIENCE_S = 0.5
"""How long the last save may take: a disk that hangs must not hang the stop."""


class StateKeeper:
    """Loads, and saves in the background. All methods belong to the loop's thread.

    Args:
        directory: where the state is kept, or None to keep none.
        clock: when it is time.
        log: told once of each row of failures.
    """

    def __init__(self, directory: Path | None, clock: Clock, log: Log) -> None:
        self._directory = directory
        self._lock = None if directory is None else StateLock(directory)
        self._clock = clock
        self._log = log
        self._writer: threading.Thread | None = None
        self._write_error: StateError | None = None
        self._failures: list[str] = []
        self._failing = False
        self.next_save = clock.monotonic() + SAVE_EVERY_S

    def load(self) -> AgentState | None:
        """The saved state, or None: there is none, or none that is of use."""
        if self._directory is None:
            self._log.warning("state is not kept: no directory is writable", hint="set --state.directory")
            return None
        if self._lock is not None:
            try:
                self._lock.take()
            except StateError as error:
                self._failed(error)
        try:
            return load_state(self._directory)
        except StateError as error:
            self._failures.append("load")
            self._log.warning("state is not loaded, starting fresh", error=error.message, hint=error.hint)
            return None

    def save_if_due(self, make: Callable[[], AgentState | None]) -> None:
        """Save what `make` gives, if it is time."""
        self._collect()
        if self._clock.monotonic() >= self.next_save:
            busy = self._writer is not None
            self.next_save = self._clock.monotonic() + (RETRY_S if busy else SAVE_EVERY_S)
            self._save(make)

    def save_soon(self) -> None:
        """Save at the next occasion: `--once` reads what is saved, and something has changed for it."""
        self.next_save = self._clock.monotonic()

    def finish(self, make: Callable[[], AgentState | None]) -> None:
        """Save a last time and wait for it, but not for long."""
        if self._writer is not None:
            self._writer.join(STOP_PATIENCE_S)
        self._collect()
        self._save(make, last=True)
        if self._writer is not None:
            self._writer.join(STOP_PATIENCE_S)
        self._collect()
        if self._lock is not None and self._writer is None:
            self._lock.release()

    def take_failures(self) -> list[str]:
        """The operations (`load`, `save`) that failed since the last call."""
        taken, self._failures = self._failures, []
        return taken

    def _save(self, make: Callable[[], AgentState | None], *, last: bool = False) -> None:
        """Gather it here, write on a thread: a sick disk may block for minutes, a tick may not.

        The parts are of arrays that nobody changes: copies, or such as are replaced and never written to.
        The `last` save is written here where no thread can be had: there is no tick left to hold up.
        """
        if self._directory is None or self._writer is not None:
            return
        try:
            state = make()
            if state is None:
                return
            parts = state_parts(state)
        except Exception as error:  # noqa: BLE001  # not being able to save is no reason to stop scoring
            self._failed(StateError(f"state cannot be encoded: {error!r}", "report this"))
            return
        writer = threading.Thread(
            target=self._write, args=(self._directory, parts), name="state-writer", daemon=True
        )
        if started(writer):
            self._writer = writer
        elif last:
            self._write(self._directory, parts)
            self._settle()
        else:
            self._failed(StateError(NO_THREAD, NO_THREAD_HINT))

    def _write(self, directory: Path, parts: Sequence[bytes | memoryview]) -> None:
        try:
            if self._lock is not None:
                self._lock.take()  # at every save: the other agent may have ended meanwhile
            save_state(directory, sealed(parts))
        except StateError as error:
            self._write_error = error

    def _collect(self) -> None:
        if self._writer is None or self._writer.is_alive():
            return
        self._writer = None
        self._settle()

    def _settle(self) -> None:
        """Take note of what came of a write."""
        error, self._write_error = self._write_error, None
        if error is not None:
            self._failed(error)
        elif self._failing:
            self._failing = False
            self._log.info("state is saved again")

    def _failed(self, error: StateError) -> None:
        self._failures.append("save")
        if not self._failing:
            self._failing = True
            self._log.warning("state is not saved", error=error.message, hint=error.hint)
