"""Files of a bench: scores as CSV, everything whole under its name or not there."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError

HIDDEN = "."
"""Names that begin so are ours: no dataset has one."""

BASELINES = ".baselines"
LABELS = ".labels"
SCORE_BYTES = 25  # as text, with the end of its line
RECORD_BYTES = 65_536


def scores_csv(score: NDArray[np.floating]) -> bytes:
    """Scores (n,) as a column `score`, exactly; `nan` where nothing is known.

    An empty cell would be an empty line, and readers of CSV leave those out: a row fewer.
    """
    cells = [repr(value) for value in score.astype(np.float64).tolist()]
    return "\n".join(["score", *cells, ""]).encode()


def require_room(out: Path, content: int) -> None:
    """Raises TrainingError where so many bytes and a record do not fit in: better now than in the end."""
    needed = RECORD_BYTES + content
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if free < needed:
        little, much = apart(free, needed)
        raise TrainingError(
            f"{out}: {little} are free, what is to be written takes up to {much}",
            "free space, and run the same command again",
        )


def apart(less: int, more: int) -> tuple[str, str]:
    """Two numbers of bytes in words, in the largest unit in which they differ and the first is 1 or more."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        shown = f"{less / size:.1f} {unit}", f"{more / size:.1f} {unit}"
        if (less or more) >= size and shown[0] != shown[1]:
            return shown
    return f"{less} bytes", f"{more} bytes"


def sha256(content: bytes) -> str:
    """The digest in hex."""
    return hashlib.sha256(content).hexdigest()


def scores_path(out: Path, dataset: str, entity: str, detector: str = "") -> Path:
    """Where a detector's scores of an entity are; ours without a detector's name."""
    root = out / BASELINES / detector if detector else out
    return root / dataset / f"{entity}.csv"


def record_path(out: Path, dataset: str, entity: str) -> Path:
    """Where the record of an entity is."""
    return out / dataset / f"{entity}.json"
