"""What a scorer is given and what it says: a row of values in, a `Score` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.evidence import Distance, Residual, Surprise
from node_anomaly_core.reasons import Reasons
from node_anomaly_core.witnesses import Witness

LARGEST = 1e38
"""About what a float32 holds; beyond it a value is no measurement."""


STATES: tuple[str, ...] = ("missing", "imputed", "constant", "active")
"""Of a feature: never seen on this node; seen before but not now; never moved; moves."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """One tick of one node; arrays are (f,) in the bundle's feature order, NaN = unknown."""

    timestamp: float
    warm: bool
    score: float
    threshold_ratio: float  # the node's own threshold as a multiple of what training promised
    threshold_learnt: float  # share of its window that it has seen
    model_scores: Mapping[str, float]
    why: Reasons
    expected: Array
    observed: Array
    states: tuple[str, ...]
    held_back_by: tuple[Witness, ...] = ()
    """Whose agreement is missing where all of the evidence would raise an alarm."""
    outgrown: bool = False
    """Whether an alarm has ended because the threshold rose, and what it was for is still there."""

    @property
    def contributions(self) -> Array:
        """Each feature's share in the score: they sum to 1, or are NaN where nothing stands out."""
        return self.why.shares().combined

    @property
    def member_contributions(self) -> Mapping[str, Array]:
        """Each feature's share in what one member alone says: they sum to 1, or are all 0."""
        return self.why.shares().members


class Tick(NamedTuple):
    """One tick of one node on every path; None for a member that the bundle does not have."""

    residual: Residual
    surprise: Surprise | None
    distance: Distance | None


def measured(values: NDArray[np.floating]) -> Array:
    """Values (..., f) with everything that is no measurement, infinities above all, as missing."""
    row = np.asarray(values, dtype=np.float64)
    return np.where(np.abs(row) < LARGEST, row, np.nan)


def part(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The arrays whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def columns_of(rows: NDArray[np.floating], columns: Sequence[int], otherwise: float = np.nan) -> Array:
    """Pick columns (n, len(columns)) of rows (n, f); a column of -1 is filled with `otherwise`."""
    picked = np.full((len(rows), len(columns)), otherwise)
    have = [position for position, column in enumerate(columns) if column >= 0]
    picked[:, have] = rows[:, [columns[position] for position in have]]
    return picked
