"""How an entity is laid out for the trainer: as the history of one node, and which part of it does what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import ENOUGH_TICKS, FEWEST_TICKS
from node_anomaly_core.catalogue import Feature
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.score import measured
from node_anomaly_trainer.bench.data import Series
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import NORMAL, History
from node_anomaly_trainer.models.kmeans import whole_windows
from node_anomaly_trainer.models.lstm import VALIDATION_SHARE

FLOOR = 1e-3
"""Of every feature: nothing is known about a column but its name."""

CALIBRATION_TICKS = 240
"""Least, of what is held back: 200 scores calibrate, and windows must have filled before the first."""

CALIBRATION_SHARE = 0.4
"""Of a train part of which this is less: one below 600 ticks (docs/adr/0033)."""

LEAST_TRAIN_TICKS = 50
"""Of which two fifths are the fewest that a calibration can do with."""

FEW_TICKS = 2 * CALIBRATION_TICKS
"""Below, too few faults would be injected to teach anybody."""

WINDOWS_PER_CENTROID = 3

LSTM, KMEANS, FOREST = "lstm", "kmeans", "random_forest"

_LONGEST_NAME = 80


def features_of(columns: Sequence[str]) -> tuple[Feature, ...]:
    """One feature per column, named after it as far as a name can be."""
    names: list[str] = []
    for number, column in enumerate(columns):
        name = re.sub(r"[^A-Za-z0-9_]+", "_", column)[:_LONGEST_NAME] or "column"
        while name in names:
            name = f"{name}_{number}"
        names.append(name)
    return tuple(
        Feature(
            name=name,
            unit="count",
            help=f"Column {number} of the series.",
            group="custom",
            kind="gauge",
            direction="both",
            floor=FLOOR,
            expression=None,
        )
        for number, name in enumerate(names)
    )


def values_of(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rows (n, f) as a node would measure them: what is not finite, or no number for float32, is missing."""
    return measured(rows)


def history_of(series: Series, rows: NDArray[np.floating], labels: NDArray[np.int8] | None = None) -> History:
    """Rows (t, f) from the start of the series as the history of one node; all normal without labels (t,)."""
    if labels is None:
        labels = np.full(len(rows), NORMAL, dtype=np.int8)
    return History(
        features=features_of(series.columns),
        interval_s=series.interval_s,
        nodes=(series.entry.name,),
        timestamps=series.start_s + series.interval_s * np.arange(len(rows), dtype=np.float64),
        values=values_of(rows)[:, None],
        labels=labels[:, None],
        origin={"source": "bench"},
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """How one entity is trained."""

    config: TrainConfig
    least_scores: int
    """That each member needs on the part that calibrates."""
    notes: tuple[str, ...]
    """What is not as configured, in words."""


def planned(
    config: TrainConfig, train: NDArray[np.floating], interval_s: float, *, lent: bool = False
) -> Plan:
    """The plan for a train part (t, f); `lent` says that other servers lend their labels.

    What is held back is never less than calibration needs, and a member is left out where the part that is
    fitted holds nothing to teach it. Raises TrainingError for fewer than LEAST_TRAIN_TICKS with a value.
    """
    ticks, seen = len(train), np.isfinite(train).any(axis=1)
    if seen.sum() < LEAST_TRAIN_TICKS:
        had = f"{ticks} ticks" if seen.all() else f"{seen.sum()} ticks with a value"
        raise TrainingError(
            f"its train part has {had}, {LEAST_TRAIN_TICKS} are needed", "give it a longer train part"
        )
    notes = []
    calibrating, held_back = (
        min(CALIBRATION_TICKS, round(CALIBRATION_SHARE * count)) for count in (int(seen.sum()), ticks)
    )
    # A tick without a value calibrates nothing: where a gap took too many, the part begins before it.
    held_back = max(held_back, ticks - int(np.flatnonzero(seen)[-calibrating]))
    share = min(config.training.fit_fraction, 1.0 - held_back / ticks)
    if share < config.training.fit_fraction:
        notes.append(f"fitted on {share:.0%} of train, so that enough calibrates")
        config = replace(config, training=replace(config.training, fit_fraction=share))
    fitted = int(share * ticks)
    if (known := int(seen[:fitted].sum())) < FEWEST_TICKS:
        raise TrainingError(
            f"the part of train that is fitted has {known} ticks with a value, {FEWEST_TICKS} are needed",
            "give it a longer train part",
        )
    if int(fitted * VALIDATION_SHARE) <= config.models.lstm.sequence_length:
        config = _without(config, LSTM, "the LSTM, which needs more ticks", notes)
    if ticks < FEW_TICKS and not lent:
        config = _without(config, FOREST, "the Random Forest, for which too few faults fit in", notes)
    centroids = len(whole_windows(seen[:fitted, None], interval_s)) // WINDOWS_PER_CENTROID
    if centroids < 2:
        config = _without(config, KMEANS, "k-means, whose windows do not fit in", notes)
    elif KMEANS in config.models.enabled and centroids < config.models.kmeans.centroids:
        notes.append("k-means with fewer centroids, as there are fewer windows")
        fewer = replace(config.models.kmeans, centroids=centroids)
        config = replace(config, models=replace(config.models, kmeans=fewer))
    least = max(FEWEST_TICKS, min(ENOUGH_TICKS, calibrating * ENOUGH_TICKS // CALIBRATION_TICKS))
    return Plan(config, least, tuple(notes))


def _without(config: TrainConfig, name: str, why: str, notes: list[str]) -> TrainConfig:
    """The configuration without a member, unless it is the only one."""
    kept = tuple(one for one in config.models.enabled if one != name)
    if not kept or len(kept) == len(config.models.enabled):
        return config
    notes.append(f"without {why}")
    return replace(config, models=replace(config.models, enabled=kept))
