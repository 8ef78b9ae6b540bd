"""What a bundle makes of real, labelled incidents: the figures that `evaluation:` sets minima for.

Precision and recall count what an operator counts, alarms and incidents: precision is the share of alarms
that were raised at an incident, recall the share of incidents at which one was raised. Accuracy counts ticks:
the share that was in alarm and within an incident, or neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_trainer.bench.metrics import episodes, judge
from node_anomaly_trainer.dataset import ANOMALOUS, UNKNOWN

METRICS = ("f1_score", "accuracy", "precision", "recall")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IncidentFigures:
    """On labelled history; NaN = there is nothing that the figure could be of."""

    incidents: int
    alarms: int
    accuracy: float
    precision: float
    recall: float

    @property
    def f1_score(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        if np.isnan(self.recall):
            return float("nan")
        precision = 0.0 if np.isnan(self.precision) else self.precision
        both = precision + self.recall
        return 2.0 * precision * self.recall / both if both > 0 else 0.0

    def metric(self, name: str) -> float:
        """One of METRICS by its name."""
        return float(getattr(self, name))


def incident_figures(
    scores: Sequence[Array], labels: Sequence[NDArray[np.int8]], interval_s: float
) -> IncidentFigures | None:
    """From scores (t,) and labels (t,) of each node; None without an incident. Unknown ticks do not count."""
    events = caught = alarms = false = right = known = 0
    for score, label in zip(scores, labels, strict=True):
        if not np.isfinite(score).any():
            continue
        shown = np.where(label == UNKNOWN, np.nan, score)
        found = judge(label, shown, interval_s)
        events, caught = events + found.events, caught + found.caught
        alarms, false = alarms + found.alarms, false + found.false_alarms
        standing = np.zeros(len(label), dtype=bool)
        for first, last, _ in episodes(shown):
            standing[first : last + 1] = True
        counted = (label != UNKNOWN) & np.isfinite(score)
        right += int((standing == (label == ANOMALOUS))[counted].sum())
        known += int(counted.sum())
    if not events:
        return None
    return IncidentFigures(
        incidents=events,
        alarms=alarms,
        accuracy=right / known if known else float("nan"),
        precision=(alarms - false) / alarms if alarms else float("nan"),
        recall=caught / events,
    )
