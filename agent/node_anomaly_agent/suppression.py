"""Deviations that an operator does not want to count: too small, or in the wrong direction.

The score sees the expected value in their place. What is exposed stays as it was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.config_suppressors import Suppressor
from node_anomaly_agent.families import Family, counter

Array = NDArray[np.float64]


class Suppression:
    """The suppressors of all features (f,), in the agent's own order.

    A name wins over patterns, the first pattern over later ones.
    """

    def __init__(self, suppressors: Sequence[Suppressor], features: Sequence[str]) -> None:
        exact = {one.pattern: one for one in suppressors}
        chosen = [
            exact.get(name) or next((one for one in suppressors if fnmatchcase(name, one.pattern)), None)
            for name in features
        ]
        every = [one or Suppressor("") for one in chosen]
        self._names = tuple(features)
        self._up = np.array([one.direction != "down" for one in every], dtype=bool)
        self._down = np.array([one.direction != "up" for one in every], dtype=bool)
        self._absolute = np.array([one.min_absolute for one in every])
        self._relative = np.array([one.min_relative for one in every])
        self._configured = np.array([one is not None for one in chosen], dtype=bool)
        self._counts = np.zeros(len(features), dtype=np.int64)

    @property
    def active(self) -> bool:
        """Whether any feature has one."""
        return bool(self._configured.any())

    def apply(self, values: Array, expected: Array) -> Array:
        """Values (f,) for the score: those expected (f,) where the deviation does not count.

        NaN, and a value whose expectation is NaN, stay as they are.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            deviation = values - expected
            needed = np.maximum(self._absolute, self._relative * np.abs(expected))
            counts = np.where(deviation > 0, self._up, self._down) & (np.abs(deviation) >= needed)
            # Not known is not suppressed; nor is what is just as expected.
            ignored = self._configured & np.isfinite(deviation) & (deviation != 0) & ~counts
        self._counts += ignored
        return np.where(ignored, expected, values)

    def counts(self) -> Mapping[str, int]:
        """How many values were replaced so far, by each feature that has a suppressor."""
        return {self._names[at]: int(self._counts[at]) for at in np.flatnonzero(self._configured)}


def suppression_families(counts: Mapping[str, int]) -> Iterator[Family]:
    """The metric."""
    yield counter(
        "anomaly_agent_suppressed",
        "Values scored as expected because their deviation was too small or in the wrong direction.",
        counts.items(),
        "feature",
    )
