"""How an entity is laid out for the trainer: as the history of one node, and which part of it does what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.catalogue import Feature
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.bench.data import Series
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import NORMAL, History
from node_anomaly_trainer.models.lstm import VALIDATION_SHARE

FLOOR = 1e-3
"""Of every feature: nothing is known about a column but its name."""

CALIBRATION_TICKS = 240
"""Least, of what is held back: 200 scores calibrate, and windows must have filled before the first."""

LEAST_TRAIN_TICKS = 2 * CALIBRATION_TICKS
LSTM = "lstm"

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
    """Rows (n, f) as a node would measure them: what is not finite is missing."""
    values = rows.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


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


def planned(config: TrainConfig, ticks: int) -> tuple[TrainConfig, tuple[str, ...]]:
    """The configuration for a train part of so many ticks, and what is not as configured, in words.

    What is held back is never less than calibration needs, and the forecaster is left out where the part that
    stops its training does not hold one sequence. Raises TrainingError for fewer than LEAST_TRAIN_TICKS.
    """
    if ticks < LEAST_TRAIN_TICKS:
        raise TrainingError(
            f"its train part has {ticks} ticks, {LEAST_TRAIN_TICKS} are needed", "give it a longer train part"
        )
    notes = []
    share = min(config.training.fit_fraction, 1.0 - CALIBRATION_TICKS / ticks)
    if share < config.training.fit_fraction:
        notes.append(f"fitted on {share:.0%} of train, so that {CALIBRATION_TICKS} ticks calibrate")
        config = replace(config, training=replace(config.training, fit_fraction=share))
    enabled = config.models.enabled
    short = int(share * ticks * VALIDATION_SHARE) <= config.models.lstm.sequence_length
    if LSTM in enabled and len(enabled) > 1 and short:
        notes.append("without the LSTM, which needs more ticks")
        kept = tuple(name for name in enabled if name != LSTM)
        config = replace(config, models=replace(config.models, enabled=kept))
    return config, tuple(notes)
