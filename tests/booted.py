"""A booted systemd to install units into: systemd-nspawn on a copy-on-write view of this machine's root.

It needs root and the right to mount, which a locked-down CI may not give. Nothing of this machine is changed,
and what is installed inside ends with it: the upper layer is a tmpfs in a mount namespace of its own.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import rig

NSPAWN = rig.Part("systemd-nspawn", ("systemd-nspawn",), "systemd-container")
SYSTEMD = Path("/lib/systemd/systemd")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""A login's there. Ours may begin with an active environment, whose programs would be taken for those."""

BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
echo uninitialized > "$1/root/etc/machine-id"
rm -rf "$1/root/var/lib/node-anomaly" "$1/root/etc/node-anomaly"
shift
exec "$@"
"""


@dataclass(frozen=True)
class Booted:
    """The running system; commands are run inside it as root."""

    leader: int
    root: Path

    def run(self, *command: str | Path, check: bool = True, seconds: float = 60.0) -> str:
        """What the command prints on both outputs; with `check` it must succeed."""
        inside = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "--"]
        done = subprocess.run(
            [*inside, *(str(part) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            cwd="/",
            env=os.environ | {"PATH": PATH},
        )
        if check and done.returncode:
            pytest.fail(f"{shlex.join(str(part) for part in command)} gave {done.returncode}:\n{done.stdout}")
        return done.stdout

    def show(self, unit: str, *properties: str) -> list[str]:
        """Properties of a unit, in the order asked for."""
        shown = self.run("systemctl", "show", unit, "--property", ",".join(properties))
        values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return [values.get(name, "") for name in properties]

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        """A file inside."""
        quoted = shlex.quote(path)
        script = f"mkdir -p $(dirname {quoted}) && printf %s {shlex.quote(content)} > {quoted}"
        self.run("sh", "-c", f"{script} && chmod {mode:o} {quoted}")

    def until(self, what: str, *command: str | Path, holds: str, seconds: float = 20.0) -> str:
        """Repeat a command until it prints `holds`; what it printed then."""
        deadline = time.monotonic() + seconds
        printed = ""
        while time.monotonic() < deadline:
            printed = self.run(*command, check=False)
            if holds in printed:
                return printed
            time.sleep(0.2)
        journal = self.run("journalctl", "--no-pager", "-n", "40", check=False)
        pytest.fail(f"{what} was not seen within {seconds:.0f} s; last:\n{printed}\njournal:\n{journal}")


def why_not() -> str:
    """Why no systemd can be booted here, or an empty string."""
    if os.geteuid() != 0:
        return "only root may boot a systemd"
    if not SYSTEMD.exists():
        return "this machine has no systemd to boot: apt-get install systemd"
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "unshare and nsenter are missing: apt-get install util-linux"
    tried = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False, timeout=20)
    return f"this machine does not let root mount: {done.stderr.strip()}" if done.returncode else ""


@contextlib.contextmanager
def booted_systemd(folder: Path) -> Iterator[Booted]:
    """Boots in about two seconds.

    Where root may not mount, the test skips by name, with the reason in capitals: what a machine does not
    allow is no fault of the units.
    """
    program = rig.need(NSPAWN)
    if reason := why_not():
        pytest.skip(f"THE UNITS WERE NOT TRIED under a booted systemd: {reason}")
    place = folder / "machine"
    place.mkdir(parents=True)
    console = folder / "console.log"
    binds = {rig.REPOSITORY: "/opt/src", sys.prefix: "/opt/venv", sys.base_prefix: "/opt/python"}
    machine: list[str | Path] = [
        *(program, "--boot", "--quiet", "--register=no", "--keep-unit", "--private-network"),
        *("--link-journal=no", f"--directory={place / 'root'}", "--machine=node-anomaly-test"),
        "--system-call-filter=adjtimex clock_adjtime",  # as on a host; without a capability it only reads
        *(f"--bind-ro={source}:{target}" for source, target in binds.items()),
        *("--", "systemd.unit=sockets.target", "systemd.show_status=no", "systemd.log_target=journal"),
    ]
    with console.open("wb") as sink:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", BOOT, "sh", str(place), *(str(part) for part in machine)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    leader = 0
    try:
        leader = _leader(process, console)
        yield Booted(leader, place / "root")
    finally:
        with contextlib.suppress(ProcessLookupError):
            if leader:  # a machine whose nspawn was killed has been seen to live on
                os.kill(leader, signal.SIGKILL)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _leader(process: subprocess.Popen[bytes], console: Path) -> int:
    """The pid of the machine's init, once it takes commands."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children:
                system = Booted(int(children[0]), Path("/"))
                if system.run("systemctl", "is-active", "sockets.target", check=False).strip() == "active":
                    return system.leader
        time.sleep(0.1)
    pytest.fail(f"systemd did not boot; the console has:\n{console.read_text(errors='replace')[-4000:]}")
