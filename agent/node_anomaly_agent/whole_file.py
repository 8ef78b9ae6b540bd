"""A file that others read appears whole under its name or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path


def write_whole(path: Path, content: bytes | Sequence[bytes | memoryview], mode: int) -> None:
    """The file with this content (or its parts) and mode under its name, or as it was before.

    Its directory is made.

    Written beside its target, fsynced and renamed: survives a kill at any moment. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, staging = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
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
