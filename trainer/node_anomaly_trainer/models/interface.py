"""What a member of the score must be able to do, and what it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Report = Callable[[float, str], None]
"""`report(done, note)`: share done in 0..1 and a few words on what is being done now."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One fit's data, cut from the early part of the history; s summary numbers, f features."""

    summary: NDArray[np.float32]
    """(n, s) summaries of normal history."""
    normalised: NDArray[np.float32]
    """(n, s) the same, each number normalised online by its own slow mean and scale."""
    fault_summary: NDArray[np.float32]
    """(k, s) summaries of history with known incidents or injected faults."""
    fault_normalised: NDArray[np.float32]
    """(k, s) the same, normalised online."""
    fault_labels: NDArray[np.int8]
    """(k,) 1 anomalous, 0 normal, -1 unknown."""
    compressed: NDArray[np.float32]
    """(t, m, f) scaled and compressed values of m nodes; where `mask` is False they mean nothing."""
    mask: NDArray[np.bool_]
    """(t, m, f) True where the value was observed and the node was normal."""
    interval_s: float = 60.0
    """Seconds from one tick of `compressed` to the next."""
    real: bool = False
    """Whether the labelled rows are real incidents and nothing else."""

    @classmethod
    def of_rows(
        cls, rows: NDArray[np.floating], labels: NDArray[np.integer] | None = None, interval_s: float = 60.0
    ) -> TrainingSet:
        """For a forest alone: rows (n, s), all of them normal or as `labels` (n,) say."""
        known = np.zeros(len(rows), np.int8) if labels is None else np.asarray(labels, np.int8)
        table = np.asarray(rows, np.float32)
        normal = table[known == 0]
        return cls(
            normal, normal, table, table, known, table[:, None], np.isfinite(table)[:, None], interval_s
        )

    @classmethod
    def of_ticks(cls, ticks: NDArray[np.floating], interval_s: float = 60.0) -> TrainingSet:
        """For the forecaster or k-means alone: scaled values (t, m, f) of m normal nodes, NaN = missing."""
        values = np.asarray(ticks, np.float32)
        none = np.empty((0, values.shape[-1]), np.float32)
        return cls(none, none, none, none, np.empty(0, np.int8), values, np.isfinite(values), interval_s)


class Model(Protocol):
    """A member of the score: fitted here, exported as plain data, scored by core."""

    name: str
    """Of the member, in the manifest and in `anomaly_model_score{model}`."""
    type: str
    """Which loader of core reads the exported file."""
    input: str
    """What core feeds it: one of manifest's MODEL_INPUTS."""
    filename: str
    """Of the exported file in the bundle."""

    def fit(self, data: TrainingSet, seed: int, report: Report) -> None:
        """Train; the same data and seed give the same model. Raises TrainingError if it cannot."""

    def export(self) -> bytes:
        """Return the bundle's file."""

    def reference_score(self, rows: NDArray[np.floating]) -> NDArray[np.floating]:
        """Compute with the fitted library model what core must compute from the export.

        Forests: rows (n, s) -> scores (n,). LSTM: ticks from a fresh start (t, m, f) -> forecasts of the
        tick after each (t, m, f). k-means: complete windows (n, POSITIONS, f) -> scores (n,).
        """
