"""A file that others read appears whole under its name or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PART = ".part"
ABANDONED_S = 600.0
"""A half-written file this old belongs to a process that was killed."""


def write_whole(path: Path, content: bytes | Sequence[bytes | memoryview], mode: int) -> None:
    """The file with this content (or its parts) and mode under its name, or as it was before.

    Its directory is made.

    Written beside its target, fsynced and renamed: survives a kill at any moment. What a kill left behind is
    taken away ten minutes later. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    descriptor, staging = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PART, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(staging).chmod(mode)
        Path(staging).replace(path)
    except BaseException:
        Path(staging).unlink(missing_ok=True)
        raise


def _remove_abandoned(folder: Path) -> None:
    """Of any name: an episode that was being written when the process was killed is not written again."""
    for left in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                left.unlink()
