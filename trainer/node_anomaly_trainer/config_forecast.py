"""The settings of the forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from node_anomaly_core.forecast_entry import MAX_HORIZONS
from node_anomaly_trainer.settings import Bounds, InvalidValueError


@dataclass(frozen=True, slots=True)
class ForecastConfig:
    """How far ahead the LSTM is asked, and whether nodes may show what it says."""

    enabled: bool = True
    horizons: tuple[Annotated[float, Bounds(1.0, 86_400.0, duration=True)], ...] = (300.0, 900.0, 3600.0)

    def __post_init__(self) -> None:
        if not 1 <= len(self.horizons) <= MAX_HORIZONS or list(self.horizons) != sorted(set(self.horizons)):
            raise InvalidValueError(
                f"horizons: expected 1 to {MAX_HORIZONS} durations that rise, such as [5m, 1h]"
            )
