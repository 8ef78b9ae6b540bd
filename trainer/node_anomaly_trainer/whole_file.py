"""A file that others read appears whole under its name or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

ABANDONED_S = 600.0
"""A half-written file this old belongs to a run that was killed."""


def write_whole(path: Path, content: bytes) -> None:
    """The file with this content under its name, or as it was before; its directory is made.

    Survives a kill at any moment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    for left in path.parent.glob(f".{path.name}.*"):  # of a run that was killed, not of one beside us
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            left.unlink(missing_ok=True)
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        # Whoever writes one file that names another relies on the order, after a power cut too.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        beside.unlink(missing_ok=True)
