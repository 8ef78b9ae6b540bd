"""The invented machine of tests/fixtures/host in motion: its counters grow steadily until it is disturbed."""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import rig

STEP_S = 0.1
HERTZ = 100


class MovingHost:
    """Its /proc and /sys below `root`; a thread rewrites the counters ten times a second, in place."""

    def __init__(self, root: Path) -> None:
        self.root = Path(shutil.copytree(rig.REPOSITORY / "tests" / "fixtures" / "host", root))
        self._disturbed = threading.Event()
        self._over = threading.Event()
        self._texts = {name: (self.root / "proc" / name).read_text() for name in FILES}
        self._elapsed = {"quiet": 0.0, "disturbed": 0.0}
        self._thread = threading.Thread(target=self._run, daemon=True)

    def disturb(self) -> None:
        """From now on CPU, disk and pressure are many times what they were, and processes are killed."""
        self._disturbed.set()

    def start(self) -> None:
        """Begin to move."""
        self._thread.start()

    def stop(self) -> None:
        """Stand still."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(STEP_S):
            self._elapsed["disturbed" if self._disturbed.is_set() else "quiet"] += STEP_S
            quiet, disturbed = self._elapsed["quiet"], self._elapsed["disturbed"]
            for name, change in FILES.items():
                # In place: the agent holds the files open, and its numbers only grow longer.
                with (self.root / "proc" / name).open("r+") as file:
                    file.write(change(self._texts[name], quiet, disturbed))


def _grown(line: str, position: int, by: float) -> str:
    """The line with its number at `position` (blanks apart, from 0) enlarged."""
    parts = re.split(r"(\s+)", line)
    at = [n for n, part in enumerate(parts) if part.strip()][position]
    parts[at] = str(int(parts[at]) + int(by))
    return "".join(parts)


def _stat(text: str, quiet: float, disturbed: float) -> str:
    """A tenth of four CPUs used, then nearly all."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        cpus = 4 if line.startswith("cpu ") else 1
        if line.startswith("cpu"):
            used = _grown(line, 1, HERTZ * cpus * (0.1 * quiet + 0.93 * disturbed))
            lines[number] = _grown(used, 4, HERTZ * cpus * (0.9 * quiet + 0.07 * disturbed))
        elif line.startswith("ctxt"):
            lines[number] = _grown(line, 1, 5_000 * quiet + 200_000 * disturbed)
        elif line.startswith("processes"):
            lines[number] = _grown(line, 1, 10 * quiet + 500 * disturbed)
    return "\n".join(lines) + "\n"


def _pressure(text: str, quiet: float, disturbed: float) -> str:
    """One per cent of the time, then most of it, in microseconds."""
    grown = int(1e6 * (0.01 * quiet + 0.7 * disturbed))
    return re.sub(r"total=(\d+)", lambda found: f"total={int(found[1]) + grown}", text)


def _disks(text: str, quiet: float, disturbed: float) -> str:
    """One disk: reads, sectors, milliseconds busy and in its queue."""
    grows = {
        3: 20 * quiet + 900 * disturbed,
        5: 1_600 * quiet + 90_000 * disturbed,
        12: 30 * quiet + 970 * disturbed,
        13: 50 * quiet + 8_000 * disturbed,
    }
    (line,) = (line for line in text.splitlines() if " sda " in line)
    grown = line
    for position, by in grows.items():
        grown = _grown(grown, position, by)
    return text.replace(line, grown)


def _vmstat(text: str, quiet: float, disturbed: float) -> str:
    return re.sub(r"oom_kill (\d+)", lambda found: f"oom_kill {int(found[1]) + int(5 * disturbed)}", text)


FILES: dict[str, Callable[[str, float, float], str]] = {
    "stat": _stat,
    "pressure/cpu": _pressure,
    "pressure/io": _pressure,
    "pressure/memory": _pressure,
    "diskstats": _disks,
    "vmstat": _vmstat,
}


@contextlib.contextmanager
def moving_host(root: Path) -> Iterator[MovingHost]:
    """A host that moves until the block ends."""
    host = MovingHost(root)
    host.start()
    try:
        yield host
    finally:
        host.stop()
