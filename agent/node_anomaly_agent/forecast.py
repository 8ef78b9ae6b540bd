"""When the agent looks ahead: every five minutes, after a tick.

The forecaster lives through its recent past and is rolled out, which costs as much as a tick or less. Where
the bundle's forecast has no skill there is no forecaster, and nothing is shown.
"""

from __future__ import annotations

import math

from node_anomaly_agent.forecast_status import ForecastStatus
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.scorer import AgentScorer
from node_anomaly_core.forecast import EVERY_S
from node_anomaly_core.score import Score


class Outlook:
    """Decides when to look ahead, and keeps what was seen. The loop's thread alone."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = -math.inf
        self._of = ""
        self._failing = False
        self.status = ForecastStatus()

    def tick(self, monotonic: float, score: Score | None, scorer: AgentScorer | None) -> ForecastStatus:
        """After a tick at `monotonic`. Never raises."""
        if scorer is None or score is None or not score.warm:
            self.status = ForecastStatus(None, self.status.failures)
            return self.status
        if scorer.info.version != self._of:  # what other models foresaw is not what these do
            self._of, self._next = scorer.info.version, -math.inf
        if monotonic < self._next:
            return self.status
        self._next = monotonic + EVERY_S
        try:
            self.status = ForecastStatus(scorer.look_ahead(), self.status.failures)
            self._failing = False
        except Exception:  # noqa: BLE001  # a failing part is a metric, not an outage
            self.status = ForecastStatus(None, self.status.failures + 1)
            if not self._failing:
                self._log.exception("no forecast could be made")
            self._failing = True
        return self.status
