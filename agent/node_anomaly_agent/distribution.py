"""Bundles between their publisher and the scorer: what is fetched, admitted, tried beside, and left again.

The loop calls `accepted` for a bundle that it put to use, `after_tick`, `take` for one to go back to, and
`status`. Everything slow happens on other threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.distribution_status import DistributionStatus, FetchStatus, ShadowStatus
from node_anomaly_agent.ledger import Ledger, check
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.promise import Promise, Verdict
from node_anomaly_agent.scorer import AgentScorer, Candidate
from node_anomaly_agent.snapshot import BundleInfo
from node_anomaly_agent.threads import NO_THREAD, NO_THREAD_HINT, started
from node_anomaly_core.bundle import Bundle
from node_anomaly_core.errors import BundleError
from node_anomaly_core.score import Score
from node_anomaly_core.threshold import raised_on_noise


class Fetching(Protocol):
    """What is needed of a fetcher."""

    status: FetchStatus

    def start(self) -> None:
        """Begin to look."""

    def stop(self) -> None:
        """Look no more."""


class Trying(Protocol):
    """What is needed of a shadow."""

    status: ShadowStatus

    def tick(
        self, timestamp: float, values: NDArray[np.float64], score: Score | None, active: AgentScorer | None
    ) -> None:
        """Score one tick beside."""

    def stop(self) -> None:
        """Look for no other candidate."""


class Distribution:
    """All that this node has to do with its bundles but scoring by them. The loop's thread, but for `admit`.

    Args:
        ledger: what this node remembers.
        load: a version of the watched directory, verified; None if it is not there; raises BundleError.
        log: told of each decision.
        now: unix seconds.
        wake: ends the loop's wait.
        signed: whether keys are configured.
        allowed: a version that the configuration lets come back.
        auto_rollback: whether a bundle that breaks its promise is left.
        fetchers: what brings bundles here.
        shadow: what tries a candidate, if anything does.
    """

    def __init__(
        self,
        ledger: Ledger,
        load: Callable[[str], Candidate | None],
        log: Log,
        now: Callable[[], float],
        wake: Callable[[], None],
        *,
        signed: bool = False,
        allowed: str = "",
        auto_rollback: bool = True,
        fetchers: Sequence[Fetching] = (),
        shadow: Trying | None = None,
    ) -> None:
        self._ledger = ledger
        self._load = load
        self._log = log
        self._now = now
        self._wake = wake
        self._signed = signed
        self._allowed = allowed
        self._auto_rollback = auto_rollback
        self._fetchers = tuple(fetchers)
        self._shadow = shadow
        self._promise: Promise | None = None
        self._info: BundleInfo | None = None
        self._rollbacks = DistributionStatus().rollbacks
        self._worker: threading.Thread | None = None
        self._back: Candidate | BundleError | None = None
        self._judged = ""  # the version that is to be gone back from

    def start(self) -> None:
        """Begin to fetch."""
        for fetcher in self._fetchers:
            fetcher.start()

    def stop(self) -> None:
        """Fetch no more, and try no other candidate."""
        for fetcher in self._fetchers:
            fetcher.stop()
        if self._shadow is not None:
            self._shadow.stop()

    def admit(self, bundle: Bundle) -> None:
        """Whether a verified bundle may be used here. Any thread. Raises BundleError."""
        check(
            self._ledger.read(),
            bundle.version,
            bundle.manifest.trained_at,
            signed=self._signed,
            allowed=self._allowed,
        )

    def accepted(self, info: BundleInfo) -> None:
        """A bundle is in use from now on."""
        if info.origin == "starter":  # older than anything trained, and nothing to go back from
            self._info = self._promise = None
            return
        memory = self._ledger.accepted(info.version, info.trained_at, self._now())
        if self._info is None or self._info.version != info.version:
            self._info = info
            self._promise = Promise(raised_on_noise(info.budget_per_week), memory.since)

    def after_tick(
        self,
        timestamp: float,
        values: NDArray[np.float64],
        score: Score | None,
        scorer: AgentScorer | None,
    ) -> None:
        """What follows from a tick whose score has been published: watch the promise, try the candidate."""
        if self._promise is not None and self._auto_rollback:
            value = score.score if score is not None and score.warm else math.nan
            verdict = self._promise.tick(timestamp, value)
            if verdict is not None:
                self._go_back(verdict)
        if self._shadow is not None:
            self._shadow.tick(timestamp, values, score, scorer)

    def take(self) -> Candidate | None:
        """The version to go back to, once it is ready."""
        back, self._back = self._back, None
        if back is None:
            return None
        self._worker = None
        if isinstance(back, BundleError):
            self._count("no_previous" if back.reason == "missing" else "failed")
            self._log.error("cannot go back", reason=back.reason, error=back.message, hint=back.hint)
            return None
        if self._info is None or self._info.version != self._judged:
            return None  # another one was put to use meanwhile, and nothing is known against that
        self._ledger.leave(self._info.version, back.info.version)
        self._count("done")
        self._log.error("bundle left", version=self._info.version, back_to=back.info.version)
        return back

    def status(self) -> DistributionStatus:
        """What there is to show."""
        return DistributionStatus(
            fetches=tuple(fetcher.status for fetcher in self._fetchers),
            shadow=None if self._shadow is None else self._shadow.status,
            rollbacks=self._rollbacks,
        )

    def _go_back(self, verdict: Verdict) -> None:
        if self._info is None or self._worker is not None:
            return
        self._log.error(
            "bundle breaks its promise",
            version=self._info.version,
            alarms=verdict.alarms,
            expected=verdict.expected,
            hours=verdict.hours,
        )
        self._promise = None  # it is judged once
        self._judged = self._info.version
        memory = self._ledger.read()
        earlier = [one for one in memory.history if one not in (self._info.version, *memory.left)]
        worker = threading.Thread(
            target=self._find_back, args=(tuple(reversed(earlier)),), name="bundle-rollback", daemon=True
        )
        if started(worker):
            self._worker = worker
        else:
            self._back = BundleError("io", f"{NO_THREAD} to verify an earlier bundle", NO_THREAD_HINT)

    def _find_back(self, versions: Sequence[str]) -> None:
        error = BundleError(
            "missing", "no earlier bundle is left on this node", "publish one that keeps its promise"
        )
        found: Candidate | None = None
        for version in versions:
            try:
                found = self._load(version)
            except BundleError as refused:
                error = refused
                continue
            except Exception as unexpected:  # noqa: BLE001  # a thread that ends in silence would be waited for
                error = BundleError("model", f"bundle {version} made its verification fail: {unexpected!r}")
                continue
            if found is not None:
                break
        self._back = error if found is None else found
        self._wake()

    def _count(self, result: str) -> None:
        self._rollbacks = {**self._rollbacks, result: self._rollbacks[result] + 1}


def no_distribution(log: Log) -> Distribution:
    """For a loop that only scores: nothing is fetched, remembered or tried."""
    return Distribution(
        Ledger(None), lambda _version: None, log, lambda: 0.0, lambda: None, auto_rollback=False
    )
