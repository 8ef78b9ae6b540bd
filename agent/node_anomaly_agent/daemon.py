"""The loop: sample, score, publish, at deadlines that do not drift.

Signals and watchers only set flags; everything happens here, between two waits. A part that fails is
counted and logged, and the loop goes on.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.clock import Clock
from node_anomaly_agent.distribution import Distribution, no_distribution
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.logs.status import LogStatus
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.sampler import CollectorStatus, Sample
from node_anomaly_agent.scorer import AgentScorer, Candidate
from node_anomaly_agent.snapshot import BundleInfo, Counters, ReloadStatus, Snapshot
from node_anomaly_agent.state import AgentState
from node_anomaly_agent.state_keeper import StateKeeper
from node_anomaly_core.errors import BundleError
from node_anomaly_core.score import Score

TRIM_EVERY_S = 60.0

SWAP_ROOM_S = 2.0
"""A new bundle relives up to four hours of ticks when it takes over; with less time than this before the next
deadline that waits until right after the tick."""


class Sampling(Protocol):
    """What the loop needs of the sampler."""

    def sample(self, timestamp: float) -> Sample:
        """Read the host."""

    def state(self) -> Mapping[str, object]:
        """The counters' window, JSON-able."""

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take it over again; False if it is of no use."""


class Reloading(Protocol):
    """What the loop needs of the reloader."""

    def load_now(self) -> Candidate | BundleError | None:
        """The bundle on offer at the start."""

    def poll(self) -> Candidate | BundleError | None:
        """A bundle that is ready, or why one was refused."""

    def next_check(self) -> float:
        """When to poll next."""

    def request(self) -> None:
        """Look again now."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon is made of; tests put fakes in their place.

    Attributes:
        fallback: loads the starter bundle, or another one by its version.
        process: what the agent itself costs now; never raises.
        trim: gives freed memory back to the system.
        distribution: what this node has to do with its bundles besides scoring; none in most tests.
        logs: what has been counted of the logs.
    """

    sampler: Sampling
    reloader: Reloading
    fallback: Callable[[str], Candidate | None]
    clock: Clock
    log: Log
    interval_s: float
    keeper: StateKeeper
    process: Callable[[], ProcessStats]
    trim: Callable[[], None]
    distribution: Distribution | None = None
    logs: Callable[[], LogStatus] = LogStatus


class Daemon:
    """One node's agent.

    `snapshot` may be read and `request_stop` called from any thread; all else is the loop's.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._log = parts.log
        self._distribution = parts.distribution or no_distribution(parts.log)
        self._scorer: AgentScorer | None = None
        self._pending: Candidate | None = None
        self._stopping = False
        self._failing: dict[str, int] = {}
        self._deadline = math.nan
        self._next_trim = -math.inf
        self.snapshot = Snapshot(
            started=self._clock.time(), interval_s=parts.interval_s, heartbeat=self._clock.monotonic()
        )

    def request_stop(self) -> None:
        """Leave the loop at the next occasion. Safe in a signal handler."""
        self._stopping = True
        self._clock.wake()

    def start(self) -> None:
        """Load a bundle and the saved state."""
        state = self._parts.keeper.load()
        self._count_state_failures()
        found = self._parts.reloader.load_now()
        if isinstance(found, BundleError):
            self._refuse(found)
        if isinstance(found, Candidate):
            self._accept(found, reloaded=False)
        else:
            self._fall_back(state)
        if state is not None:
            self._resume(state)
        self._deadline = self._clock.monotonic()

    def run(self) -> None:
        """Tick until told to stop."""
        while not self._stopping:
            if self._clock.monotonic() >= self._deadline:
                self._count_overrun()
                self.tick()
                self._deadline += self._parts.interval_s
                self._swap_pending()
            self._trim_if_due()
            self._check_reload()
            self._parts.keeper.save_if_due(self._state)
            self._count_state_failures()
            until = min(self._deadline, self._parts.reloader.next_check(), self._parts.keeper.next_save)
            self._clock.wait(until - self._clock.monotonic())

    def stop(self) -> None:
        """Save the state a last time."""
        self._parts.keeper.finish(self._state)

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
            counters = counters.observe("sample", sampled - started)
            if self._scorer is None:
                counters = counters.add("skipped", "no_bundle")
            else:
                score = self._score(self._scorer, sample.timestamp, sample.values)
                if score is None:
                    counters = counters.add("failures", "score")
                else:
                    counters = counters.add("evaluations")
                    counters = counters.observe("score", self._clock.monotonic() - sampled)
        self._publish(counters, score, collectors)
        if sample is not None:
            self._distribution.after_tick(sample.timestamp, sample.values, score, self._scorer)

    def _publish(
        self, counters: Counters, score: Score | None, collectors: Mapping[str, CollectorStatus]
    ) -> None:
        scorer, before = self._scorer, self.snapshot
        if score is not None and score.warm and not (before.score is not None and before.score.warm):
            self._parts.keeper.save_soon()
        self.snapshot = replace(
            before,
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
        )

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
            failed = not status.success and not status.missing
            earlier = before.get(name)
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
            self._update(counters=self.snapshot.counters.add("skipped", "overrun", missed))
            self._log.warning("ticks skipped", missed=missed, late_seconds=late)

    def _check_reload(self) -> None:
        result = self._parts.reloader.poll() or self._distribution.take()
        if isinstance(result, BundleError):
            self._refuse(result)
        elif result is not None:
            self._pending = result
            if self._deadline - self._clock.monotonic() >= SWAP_ROOM_S:
                self._swap_pending()

    def _swap_pending(self) -> None:
        candidate, self._pending = self._pending, None
        if candidate is not None:
            self._accept(candidate, reloaded=True)

    def _accept(self, candidate: Candidate, *, reloaded: bool) -> None:
        known = self._scorer is not None and self._scorer.info.version == candidate.info.version
        if self._scorer is None:
            self._scorer = AgentScorer(candidate)
        elif not known:
            try:
                self._scorer.swap(candidate)
            except Exception as error:  # noqa: BLE001  # the bundle in use stays in use
                self._log.exception("bundle could not take over")
                self._refuse(BundleError("selftest", f"{candidate.info.path} cannot take over: {error!r}"))
                return
        self._distribution.accepted(self._scorer.info)
        self._parts.trim()
        if reloaded and not known:
            self._parts.keeper.save_soon()
        counters = self.snapshot.counters
        self._update(
            bundle=self._scorer.info,
            score=self._score_of(self._scorer.info),
            counters=counters.add("reloads") if reloaded else counters,
            reload=ReloadStatus(successful=True, success_timestamp=self._clock.time()),
        )
        self._log.info(
            "bundle unchanged" if known else "bundle loaded",
            version=candidate.info.version,
            origin=candidate.info.origin,
            path=candidate.info.path,
            models=",".join(name for name, _ in candidate.info.models),
            features=len(candidate.info.features),
        )

    def _score_of(self, bundle: BundleInfo) -> Score | None:
        """The last score until the next tick, unless it speaks of other features than the bundle's."""
        before = self.snapshot
        known = before.bundle is not None and before.bundle.features == bundle.features
        return before.score if known else None

    def _refuse(self, error: BundleError) -> None:
        before = self.snapshot
        self._update(
            counters=before.counters.add("reload_failures", error.reason),
            reload=replace(before.reload, successful=False, reason=error.reason, message=error.message),
        )
        kept = self._scorer.info.version if self._scorer else "none"
        self._log.error(
            "bundle refused", reason=error.reason, error=error.message, hint=error.hint, still_using=kept
        )

    def _fall_back(self, state: AgentState | None) -> None:
        """Without a usable bundle on offer: the one used before the restart, else the starter."""
        versions = ([state.bundle_version] if state is not None else []) + [""]
        for version in versions:
            try:
                candidate = self._parts.fallback(version)
            except BundleError as error:
                self._refuse(error)
                continue
            if candidate is not None:
                reload = self.snapshot.reload
                self._accept(candidate, reloaded=False)
                if reload.reason:  # what was on offer is still refused, whatever we run on instead
                    self._update(reload=reload)
                return

    def _resume(self, state: AgentState) -> None:
        age = self._clock.time() - state.saved_at
        if not self._parts.sampler.restore(state.sampler):
            self._log.warning("saved counters are of no use, rates start anew")
        why_not = "no bundle is loaded"
        if self._scorer is not None:
            why_not = self._scorer.resume(state, self._parts.interval_s, self._clock.time())
        if why_not:
            self._log.warning("saved history is of no use, warming up anew", reason=why_not, age_seconds=age)
        else:
            self._log.info("continuing from the saved state", age_seconds=age)

    def _state(self) -> AgentState | None:
        if self._scorer is None:
            return None
        return AgentState(
            saved_at=self._clock.time(),
            interval_s=self._parts.interval_s,
            bundle_version=self._scorer.info.version,
            sampler=self._parts.sampler.state(),
            scorer=self._scorer.export(),
        )

    def _count_state_failures(self) -> None:
        for operation in self._parts.keeper.take_failures():
            self._update(counters=self.snapshot.counters.add("state_failures", operation))

    def _trim_if_due(self) -> None:
        """Learning a baseline leaves as much freed memory as a reload; it happens ever more rarely."""
        now = self._clock.monotonic()
        if now >= self._next_trim:
            self._next_trim = now + TRIM_EVERY_S
            self._parts.trim()

    def _update(self, **changes: Any) -> None:
        self.snapshot = replace(self.snapshot, **changes)


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
