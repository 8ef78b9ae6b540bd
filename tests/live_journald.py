"""A real systemd-journald of our own: started alone, in a mount namespace where nobody else logs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import rig

PROGRAM = Path("/lib/systemd/systemd-journald")
PART = rig.Part("systemd-journald", (), "systemd")
SETTINGS = "[Journal]\nStorage=volatile\nReadKMsg=no\nRateLimitBurst=0\nAudit=no\nRuntimeMaxFileSize={size}\n"
START = """
set -e
mount --make-rprivate /
mkdir -p /run/systemd /run/log
mount -t tmpfs tmpfs /run/systemd
mount -t tmpfs tmpfs /run/log
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
printf %s "$1" > /run/systemd/journald.conf.d/test.conf
exec /lib/systemd/systemd-journald
"""


@dataclass
class LiveJournal:
    """A running journald. `root` is a root whose journal is its own, as --path.rootfs takes it."""

    process: subprocess.Popen[bytes]
    root: Path
    said: int = 0

    def log(self, messages: Iterable[bytes], priority: int = 6) -> None:
        """Hand over entries by journald's own protocol; it is slowed down as any program is."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(f"/proc/{self.process.pid}/root/run/systemd/journal/socket")
            for message in messages:
                out.send(b"MESSAGE=%s\nPRIORITY=%d\nSYSLOG_IDENTIFIER=test\n" % (message, priority))
                self.said += 1

    def say(self, count: int, priority: int = 6) -> None:
        """So many entries more, each with its own number: `line 0`, `line 1`, ..."""
        self.log((b"line %d" % number for number in range(self.said, self.said + count)), priority)

    def rotate(self) -> None:
        """Ask it to begin new files; returns once it has."""
        before = len(self.files())
        self.process.send_signal(signal.SIGUSR2)
        until(lambda: len(self.files()) > before, "the journal was not rotated")

    def vacuum(self, files: int) -> None:
        """Have journalctl delete the oldest files but so many, the one that is written among them."""
        folder = next((self.root / "run/log/journal").iterdir())
        command = ["journalctl", f"--directory={folder}", f"--vacuum-files={files}"]
        subprocess.run(command, check=True, capture_output=True, timeout=20)

    def entries(self) -> int:
        """How many entries journalctl finds."""
        folder = next((self.root / "run/log/journal").iterdir())
        command = [
            "journalctl",
            f"--directory={folder}",
            "--output=cat",
            "--output-fields=PRIORITY",
            "--quiet",
        ]
        found = subprocess.run(command, check=True, capture_output=True, timeout=20)
        return found.stdout.count(b"\n")

    def files(self) -> list[Path]:
        """Its journal files."""
        return list((self.root / "run/log/journal").glob("*/*.journal"))


def until(holds, otherwise: str, seconds: float = 15.0) -> None:
    """Wait for it, or fail."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(otherwise)
        time.sleep(0.02)


@contextlib.contextmanager
def live_journald(folder: Path, file_size: str = "16M") -> Iterator[LiveJournal]:
    """Starts in a tenth of a second. Where root may not mount, the test skips, with why in capitals."""
    if not PROGRAM.exists():
        rig.need(PART)
    if os.geteuid() != 0:
        pytest.skip("THE JOURNAL WAS NOT FOLLOWED LIVE: only root may start a journald of its own")
    with (folder / "journald.log").open("wb") as sink:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", START, "sh", SETTINGS.format(size=file_size)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    root = folder / "root"
    (root / "run").mkdir(parents=True)
    (root / "run/log").symlink_to(f"/proc/{process.pid}/root/run/log")
    running = LiveJournal(process, root)
    try:
        deadline = time.monotonic() + 15
        while not (_is_journald(process.pid) and running.files()):
            printed = (folder / "journald.log").read_text(errors="replace")
            if process.poll() is not None and "ermission denied" in printed:
                pytest.skip(
                    f"THE JOURNAL WAS NOT FOLLOWED LIVE: this machine does not let root mount: {printed}"
                )
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"journald did not start: {printed}")
            time.sleep(0.02)
        own = running.entries()
        running.log([b"a journal that has something in it"])
        running.said = 0
        until(lambda: running.entries() > own, "journald takes no entries")
        yield running
    finally:
        process.terminate()
        process.wait(10)


def _is_journald(pid: int) -> bool:
    """Until then /run/log is this machine's own."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "systemd-journal"
    return False
