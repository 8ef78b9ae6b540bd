"""What is known of fetching, of a candidate and of going back: counters that only grow, and their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from node_anomaly_agent.families import Family, counter, gauge, plain_counter, plain_gauge
from node_anomaly_agent.fetch_errors import FETCH_REASONS

FETCH_SOURCES: tuple[str, ...] = ("bundle", "shadow")
"""What is fetched: the bundle to use, and the candidate to try beside it."""

FETCH_RESULTS: tuple[str, ...] = (
    "fetched",  # a new bundle is in the watched directory
    "not_modified",  # nothing new
    "current",  # a new document, but the bundle is here already
    "not_in_rollout",  # a new bundle, but not for this node yet
    "held",  # a new bundle, but this node has left it, or was told to stay with another
    "failed",
)
"""Every value of the `result` label of anomaly_agent_bundle_fetches_total."""


@dataclass(frozen=True, slots=True)
class FetchStatus:
    """One fetcher's life so far; `source` is `bundle` or `shadow`. Times are unix seconds."""

    source: str
    results: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(FETCH_RESULTS, 0))
    failures: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(FETCH_REASONS, 0))
    success_timestamp: float = math.nan
    message: str = ""

    def succeeded(self, result: str, now: float) -> FetchStatus:
        """After a look that ended well."""
        results = {**self.results, result: self.results[result] + 1}
        return replace(self, results=results, success_timestamp=now, message="")

    def failed(self, reason: str, message: str) -> FetchStatus:
        """After a look that did not."""
        return replace(
            self,
            results={**self.results, "failed": self.results["failed"] + 1},
            failures={**self.failures, reason: self.failures[reason] + 1},
            message=message,
        )


AGREEMENTS: tuple[str, ...] = ("both", "active_only", "shadow_only", "neither")
SHADOW_SKIP_REASONS: tuple[str, ...] = ("cpu", "memory", "failed", "refused", "cold")
"""Why a tick was not compared: over one of the budgets, an error, no usable candidate, or not warm yet."""


@dataclass(frozen=True, slots=True)
class ShadowStatus:
    """What is known of the candidate."""

    version: str = ""
    score: float = math.nan
    agreement: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(AGREEMENTS, 0))
    skipped: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(SHADOW_SKIP_REASONS, 0))
    cpu_s: float = 0.0
    message: str = ""


ROLLBACK_RESULTS: tuple[str, ...] = ("done", "no_previous", "failed")
"""What came of a broken promise: the version before is in use again, or there is none, or it is refused."""


@dataclass(frozen=True, slots=True)
class DistributionStatus:
    """All of it; `shadow` is None where no candidate is configured."""

    fetches: tuple[FetchStatus, ...] = ()
    shadow: ShadowStatus | None = None
    rollbacks: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ROLLBACK_RESULTS, 0))


def distribution_families(status: DistributionStatus) -> Iterator[Family]:
    """The metrics of all of it."""
    yield from fetch_families(status.fetches)
    yield from shadow_families(status.shadow)
    yield counter(
        "anomaly_agent_bundle_rollbacks",
        "Times that the bundle in use broke its promise, by what came of it.",
        status.rollbacks.items(),
        "result",
    )


def fetch_families(statuses: tuple[FetchStatus, ...]) -> Iterator[Family]:
    """The metrics of all fetchers."""
    if not statuses:
        return
    results = Family(
        "anomaly_agent_bundle_fetches",
        "counter",
        "Looks at the URL that bundles come from, by what came of it.",
    )
    failures = Family(
        "anomaly_agent_bundle_fetch_failures",
        "counter",
        "Looks that failed, by reason; the bundle in use stays.",
    )
    for status in statuses:
        for family, label, counts in (
            (results, "result", status.results),
            (failures, "reason", status.failures),
        ):
            for text, count in counts.items():
                family.add(count, (("source", status.source), (label, text)), "_total")
    yield results
    yield failures
    yield gauge(
        "anomaly_agent_bundle_fetch_last_success_timestamp_seconds",
        "When the URL last answered as it should.",
        ((status.source, status.success_timestamp) for status in statuses),
        "source",
    )


def shadow_families(status: ShadowStatus | None) -> Iterator[Family]:
    """The metrics of a candidate; none where none is configured."""
    if status is None:
        return
    if status.version:
        info = Family("anomaly_shadow_info", "gauge", "The candidate bundle that is scored beside: always 1.")
        info.add(1, (("version", status.version),))
        yield info
    yield plain_gauge("anomaly_shadow_score", "What anomaly_score would be with the candidate.", status.score)
    yield counter(
        "anomaly_shadow_evaluations",
        "Ticks by which of the two bundles was at 1 or above.",
        status.agreement.items(),
        "agreement",
    )
    yield counter(
        "anomaly_shadow_skipped",
        "Ticks that were not compared, by reason.",
        status.skipped.items(),
        "reason",
    )
    yield plain_counter("anomaly_shadow_cpu_seconds", "CPU time spent on the candidate.", status.cpu_s)
