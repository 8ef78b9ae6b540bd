"""The loop: sample, score, publish, at deadlines that do not drift.

Signals and watchers only set flags; everything happens here, between two waits. A part that fails is
counted and logged, and the loop goes on.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from contextlib import ExitStack
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.board import Board
from node_anomaly_agent.bundle_use import BundleUse
from node_anomaly_agent.degradation import DegradationStatus
from node_anomaly_agent.distribution import no_distribution
from node_anomaly_agent.forecast import Outlook
from node_anomaly_agent.loop_parts import Parts, Reloading
from node_anomaly_agent.loop_question import LoopQuestion
from node_anomaly_agent.sampler import CollectorStatus, Sample
from node_anomaly_agent.score_history import ScoreRecorder
from node_anomaly_agent.scorer import AgentScorer, Fork
from node_anomaly_agent.selftest import SelfTest
from node_anomaly_agent.snapshot import Counters, Snapshot
from node_anomaly_agent.state import AgentState
from node_anomaly_core.score import Score

TRIM_EVERY_S = 60.0


class Daemon:
    """One node's agent.

    `snapshot` and `ticking` may be read, `fork` asked and `request_stop` called from any thread; all else
    is the loop's.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._log = parts.log
        self._distribution = parts.distribution or no_distribution(parts.log)
        self._stopping = False
        self._failing: dict[str, int] = {}
        self._deadline = math.nan
        self._next_trim = -math.inf
        self._board = Board(
            Snapshot(
                started=self._clock.time(), interval_s=parts.interval_s, heartbeat=self._clock.monotonic()
            )
        )
        self.ticking = False
        self.fork = LoopQuestion(self._fork, self._clock.wake, parts.log)
        self._history = ScoreRecorder(parts.interval_s)
        self._selftest = SelfTest(parts.log)
        self._outlook = Outlook(parts.log)
        self._bundles = BundleUse(parts, self._distribution, self._board)

    @property
    def snapshot(self) -> Snapshot:
        """What was published last."""
        return self._board.snapshot

    def request_stop(self) -> None:
        """Leave the loop at the next occasion. Safe in a signal handler."""
        self._stopping = True
        self._clock.wake()

    def start(self) -> None:
        """Load a bundle and the saved state."""
        state = self._parts.keeper.load()
        self._count_state_failures()
        self._bundles.start("" if state is None else state.bundle_version)
        if state is not None:
            self._resume(state)
        if self._parts.episodes is not None:
            self._parts.episodes.start(self._clock.time())
        self._deadline = self._clock.monotonic()

    def run(self) -> None:
        """Tick until told to stop."""
        while not self._stopping:
            if self._clock.monotonic() >= self._deadline:
                self._count_overrun()
                self.ticking = True
                self.tick()
                self.ticking = False
                self._deadline += self._parts.interval_s
                self._bundles.swap_pending()
            self._trim_if_due()
            self._bundles.check(self._deadline)
            self._parts.tell(self.snapshot, self._bundles.waiting)
            self.fork.answer()
            self._parts.keeper.save_if_due(self._state)
            self._count_state_failures()
            until = min(self._deadline, self._parts.reloader.next_check(), self._parts.keeper.next_save)
            self._clock.wait(until - self._clock.monotonic())

    def stop(self) -> None:
        """Save the state a last time."""
        self._parts.keeper.finish(self._state)
        if self._parts.episodes is not None:
            self._parts.episodes.stop()

    def tick(self) -> None:
        """One evaluation, published whatever came of it."""
        started = self._clock.monotonic()
        counters = self.snapshot.counters
        score: Score | None = None
        collectors = self.snapshot.collectors
        timestamp = self._clock.time()
        sample = self._sample(timestamp)
        if sample is None:
            counters = counters.add("failures", "sample")
        else:
            self._log_collectors(collectors, sample.collectors)
            collectors = sample.collectors
            sampled = self._clock.monotonic()
            scorer = self._bundles.scorer
            if scorer is not None:
                score = self._score(scorer, sample.timestamp, sample.values)
            if score is not None:
                counters = counters.evaluated(sampled - started, self._clock.monotonic() - sampled)
            else:
                counters = counters.observe("sample", sampled - started)
                what = ("skipped", "no_bundle") if scorer is None else ("failures", "score")
                counters = counters.add(*what)
        self._publish(counters, score, collectors)
        self._board.show("forecast", self._outlook.tick(self._clock.monotonic(), score, self._bundles.scorer))
        if self._parts.episodes is not None:
            self._board.show("episodes", self._parts.episodes.tick(timestamp, self.snapshot))
        self._selftest.tick(self._clock.monotonic(), self._clock.time(), score, self._bundles.scorer)
        if sample is not None:
            self._distribution.after_tick(sample.timestamp, sample.values, score, self._bundles.scorer)

    def _publish(
        self, counters: Counters, score: Score | None, collectors: Mapping[str, CollectorStatus]
    ) -> None:
        scorer, before = self._bundles.scorer, self.snapshot
        if score is not None and score.warm and not (before.score is not None and before.score.warm):
            self._parts.keeper.save_soon()
        self._board.update(
            heartbeat=self._clock.monotonic(),
            counters=counters,
            # A score that could not be renewed is not shown: it would pass for the present one.
            score=score,
            timestamp=before.timestamp if score is None else score.timestamp,
            warmup_ticks=0 if scorer is None else scorer.warmup_ticks,
            warmup_done=0 if scorer is None else scorer.warmup_done,
            collectors=collectors,
            process=self._parts.process(),
            distribution=self._distribution.status(),
            logs=self._parts.logs(),
            web=self._parts.web(),
            degradation=self._degradation(),
            suppressed={} if scorer is None else scorer.suppressed(),
            selftest=self._selftest.status,
            history=self._history.record(self._clock.time(), score),
        )

    def _degradation(self) -> DegradationStatus:
        """How far the score is from what the bundle means, and what the next tick may ask of it."""
        scorer, budget = self._bundles.scorer, self._parts.budget
        status = DegradationStatus() if scorer is None else scorer.degradation()
        if scorer is None or budget is None:
            return status
        exceeded = budget.tick(self._clock.monotonic(), self.snapshot.process)
        scorer.afford(everything=not exceeded)
        return DegradationStatus(status.level, status.failures, exceeded)

    def _sample(self, timestamp: float) -> Sample | None:
        try:
            sample = self._parts.sampler.sample(timestamp)
        except Exception:  # noqa: BLE001  # a failing part is a metric, not an outage
            self._failed("sample")
            return None
        self._recovered("sample")
        return sample

    def _log_collectors(
        self, before: Mapping[str, CollectorStatus], now: Mapping[str, CollectorStatus]
    ) -> None:
        """Log a collector that begins or ceases to fail; what the host simply lacks is no news."""
        for name, status in now.items():
            earlier = before.get(name)
            if status.success and earlier is not None and earlier.success:
                continue
            failed = not status.success and not status.missing
            if failed and (earlier is None or earlier.success or earlier.missing):
                self._log.warning("collector failed", collector=name, error=status.error)
            elif status.success and earlier is not None and not earlier.success:
                self._log.info("collector works", collector=name)

    def _score(self, scorer: AgentScorer, timestamp: float, values: NDArray[np.float64]) -> Score | None:
        try:
            score = scorer.step(timestamp, values)
        except Exception:  # noqa: BLE001  # a failing part is a metric, not an outage
            self._failed("score")
            return None
        self._recovered("score")
        return score

    def _failed(self, phase: str) -> None:
        """Log the first of a row of failures with its traceback; the metric counts them all."""
        self._failing[phase] = self._failing.get(phase, 0) + 1
        if self._failing[phase] == 1:
            self._log.exception("evaluation failed", phase=phase)

    def _recovered(self, phase: str) -> None:
        failures = self._failing.pop(phase, 0)
        if failures:
            self._log.info("evaluation works again", phase=phase, failed=failures)

    def _count_overrun(self) -> None:
        """Ticks that have passed unnoticed are skipped, never made up for in a burst."""
        late = self._clock.monotonic() - self._deadline
        missed = int(late // self._parts.interval_s)
        if missed:
            self._deadline += missed * self._parts.interval_s
            self._board.count("skipped", "overrun", missed)
            self._log.warning("ticks skipped", missed=missed, late_seconds=late)

    def _resume(self, state: AgentState) -> None:
        age = self._clock.time() - state.saved_at
        if not self._parts.sampler.restore(state.sampler):
            self._log.warning("saved counters are of no use, rates start anew")
        self._history.restore(state.history)
        why_not = "no bundle is loaded"
        if self._bundles.scorer is not None:
            why_not = self._bundles.scorer.resume(state, self._parts.interval_s, self._clock.time())
        if why_not:
            self._log.warning("saved history is of no use, warming up anew", reason=why_not, age_seconds=age)
        else:
            self._log.info("continuing from the saved state", age_seconds=age)

    def _fork(self) -> Fork | None:
        scorer = self._bundles.scorer
        return None if scorer is None else scorer.fork()

    def _state(self) -> AgentState | None:
        scorer = self._bundles.scorer
        if scorer is None:
            return None
        return AgentState(
            saved_at=self._clock.time(),
            interval_s=self._parts.interval_s,
            bundle_version=scorer.info.version,
            sampler=self._parts.sampler.state(),
            scorer=scorer.export(),
            history=self._history.export(),
        )

    def _count_state_failures(self) -> None:
        for operation in self._parts.keeper.take_failures():
            self._board.count("state_failures", operation)

    def _trim_if_due(self) -> None:
        """Learning a baseline leaves as much freed memory as a reload; it happens ever more rarely."""
        now = self._clock.monotonic()
        if now >= self._next_trim:
            self._next_trim = now + TRIM_EVERY_S
            self._parts.trim()


def handle_signals(daemon: Daemon, reloader: Reloading) -> ExitStack:
    """Route SIGTERM and SIGINT to a stop and SIGHUP to a reload, until the stack is closed."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        daemon.request_stop()

    def reload(_signal: int, _frame: FrameType | None) -> None:
        reloader.request()

    stack = ExitStack()
    for number, handler in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        stack.callback(signal.signal, number, signal.signal(number, handler))
    return stack
