"""Files of a bench: scores as CSV, everything whole under its name or not there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HIDDEN = "."
"""Names that begin so are ours: no dataset has one."""

BASELINES = ".baselines"
LABELS = ".labels"


def scores_csv(score: NDArray[np.floating]) -> bytes:
    """Scores (n,) as a column `score`, exactly; an empty cell where NaN."""
    cells = ["" if value != value else repr(value) for value in score.astype(np.float64).tolist()]  # noqa: PLR0124 - NaN alone differs from itself
    return "\n".join(["score", *cells, ""]).encode()


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
