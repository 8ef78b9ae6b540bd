"""Journal files with chosen entries, made by a real systemd-journal-remote."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import rig

PART = rig.Part("systemd-journal-remote", ("systemd-journal-remote",), "systemd-journal-remote")
START_US = 1_700_000_000_000_000
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu")

Entry = Mapping[str, str | bytes]


def program() -> Path:
    """Where it is; it is not meant for PATH."""
    for root in (Path("/"), Path("/usr"), rig.PARTS):
        found = root / "lib/systemd/systemd-journal-remote"
        if found.exists():
            return found
    return rig.need(PART)


def export(entries: Iterable[Entry], start_us: int = START_US, step_us: int = 1000) -> bytes:
    """Entries in journald's export format; a value with a newline has its length before it."""
    out = bytearray()
    for number, entry in enumerate(entries):
        at = start_us + number * step_us
        out += f"__REALTIME_TIMESTAMP={at}\n__MONOTONIC_TIMESTAMP={at - START_US + 10**6}\n".encode()
        out += b"_BOOT_ID=" + b"0" * 31 + b"1\n"
        for name, value in entry.items():
            raw = value if isinstance(value, bytes) else value.encode()
            if b"\n" in raw:
                out += name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw + b"\n"
            else:
                out += name.encode() + b"=" + raw + b"\n"
        out += b"\n"
    return bytes(out)


def write(file: Path, entries: Iterable[Entry], start_us: int = START_US) -> None:
    """Make a journal file, or add to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [program(), "-o", file, "-"],
        input=export(entries, start_us),
        check=True,
        capture_output=True,
        timeout=60,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """What the program finds its own libraries by."""
    folders = [str(rig.PARTS / each / sub) for each in _LIBRARIES for sub in ("", "systemd")]
    system = [f"/{each}/systemd" for each in _LIBRARIES]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join([*system, *folders])}
