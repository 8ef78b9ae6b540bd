"""One tick of looking at the host: run the collectors, time each, compute the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.collectors import Collector, CollectorMissing
from node_anomaly_core.errors import AnomalyError
from node_anomaly_core.expressions import Reading
from node_anomaly_core.features import MAX_SERIES, Feature, FeatureEvaluator

__all__ = ["Collector", "CollectorStatus", "Sample", "Sampler"]


class CollectorStatus(NamedTuple):
    """How a collector did in this tick.

    `error` is "" when it succeeded, else one line that says why not; `missing` tells a host that lacks the
    thing (no PSI, no thermal zone) from a collector that failed.
    """

    success: bool
    duration_s: float
    error: str
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """The features of one tick: values (f,) in the features' order and units, NaN where missing."""

    timestamp: float
    values: NDArray[np.float64]
    collectors: Mapping[str, CollectorStatus]


@runtime_checkable
class Keeping(Protocol):
    """A collector that must go on where it was after a restart."""

    def state(self) -> Mapping[str, object]:
        """Plain JSON values."""

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take it over again; False if it is of no use."""


class Sampler:
    """Turns collectors into samples; `sample` never raises for anything the host does."""

    def __init__(self, collectors: Sequence[Collector], features: Sequence[Feature], window_s: float) -> None:
        self._collectors = tuple(collectors)
        self._keeping = {one.name: one for one in collectors if isinstance(one, Keeping)}
        self._evaluator = FeatureEvaluator(features, window_s)

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features, in the order of `Sample.values`."""
        return self._evaluator.features

    def sample(self, timestamp: float) -> Sample:
        """Read every collector once; a failing one only takes its own features with it.

        `timestamp` is the tick's wall-clock time in seconds.
        """
        reading: Reading = {}
        parts: dict[str, Reading] = {}
        statuses: dict[str, CollectorStatus] = {}
        started = perf_counter()
        for collector in self._collectors:
            error, missing = "", False
            try:
                parts[collector.name] = part = collector.read()
                reading.update(part)
            except CollectorMissing as absent:
                error, missing = absent.message, True
            except AnomalyError as failure:
                error = failure.message
            except Exception as failure:  # noqa: BLE001 -- a tick survives whatever one collector does
                error = f"{type(failure).__name__}: {failure}"
            ended = perf_counter()
            statuses[collector.name] = CollectorStatus(not error, ended - started, error, missing)
            started = ended
        values = self._evaluator.update(timestamp, reading)
        if self._evaluator.refused:
            statuses |= self._too_many(parts, statuses)
        return Sample(timestamp, values, statuses)

    def _too_many(
        self, parts: Mapping[str, Reading], statuses: Mapping[str, CollectorStatus]
    ) -> dict[str, CollectorStatus]:
        """Of collectors whose metrics were left out, so that a feature is not missing without a word."""
        failed = {}
        for name, part in parts.items():
            refused = sorted({metric for metric, _ in part} & self._evaluator.refused)
            if refused:
                told = f"{', '.join(refused)}: too many series, {MAX_SERIES} in all can be evaluated"
                failed[name] = statuses[name]._replace(success=False, error=told)
        return failed

    def state(self) -> dict[str, object]:
        """The counter window, and the places collectors have read to, for a process that goes on from it."""
        kept = {name: one.state() for name, one in self._keeping.items()}
        return {**self._evaluator.state(), "collectors": kept}

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from a saved state; False, and the counter window starts anew, if it does not fit this one.

        Collectors go on from their own places either way: what was read is not read again.
        """
        kept = state.get("collectors")
        for name, one in self._keeping.items():
            saved = kept.get(name) if isinstance(kept, Mapping) else None
            if isinstance(saved, Mapping):
                one.restore(saved)
        return self._evaluator.restore(state)

    def close(self) -> None:
        """Close the collectors' files."""
        for collector in self._collectors:
            collector.close()
