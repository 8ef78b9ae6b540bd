"""A candidate bundle scored beside the one in use, on the same ticks, without a say.

It starts from the history of the bundle in use, so it is warm at once. It has budgets of its own, because
the node's come first: where it costs more CPU or memory than they allow it is put away, and the metrics say
why. It is stepped after the tick's own score has been published.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.distribution_status import ShadowStatus
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.scorer import AgentScorer, Candidate
from node_anomaly_core.errors import BundleError
from node_anomaly_core.score import Score

CPU_SHARE = 0.001
"""Of one core, at any interval: 15 ms of a tick every 15 s."""

RESIDENT_LIMIT = 96 << 20
"""Bytes that the whole agent may have resident with a candidate in memory."""

COSTS_JUDGED = 20


class Arriving(Protocol):
    """What is needed of a reloader."""

    def poll(self) -> Candidate | BundleError | None:
        """A candidate that is ready, or why one was refused."""

    def stop(self) -> None:
        """Look for no other."""


class Shadow:
    """The candidate and its record. Belongs to the loop's thread.

    Args:
        reloader: where candidates come from.
        interval_s: the tick, which the CPU budget is a share of.
        resident: bytes that the process has resident now.
        log: told of candidates that come and go.
        cpu_clock: CPU seconds of this thread.
    """

    def __init__(
        self,
        reloader: Arriving,
        interval_s: float,
        resident: Callable[[], float],
        log: Log,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.status = ShadowStatus()
        self._reloader = reloader
        self._limit_s = CPU_SHARE * interval_s
        self._resident = resident
        self._log = log
        self._cpu_clock = cpu_clock
        self._candidate: Candidate | None = None
        self._costs: deque[float] = deque(maxlen=COSTS_JUDGED)
        self._away = ""  # why the candidate was put away

    def tick(
        self, timestamp: float, values: NDArray[np.float64], score: Score | None, active: AgentScorer | None
    ) -> None:
        """Take in a candidate that has arrived, or score one tick with the one there is. Never raises."""
        try:
            arrived = self._reloader.poll()
            if arrived is not None and active is not None:
                self._take(arrived, active)
            elif self._candidate is not None:
                self._step(self._candidate, timestamp, values, score)
            elif self._away:
                self._skip(self._away)
        except Exception:  # noqa: BLE001  # what is only tried must not disturb what is in use
            self._log.exception("shadow bundle failed")
            self._put_away("failed", "it raised an error")

    def stop(self) -> None:
        """Look for no other candidate: its directory is watched, and looked at, on threads."""
        self._reloader.stop()

    def _take(self, arrived: Candidate | BundleError, active: AgentScorer) -> None:
        self._costs.clear()
        if isinstance(arrived, BundleError):
            self._log.warning("shadow bundle refused", reason=arrived.reason, error=arrived.message)
            self._put_away("refused", arrived.message)
            return
        active.introduce(arrived)
        self._away = ""
        self._candidate = arrived
        self.status = ShadowStatus(arrived.info.version)
        resident = self._resident()
        if resident > RESIDENT_LIMIT:
            self._put_away("memory", f"with it the agent has {resident / 2**20:.0f} MiB resident")
            return
        self._log.info("shadow bundle scored beside", version=arrived.info.version)

    def _step(
        self, candidate: Candidate, timestamp: float, values: NDArray[np.float64], score: Score | None
    ) -> None:
        started = self._cpu_clock()
        shadow = candidate.scorer.step(timestamp, values[candidate.columns])
        cost = self._cpu_clock() - started
        self._costs.append(cost)
        self.status = replace(
            self.status,
            cpu_s=self.status.cpu_s + cost,
            score=shadow.score if shadow.warm else math.nan,
        )
        if score is None or not score.warm or not shadow.warm:
            self._skip("cold")
        else:
            mine, its = score.score >= 1.0, shadow.score >= 1.0
            kind = "both" if mine and its else "active_only" if mine else "shadow_only" if its else "neither"
            agreement = {**self.status.agreement, kind: self.status.agreement[kind] + 1}
            self.status = replace(self.status, agreement=agreement)
        usual = statistics.median(self._costs)
        if len(self._costs) == COSTS_JUDGED and usual > self._limit_s:
            self._put_away("cpu", f"it takes {usual * 1e3:.1f} ms a tick of {self._limit_s * 1e3:.1f} ms")

    def _skip(self, reason: str) -> None:
        self.status = replace(
            self.status, skipped={**self.status.skipped, reason: self.status.skipped[reason] + 1}
        )

    def _put_away(self, reason: str, message: str) -> None:
        self._candidate, self._away = None, reason
        self.status = replace(self.status, score=math.nan, message=message)
        self._skip(reason)
        self._log.warning("shadow bundle put away", reason=reason, error=message, version=self.status.version)
