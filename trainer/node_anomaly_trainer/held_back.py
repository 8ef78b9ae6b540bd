"""What a bundle raised on held-back normal data: on which node, when, for how long, and what was odd there.

Whoever is told that there were too many false alarms can look whether nothing was wrong there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import WEEK
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.evaluate import raised, standing
from node_anomaly_trainer.labels import runs

MOST_ALARMS = 100
MOST_ODD = 3

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NodeAlarms:
    """One node's held-back normal data."""

    node: str
    alarms: int
    weeks: float
    """In which it had a score."""


@dataclass(frozen=True, slots=True)
class HeldBackAlarm:
    """One alarm. `at` in unix seconds; `features` are those furthest from what is usual on that node."""

    node: str
    at: float
    seconds: float
    peak: float
    features: tuple[str, ...]


def by_node(nodes: Sequence[str], scores: Sequence[Array], interval_s: float) -> tuple[NodeAlarms, ...]:
    """Of each node with a score, most alarms first; `scores` (t,) are NaN where the node was not normal."""
    found = [
        NodeAlarms(node, len(raised(score)), float(np.isfinite(score).sum()) * interval_s / WEEK)
        for node, score in zip(nodes, scores, strict=True)
        if np.isfinite(score).any()
    ]
    return tuple(sorted(found, key=lambda one: (-one.alarms, one.node)))


def held_back_alarms(
    history: History, scores: Sequence[Array], compressed: NDArray[np.float32]
) -> tuple[HeldBackAlarm, ...]:
    """The MOST_ALARMS highest, in time order.

    `history` and `compressed` (t, m, f) are those of the part that `scores` (t,), one for each node, are of.
    """
    found = []
    for at, (node, score) in enumerate(zip(history.nodes, scores, strict=True)):
        begins = raised(score)
        for start, stop in runs(standing(score)):
            if not ((begins >= start) & (begins < stop)).any():
                continue  # it goes on from one that was counted
            worst = start + int(np.nanargmax(score[start:stop]))
            found.append(
                HeldBackAlarm(
                    node=node,
                    at=float(history.timestamps[start]),
                    seconds=(stop - start) * history.interval_s,
                    peak=float(score[worst]),
                    features=_odd(compressed[worst, at], history.feature_names),
                )
            )
    found.sort(key=lambda one: -one.peak)
    return tuple(sorted(found[:MOST_ALARMS], key=lambda one: (one.at, one.node)))


def _odd(values: NDArray[np.float32], names: Sequence[str]) -> tuple[str, ...]:
    away = np.nan_to_num(np.abs(values))
    order = np.argsort(-away, kind="stable")[:MOST_ODD]
    return tuple(names[at] for at in order if away[at] > 0)
