"""The same history under other circumstances: what detectors are compared on.

A scenario changes a history before it is split; faults are injected afterwards, so every scenario knows the
truth. Numbers are in units of each node's own robust scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.faults import inject_faults, observed_scale

MANY = 3.0  # times as many faults
DRIFT = 3.0  # scales that a level wanders at most, by the end
DRIFTING = 0.5  # share of the features that wander
NOISE = 1.0  # scales
MISSING = 0.05  # share of single values that is lost
GAPS = 0.2  # share of a node's time that is lost in whole stretches
GAP_TICKS = 40

Array = NDArray[np.float64]
Change = Callable[[History, TrainConfig, int], History]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a history is changed, and how many faults are put in."""

    words: str
    change: Change
    faults: float = 1.0
    """Times as many as configured."""


def _as_it_is(history: History, _config: TrainConfig, _seed: int) -> History:
    return history


def _contaminated(history: History, config: TrainConfig, seed: int) -> History:
    """Faults in the fitted part that nobody has labelled: models must not learn them as normal."""
    dirty, _ = inject_faults(history, config.training.faults_per_node_day, seed)
    stop = int(history.ticks * config.training.fit_fraction)
    values = np.concatenate([dirty.values[:stop], history.values[stop:]])
    return replace(history, values=values)


def _drifting(history: History, config: TrainConfig, seed: int) -> History:
    """After the fitted part, levels of half of the features wander off, and stay normal."""
    rng = np.random.default_rng([seed, 1])
    stop = int(history.ticks * config.training.fit_fraction)
    shape = history.values.shape[1:]
    distance = rng.uniform(-DRIFT, DRIFT, shape) * (rng.random(shape) < DRIFTING) * _scales(history)
    way = np.clip((np.arange(history.ticks) - stop) / max(1, history.ticks - stop), 0.0, 1.0)
    return _moved(history, way[:, None, None] * distance)


def _noisy(history: History, _config: TrainConfig, seed: int) -> History:
    """Every moving feature is noisier, and single values are lost."""
    rng = np.random.default_rng([seed, 2])
    noise = rng.standard_normal(history.values.shape) * NOISE * _scales(history)
    moved = _moved(history, noise)
    lost = rng.random(history.values.shape) < MISSING
    return replace(moved, values=np.where(lost, np.nan, moved.values))


def _with_gaps(history: History, _config: TrainConfig, seed: int) -> History:
    """Exporters do not answer for stretches of time, each node on its own."""
    rng = np.random.default_rng([seed, 3])
    values = history.values.copy()
    count = max(1, round(GAPS * history.ticks / GAP_TICKS))
    for node in range(len(history.nodes)):
        for start in rng.integers(0, history.ticks, count):
            values[start : start + GAP_TICKS, node] = np.nan
    return replace(history, values=values)


SCENARIOS: Mapping[str, Scenario] = {
    "standard": Scenario("the history as it is", _as_it_is),
    "high_anomaly": Scenario("three times the faults, unlabelled ones to learn from", _contaminated, MANY),
    "drift": Scenario("levels wander off after the fitted part", _drifting),
    "noisy": Scenario("one more scale of noise, 5 % of the values lost", _noisy),
    "gaps": Scenario("a fifth of each node's time lost", _with_gaps),
}


def _scales(history: History) -> Array:
    """Robust scale (m, f) of each node's feature; 0 where it never moves or is missing."""
    floor = np.array([feature.floor for feature in history.features])
    result = np.zeros(history.values.shape[1:])
    for node in range(len(history.nodes)):
        values = history.values[:, node]
        with np.errstate(invalid="ignore"):
            moves = np.fmax.reduce(values, axis=0) > np.fmin.reduce(values, axis=0)
        result[node] = np.where(moves, np.nan_to_num(observed_scale(values, floor)), 0.0)
    return result


def _moved(history: History, change: Array) -> History:
    """Values plus change, within what they can be: not below 0 if they never were, no ratio above 1."""
    ratio = np.array([feature.unit == "ratio" for feature in history.features])
    lowest = np.fmin.reduce(history.values, axis=(0, 1))
    highest = np.fmax.reduce(history.values, axis=(0, 1))
    low = np.where(lowest >= 0.0, 0.0, -np.inf)
    high = np.where(ratio & (highest <= 1.0), 1.0, np.inf)
    return replace(history, values=np.clip(history.values + change, low, high))
