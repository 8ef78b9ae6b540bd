"""Fetches bundles into the watched directory, on a thread of its own that no tick ever waits for.

One look: ask the source, decide by the ledger and the rollout whether the bundle is for this node,
download, verify, put it under its name, switch `current`. The reloader takes it from there as it would any
other. Looks are spread at random over the fleet; after a failure they become rarer, and never more frequent
than the server asks for.
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from node_anomaly_agent.bundle_depot import Depot
from node_anomaly_agent.distribution_status import FetchStatus
from node_anomaly_agent.fetch_errors import FetchError
from node_anomaly_agent.fetch_http import Client
from node_anomaly_agent.fetch_sources import Announcement, Source
from node_anomaly_agent.ledger import Ledger, check
from node_anomaly_agent.log_setup import Log
from node_anomaly_core.bundle import Bundle
from node_anomaly_core.channel import Channel, in_rollout
from node_anomaly_core.errors import BundleError

SPREAD = 0.25
"""Each wait is the interval, give or take this share of it: the fleet never falls into step."""

MOST_BACKOFF = 16.0
FIRST_LOOK_S = 10.0
"""The first look comes at a random moment within this time, or within one interval if that is shorter."""


class Fetcher:
    """One source, one directory. `status` may be read from any thread.

    Args:
        label: `bundle` or `shadow`.
        source: where bundles are offered.
        client: what downloads them.
        depot: where they go.
        ledger: what this node remembers, or None for a candidate that is only tried: it replaces nothing.
        node: this node's name, for the rollout.
        interval_s: mean time between looks.
        log: told of what is new, and once of each row of failures.
        now: unix seconds.
    """

    def __init__(
        self,
        label: str,
        source: Source,
        client: Client,
        depot: Depot,
        ledger: Ledger | None,
        node: str,
        *,
        interval_s: float,
        log: Log,
        now: Callable[[], float],
    ) -> None:
        self.status = FetchStatus(label)
        self._source = source
        self._client = client
        self._depot = depot
        self._ledger = ledger
        self._node = node
        self._interval_s = interval_s
        self._log = log
        self._now = now
        self._stop = threading.Event()
        self._random = random.Random()  # noqa: S311  # it spreads requests, it guards nothing
        self._failures = 0
        self._retry_after_s = 0.0
        self._last_reason = ""

    def start(self) -> None:
        """Begin to look, soon."""
        threading.Thread(target=self._run, name=f"{self.status.source}-fetcher", daemon=True).start()

    def stop(self) -> None:
        """Do not look again. A look that still runs ends with the process: it leaves nothing half done."""
        self._stop.set()

    def look(self) -> str:
        """One look. Returns the result, one of FETCH_RESULTS; never raises."""
        try:
            result = self._look()
        except FetchError as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(
                FetchError("disk", f"{self._depot.root}: {error.strerror or error}", "check it")
            )
        except Exception as error:  # noqa: BLE001  # no server may end this thread, whatever it provokes
            self._log.exception("fetching failed unexpectedly", source=self._source.name)
            return self._failed(FetchError("internal", f"fetching failed: {error!r}", "report this"))
        if self._failures:
            self._log.info("bundles are fetched again", source=self._source.name, failed=self._failures)
        self._failures, self._retry_after_s, self._last_reason = 0, 0.0, ""
        self.status = self.status.succeeded(result, self._now())
        return result

    def next_wait(self) -> float:
        """Seconds until the next look."""
        wait = self._interval_s * min(2.0**self._failures, MOST_BACKOFF)
        spread = wait * self._random.uniform(1.0 - SPREAD, 1.0 + SPREAD)
        # what a server asks for is spread upwards only, or the whole fleet comes back in the same second
        return max(spread, self._retry_after_s * self._random.uniform(1.0, 1.0 + SPREAD))

    def _run(self) -> None:
        wait = self._random.uniform(0.0, min(FIRST_LOOK_S, self._interval_s))
        while not self._stop.wait(wait):
            self.look()
            wait = self.next_wait()

    def _failed(self, error: FetchError) -> str:
        self._failures += 1
        self._retry_after_s = error.retry_after_s
        if (
            error.reason != self._last_reason
        ):  # a server that is down for a week is one line, not two thousand
            self._last_reason = error.reason
            self._log.warning("bundle not fetched", reason=error.reason, error=error.message, hint=error.hint)
        self.status = self.status.failed(error.reason, error.message)
        return "failed"

    def _look(self) -> str:
        found = self._source.look()
        if found is None:
            return "not_modified"
        result = self._decide(found)
        self._source.done()
        return result

    def _decide(self, found: Announcement) -> str:
        offer = found.channel
        if self._ledger is None:
            return self._bring(found, lambda _bundle: None)
        memory = self._ledger.read()
        seen = memory.sequences.get(self._source.name, 0)
        if found.ordered and offer.sequence < seen:
            raise FetchError(
                "replay",
                f"{self._source.name} offers document {offer.sequence} after {seen}",
                "a cache may be stale; if not, somebody serves an old document",
            )
        if self._depot.current() == offer.version:
            self._ledger.reached(self._source.name, offer.sequence)
            return "current"
        if offer.version in memory.left:
            return "held"
        if (
            memory.allowed and seen == offer.sequence
        ):  # what an operator activated here outlives this document
            return "held"
        if not in_rollout(self._node, offer):
            return "not_in_rollout"
        if not offer.rollback:
            self._refuse_older(offer)
        result = self._bring(found, lambda bundle: self._before_switch(bundle, offer))
        self._ledger.reached(self._source.name, offer.sequence)
        return result

    def _refuse_older(self, offer: Channel) -> None:
        """Also without keys: a channel has a word for going back, so an older bundle is a mistake."""
        if self._ledger is not None:
            try:
                check(self._ledger.read(), offer.version, offer.trained_at, signed=True)
            except BundleError as error:
                raise FetchError("replay", error.message, error.hint) from error

    def _before_switch(self, bundle: Bundle, offer: Channel) -> None:
        if self._ledger is not None and offer.rollback:
            self._ledger.allow(bundle.version)
            self._log.warning("rollback asked for by the channel", version=bundle.version)

    def _bring(self, found: Announcement, before_switch: Callable[[Bundle], None]) -> str:
        offer = found.channel
        if self._depot.current() == offer.version and self._ledger is None:
            return "current"
        bundle = self._depot.has(offer.version)
        if bundle is None:
            bundle, staging = self._download(found)
            if bundle.version != offer.version or bundle.manifest.trained_at != offer.trained_at:
                shutil.rmtree(staging, ignore_errors=True)
                raise FetchError("bundle", f"the archive holds bundle {bundle.version}, not {offer.version}")
            self._depot.adopt(staging, bundle.version)
        before_switch(bundle)
        in_use = () if self._ledger is None else self._ledger.read().history[-2:]
        self._depot.switch(bundle.version, in_use)
        self._log.info("bundle fetched", version=bundle.version, source=self._source.name)
        return "fetched"

    def _download(self, found: Announcement) -> tuple[Bundle, Path]:
        offer = found.channel
        partial = self._depot.partial(offer.archive_sha256)
        self._client.download(found.archive_url, partial, offer.archive_size)
        return self._depot.take(partial, offer.archive_sha256)
