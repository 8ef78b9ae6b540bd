"""One feature, where its numbers come from, and the query that gives them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Aggregate, Expression, Gauge, Match
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import PrometheusConfig

RATE_WINDOW_INTERVALS = 4
"""The window of every rate, in intervals: the same on the node and in PromQL."""

AGENT_METRIC = "anomaly_feature_value"
AGENT, EXPORTER = AGENT_METRIC, "node_exporter"
"""The two origins of a feature: what agents saw, or what its PromQL gives over node_exporter's metrics."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A feature to be read from `source`; `expression` is what both routes evaluate."""

    feature: Feature
    source: str
    expression: Expression

    def query(self, window_s: int, matchers: str) -> str:
        """The PromQL that yields one series per instance."""
        return self.expression.promql(f"{window_s}s", matchers)


def from_agents(feature: Feature) -> Wanted:
    """The feature as agents expose it (max, so that two scrapes of one agent are no contradiction)."""
    seen = Gauge(AGENT_METRIC, "", (Match("feature", "=", feature.name),))
    return Wanted(feature, AGENT, Aggregate("max", seen))


def from_exporter(feature: Feature) -> Wanted:
    """The feature computed from node_exporter's metrics; its expression must be known."""
    if feature.expression is None:
        raise ValueError(f"no PromQL is known for {feature.name}")
    return Wanted(feature, EXPORTER, feature.expression)


@dataclass(frozen=True, slots=True)
class Span:
    """Ticks of a grid: `ticks` instants, `step` seconds apart, the first at unix second `start`."""

    start: int
    step: int
    ticks: int

    @property
    def end(self) -> int:
        """The last instant."""
        return self.start + (self.ticks - 1) * self.step

    @property
    def window_s(self) -> int:
        """The window of rates on this grid."""
        return RATE_WINDOW_INTERVALS * self.step

    @property
    def milliseconds(self) -> NDArray[np.int64]:
        """All instants (t,) in unix milliseconds."""
        return 1000 * (self.start + self.step * np.arange(self.ticks, dtype=np.int64))

    def part(self, first: int, stop: int) -> Span:
        """The ticks `first` <= i < `stop`."""
        return Span(self.start + first * self.step, self.step, stop - first)


def whole_span(config: PrometheusConfig, interval_s: float, now: float | None = None) -> Span:
    """The range that the configuration asks for, on ticks that are whole multiples of the interval.

    `now` is this moment by the server's clock. Raises SourceError for parts of a second.
    """
    step = round(interval_s)
    if step != interval_s:
        raise SourceError(
            f"an interval of {interval_s:g} s cannot be read from Prometheus", "use whole seconds"
        )
    latest = config.end if config.end is not None else time.time() if now is None else now
    end = int(latest // step * step)
    ticks = max(int(config.range // step), 1)
    return Span(end - (ticks - 1) * step, step, ticks)


def iso(timestamp: float) -> str:
    """The unix second as text in UTC."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
