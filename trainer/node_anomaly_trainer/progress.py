"""How a long run tells what it is doing: bars on a terminal, one line per step in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

Report = Callable[[float, str], None]
"""`report(done, note)`: share done in 0..1 and a few words on what is being done now."""

Note = Callable[[str], None]
"""`note(line)`: one line that stays on the screen (a warning, a finding)."""

PLAIN_STEP = 0.1  # a plain line at most every tenth of a phase ...
PLAIN_SECONDS = 15.0  # ... but one at least this often, so that a log shows the run is alive


class Progress(Protocol):
    """What the pipeline reports to."""

    def phase(self, name: str) -> AbstractContextManager[Report]:
        """One step of the run; the context yields the function that moves its bar."""

    def note(self, line: str) -> None:
        """One line that stays on the screen (a warning, a finding)."""


def ignore_report(done: float, note: str) -> None:
    """A report that goes nowhere."""


class SilentProgress:
    """Reports to nobody: for tests and for use as a library."""

    @contextmanager
    def phase(self, name: str) -> Iterator[Report]:
        """See Progress.phase."""
        yield ignore_report

    def note(self, line: str) -> None:
        """See Progress.note."""


class PlainProgress:
    """Lines with percentages, for a log file, a pipe or a CronJob."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock

    @contextmanager
    def phase(self, name: str) -> Iterator[Report]:
        """See Progress.phase."""
        started = self._clock()
        shown_at, shown = started, 0.0
        self.note(f"{name} ...")

        def report(done: float, note: str) -> None:
            nonlocal shown_at, shown
            now = self._clock()
            if done >= 1.0 or (done - shown < PLAIN_STEP and now - shown_at < PLAIN_SECONDS):
                return
            shown_at, shown = now, done
            self.note(f"{name} {done:4.0%}" + (f"  {note}" if note else ""))

        yield report
        self.note(f"{name} 100%  {self._clock() - started:.1f} s")

    def note(self, line: str) -> None:
        """See Progress.note."""
        print(line, file=self._stream, flush=True)


class TerminalProgress:
    """One live bar per phase, with elapsed and remaining time."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def phase(self, name: str) -> Iterator[Report]:
        """See Progress.phase."""
        columns = (
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(bar_width=28),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),  # names may hold brackets
        )
        with RichProgress(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=1.0, note="")
            yield lambda done, note: bars.update(task, completed=min(max(done, 0.0), 1.0), note=note)
            bars.update(task, completed=1.0, note="")

    def note(self, line: str) -> None:
        """See Progress.note."""
        self._console.print(line, markup=False, highlight=False)


def open_progress(stream: TextIO | None = None) -> Progress:
    """Bars if `stream` (standard error by default) is a terminal, else plain lines."""
    target = sys.stderr if stream is None else stream
    if target.isatty():
        return TerminalProgress(Console(file=target))
    return PlainProgress(target)
