"""Errors in logs, listened to by themselves: a few features of many, where half of all incidents show first.

The summary weighs every feature alike, so what two of sixty say is a small part of it however loud they are.
This member hears nothing but what the logs complain of, against the node's own day. It is not impressed by
how far beyond the usual they are, nor by a burst: what counts is the level that most of the last minute held,
since a stack trace of a hundred lines is one event, and a service that fails goes on failing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.features import Feature
from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.windows import ticks_in

LOG_ERRORS = "log_errors"
"""Type and name of the member."""

COMPLAINTS: tuple[str, ...] = ("log_errors_per_second", "log_errors_ratio", "log_warnings_per_second")
"""The features it hears. Not how much is logged, or what is new: deployments and nightly jobs do that too."""

MOST = 20.0
"""In usual sizes of the residual: beyond it, more errors are no more of an incident."""

LEAST_SPREAD = 1.0
"""Of its score on normal data: a fleet that hardly ever complains must not make one line deafening."""

HELD_S, HELD_TICKS = 60.0, 5
_BLOCK = BLOCKS.index("level_day")
_LOUDEST = 2

Array = NDArray[np.float64]


def complaint_columns(features: Sequence[Feature]) -> tuple[int, ...]:
    """Where the features stand that the member hears; empty where there is none of them."""
    return tuple(at for at, feature in enumerate(features) if feature.name in COMPLAINTS)


class SustainedErrors:
    """The mean of the two loudest complaints, at the level that most of the last minute held (five ticks)."""

    def __init__(self, nodes: int, columns: Sequence[int], features: int, interval_s: float) -> None:
        """Start without a past, which counts as quiet; `columns` of the `features` are heard."""
        self._columns = np.array(columns, dtype=np.intp)
        self._features = features
        self._ring = np.zeros((ticks_in(HELD_S, interval_s, HELD_TICKS), nodes, len(self._columns)))
        self._levels = np.zeros(self._ring.shape[:2])
        self._pushed = 0

    def step(self, scaled: Array) -> tuple[Array, Array]:
        """Score (m,) and shares (m, f) from one-sided residuals (m, b, f) in units of their usual size.

        The score lies in 0..MOST and is NaN where no complaint is known at this tick; shares sum to 1, or
        are 0 where nothing was complained of.
        """
        known = self.push(scaled)
        middle = (len(self._levels) - 1) // 2  # for an even number the lower of both: more than half held it
        levels = self._levels.copy()
        levels.sort(axis=0)
        score = np.where(known, levels[middle], np.nan)
        heard = np.add.reduce(self._ring, axis=0)  # what sum() calls, without its wrapper
        whole = np.add.reduce(heard, axis=-1, keepdims=True)
        share = np.zeros((len(scaled), self._features))
        share[:, self._columns] = heard / np.where(whole > 0, whole, 1.0)
        return score, share

    def push(self, scaled: Array) -> NDArray[np.bool_]:
        """Take in one tick; where anything was known (m,)."""
        values = scaled[:, _BLOCK].take(self._columns, axis=1)
        counts = np.minimum(np.add.reduce(values == values, axis=-1), _LOUDEST)  # NaN  # noqa: PLR0124
        values = np.minimum(np.fmax(values, 0.0), MOST)  # fmax: what is missing counts 0
        at = self._pushed % len(self._ring)
        self._ring[at] = values
        values.sort(axis=-1)
        self._levels[at] = np.add.reduce(values[:, -_LOUDEST:], axis=-1) / np.maximum(counts, 1)
        self._pushed += 1
        known: NDArray[np.bool_] = counts > 0
        return known
