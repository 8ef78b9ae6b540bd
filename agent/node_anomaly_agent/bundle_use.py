"""Which bundle the loop scores by: the first one, one that takes over from it, and one that is refused."""

from __future__ import annotations

from dataclasses import replace

from node_anomaly_agent.board import Board
from node_anomaly_agent.distribution import Distribution
from node_anomaly_agent.loop_parts import Parts
from node_anomaly_agent.scorer import AgentScorer, Candidate
from node_anomaly_agent.snapshot import BundleInfo, ReloadStatus
from node_anomaly_core.errors import BundleError
from node_anomaly_core.score import Score

SWAP_ROOM_S = 2.0
"""A new bundle relives up to four hours of ticks when it takes over; with less time than this before the next
deadline that waits until right after the tick."""


class BundleUse:
    """The bundle in use. The loop's thread alone.

    `scorer` is None as long as there is no usable bundle at all.
    """

    def __init__(self, parts: Parts, distribution: Distribution, board: Board) -> None:
        self.scorer: AgentScorer | None = None
        self._parts = parts
        self._clock = parts.clock
        self._log = parts.log
        self._distribution = distribution
        self._board = board
        self._pending: Candidate | None = None

    def start(self, version_before: str) -> None:
        """Load the bundle on offer; without a usable one, that of before the restart, else the starter.

        `version_before` is the version that a saved state speaks of, or an empty string.
        """
        found = self._parts.reloader.load_now()
        if isinstance(found, BundleError):
            self._refuse(found)
        if isinstance(found, Candidate):
            self._accept(found, reloaded=False)
        else:
            # What the directory holds besides is not asked for where it could not even be looked at.
            unread = isinstance(found, BundleError) and found.reason == "io"
            self._fall_back("" if unread else version_before)

    @property
    def waiting(self) -> bool:
        """Whether a new bundle is ready and waits for the tick that is due."""
        return self._pending is not None

    def check(self, deadline: float) -> None:
        """Take what the reloader has, if anything; at once if there is room before the next `deadline`."""
        result = self._parts.reloader.poll()
        if result is None and self._pending is None:  # what waits is newer than what one would go back to
            result = self._distribution.take()
        if isinstance(result, BundleError) and result.reason == "missing" and self._on_starter():
            self._log.info("no bundle yet", error=result.message, hint=result.hint, still_using="the starter")
        elif isinstance(result, BundleError):
            self._refuse(result)
        elif result is not None:
            self._pending = result
            if deadline - self._clock.monotonic() >= SWAP_ROOM_S:
                self.swap_pending()

    def _on_starter(self) -> bool:
        """Whether nothing was ever on offer here: nobody has taken anything away."""
        return self.scorer is not None and self.scorer.info.origin == "starter"

    def swap_pending(self) -> None:
        """Put to use what waits for it: right after a tick there is room."""
        candidate, self._pending = self._pending, None
        if candidate is not None:
            self._accept(candidate, reloaded=True)

    def _accept(self, candidate: Candidate, *, reloaded: bool) -> None:
        known = self.scorer is not None and self.scorer.info.version == candidate.info.version
        if self.scorer is None:
            self.scorer = AgentScorer(candidate, self._parts.suppression)
        elif not known:
            try:
                self.scorer.swap(candidate)
            except Exception as error:  # noqa: BLE001  # the bundle in use stays in use
                self._log.exception("bundle could not take over")
                self._refuse(BundleError("selftest", f"{candidate.info.path} cannot take over: {error!r}"))
                return
        self._distribution.accepted(self.scorer.info)
        self._parts.trim()
        if reloaded and not known:
            self._parts.keeper.save_soon()
        counters = self._board.snapshot.counters
        self._board.update(
            bundle=self.scorer.info,
            score=self._score_of(self.scorer.info),
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
        before = self._board.snapshot
        known = before.bundle is not None and before.bundle.features == bundle.features
        return before.score if known else None

    def _refuse(self, error: BundleError) -> None:
        before = self._board.snapshot
        self._board.update(
            counters=before.counters.add("reload_failures", error.reason),
            reload=replace(before.reload, successful=False, reason=error.reason, message=error.message),
        )
        kept = self.scorer.info.version if self.scorer else "none"
        self._log.error(
            "bundle refused", reason=error.reason, error=error.message, hint=error.hint, still_using=kept
        )

    def _fall_back(self, version_before: str) -> None:
        for version in dict.fromkeys((version_before, "")):
            try:
                candidate = self._parts.fallback(version)
            except BundleError as error:
                self._refuse(error)
                continue
            if candidate is not None:
                reload = self._board.snapshot.reload
                self._accept(candidate, reloaded=False)
                if reload.reason:  # what was on offer is still refused, whatever we run on instead
                    self._board.update(reload=reload)
                return
