"""Several detectors at the same number of false alarms: only then does recall compare them.

One rule for all thresholds does not do: what is asked for and what is realised differ from detector to
detector, by a factor of two on a few node-days.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import WEEK, held
from node_anomaly_trainer.evaluate import raised

HALVINGS = 24
NEARLY = (
    0.8  # of the alarms that are wanted; a detector that gives fewer at any level sets the number for all
)

Array = NDArray[np.float64]


def equalised(
    clean: Mapping[str, Array], faulted: Mapping[str, Array], normal: NDArray[np.bool_], alarms: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Scores (t, m) of each detector, scaled so that 1.0 raises about as many alarms on normal ticks for all.

    `normal` (t, m) says which ticks of `clean` are judged; `alarms` is how many are wanted in all. Where a
    detector cannot raise that many, as it seldom holds any level for long, all are held to its number.
    """
    judged = {name: np.where(normal, scores, np.nan) for name, scores in clean.items()}
    found = {name: level_for(scores, alarms) for name, scores in judged.items()}
    fewest = min(count for _, count in found.values())
    if 0 < fewest < NEARLY * alarms:
        found = {name: level_for(scores, fewest) for name, scores in judged.items()}
    return (
        {name: scores / found[name][0] for name, scores in clean.items()},
        {name: scores / found[name][0] for name, scores in faulted.items()},
    )


def alarms_in(per_week: float, normal: NDArray[np.bool_], interval_s: float) -> int:
    """False alarms on these ticks (t, m) at so many per node-week; one at least."""
    return max(1, round(per_week * float(normal.sum()) * interval_s / WEEK))


def level_for(scores: Array, alarms: int) -> tuple[float, int]:
    """The lowest level that raises at most `alarms` alarms in scores (t, m), and how many that is.

    1.0 stays where no level above 0 does, and where nothing is known.
    """
    levels = np.concatenate([held(column) for column in scores.T])
    levels = np.sort(levels[np.isfinite(levels) & (levels > 0)])
    if not len(levels):
        return 1.0, 0
    # Far down nearly everything is one long episode: only the upper half is looked at.
    low, high = len(levels) // 2, len(levels) - 1
    best = float(levels[high]) * (1 + 1e-9), 0
    for _ in range(HALVINGS):
        if low > high:
            break
        middle = (low + high) // 2
        count = alarms_at(scores, float(levels[middle]))
        if count > alarms:
            low = middle + 1
        else:
            high = middle - 1
            best = float(levels[middle]), count
    return best


def alarms_at(scores: Array, level: float) -> int:
    """How many alarms scores (t, m) raise at a level above 0."""
    return sum(len(raised(column / level)) for column in scores.T)
