"""The demo of compose.yaml without a container engine: its programs, with its own commands, files and names.

One view of this machine's root, copied on write, has each service's volumes where its containers have them,
and a network of its own in which the services' names are loopback. So nothing in a command line or a
configuration is changed, and only what an engine gives is missing: images, users, limits, a shared network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import booted
import rig

COMPOSE: dict[str, Any] = yaml.safe_load((rig.REPOSITORY / "compose.yaml").read_text())
STAGE = """
set -e
ip link set lo up
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
[ -z "$SHARED" ] || { mkdir -p usr/share && cp -r "$SHARED" usr/share/; }
echo "127.0.0.1 localhost $NAMES" > etc/hosts
echo "$BINDS" | while read -r source target; do
    [ -n "$source" ] || continue
    mkdir -p "$(dirname ".$target")"
    if [ -d "$source" ]; then mkdir -p ".$target"; else : > ".$target"; fi
    mount --bind "$source" ".$target"
done
echo staged
exec sleep 3600
"""


@dataclass(frozen=True)
class Demo:
    """The stage; programs are started on it by the names of their services."""

    leader: int
    folder: Path

    def inside(self, *command: str | Path) -> list[str]:
        """The command as this machine must call it, to run on the stage."""
        entered = ["nsenter", "-t", str(self.leader), "-m", "-n", f"--root=/proc/{self.leader}/root"]
        stage = self.folder / "stage" / "root"
        return [*entered, "--wd=/", "chroot", str(stage), *map(str, command)]

    @contextlib.contextmanager
    def running(self, service: str, program: Sequence[str | Path], *more: str) -> Iterator[Path]:
        """A service of the demo, with its command; `more` is what an engine would give. Its log."""
        command = [*program, *COMPOSE["services"][service]["command"], *more]
        log = self.folder / f"{service}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                self.inside(*command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        try:
            yield log
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)

    def get(self, url: str) -> str:
        """What a service answers to another one, or an empty string."""
        fetch = self.inside("curl", "--silent", "--fail", "--max-time", "5", url)
        return subprocess.run(fetch, capture_output=True, text=True, check=False, timeout=20).stdout


def binds(services: Mapping[str, Any], volumes: Path) -> str:
    """Source and target of each volume, a line each; a named one is a folder below `volumes`."""
    lines = set()
    for service in services.values():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source.startswith("./"):
                source = str(rig.REPOSITORY / source)
            elif not source.startswith("/"):
                (volumes / source).mkdir(parents=True, exist_ok=True)
                source = str(volumes / source)
            lines.add(f"{source} {target}")
    return "\n".join(sorted(lines))


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Demo]:
    """The stage; without root and the right to mount the test skips by name, with the reason in capitals."""
    if shutil.which("ip") is None:
        pytest.skip("THE DEMO WAS NOT TRIED: ip is missing: apt-get install iproute2")
    if reason := booted.why_not():
        pytest.skip(f"THE DEMO WAS NOT TRIED: {reason}")
    (folder / "stage").mkdir(parents=True)
    share = rig.PARTS / "usr" / "share" / "prometheus"
    environment = {
        "PATH": os.environ["PATH"],
        "NAMES": " ".join(COMPOSE["services"]),
        "BINDS": binds(COMPOSE["services"], folder / "volumes"),
        "SHARED": str(share) if share.exists() else "",
    }
    process = subprocess.Popen(
        ["unshare", "--mount", "--net", "sh", "-c", STAGE, "sh", str(folder / "stage")],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "staged\n", said + process.stdout.read()
        yield Demo(process.pid, folder)
    finally:
        process.kill()
        process.communicate(timeout=20)


AGENT = ("env", f"PYTHONPATH={':'.join(sys.path)}", sys.executable, "-m", "node_anomaly_agent")
"""The agent of this environment; in its image it is the entry point."""
