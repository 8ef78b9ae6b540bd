"""The metrics: every family of one snapshot, and nothing else.

Nothing is read or locked here, and nothing computed but the reasons of a score (docs/adr/0027), so a scrape
costs the same on an ill host as on a healthy one. A value that is not known has no sample at all; 0 would be
a claim.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator, Sequence

from node_anomaly_agent.degradation import degradation_families
from node_anomaly_agent.distribution_status import distribution_families
from node_anomaly_agent.episode_status import episode_families
from node_anomaly_agent.families import (
    Family,
    counter,
    format_number,
    gauge,
    plain_counter,
    plain_gauge,
    render,
)
from node_anomaly_agent.forecast_status import forecast_failures, forecast_families
from node_anomaly_agent.logs.status import log_families
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.selftest_status import selftest_families
from node_anomaly_agent.snapshot import DURATION_BUCKETS, FEATURE_STATES, Counters, Snapshot
from node_anomaly_agent.suppression import suppression_families
from node_anomaly_agent.web_status import web_families

_BOUNDS: tuple[str, ...] = tuple(map(format_number, (*DURATION_BUCKETS, float("inf"))))


def expose(snapshot: Snapshot, version: str, content_type: str, *, whole_agent: bool = True) -> str:
    """A whole scrape.

    Args:
        snapshot: what to show.
        version: the agent's.
        content_type: families.TEXT or families.OPENMETRICS.
        whole_agent: false for one evaluation without a daemon: it has no counters to show.
    """
    return render(collect(snapshot, version, whole_agent=whole_agent), content_type)


def collect(snapshot: Snapshot, version: str, *, whole_agent: bool = True) -> Iterator[Family]:
    """All families of one snapshot; those without a sample are left out when they are rendered."""
    yield from _scores(snapshot)
    yield from _features(snapshot)
    yield from forecast_families(snapshot.forecast)
    yield from _model(snapshot)
    yield from _agent(snapshot, version)
    yield from _collectors(snapshot)
    if whole_agent:
        yield from _evaluations(snapshot.counters)
        yield from _reloads(snapshot)
        yield from degradation_families(snapshot.degradation)
        yield from suppression_families(snapshot.suppressed)
        yield from selftest_families(snapshot.selftest)
        yield from forecast_failures(snapshot.forecast)
        yield from episode_families(snapshot.episodes)
        yield from distribution_families(snapshot.distribution)
        yield from log_families(snapshot.logs)
        yield from web_families(snapshot.web)
        yield from _process(snapshot.process)


def _scores(snapshot: Snapshot) -> Iterator[Family]:
    score = snapshot.score
    if score is None or not score.warm:
        return
    yield plain_gauge(
        "anomaly_score",
        "How unusual this node is now: 1 is the alarm threshold, absent until the agent is warm.",
        score.score,
    )
    yield plain_gauge(
        "anomaly_alarm_held_back",
        "1 while all models together reach the threshold, but not those that must agree: no alarm.",
        bool(score.held_back_by),
    )
    yield plain_gauge(
        "anomaly_alarm_outgrown",
        "1 while an alarm is over because this node's threshold rose, and what it was for has not gone away.",
        score.outgrown,
    )
    yield gauge(
        "anomaly_model_score",
        "The score of one model alone, on the scale of anomaly_score.",
        score.model_scores.items(),
        "model",
    )


def _features(snapshot: Snapshot) -> Iterator[Family]:
    score, bundle = snapshot.score, snapshot.bundle
    states: Sequence[str] = () if score is None else score.states
    yield gauge(
        "anomaly_agent_features",
        "Features of the bundle by their state on this node.",
        ((state, states.count(state)) for state in FEATURE_STATES),
        "state",
    )
    if score is None or bundle is None:
        return
    names = [feature.name for feature in bundle.features]
    yield gauge(
        "anomaly_feature_contribution_ratio",
        "Share of the score that a feature explains; the shares sum to 1.",
        zip(names, score.contributions.tolist(), strict=True),
        "feature",
    )
    yield gauge(
        "anomaly_feature_value",
        "Value of a feature as the models saw it, in the unit that ends its name.",
        zip(names, score.observed.tolist(), strict=True),
        "feature",
    )
    yield gauge(
        "anomaly_feature_expected",
        "Value that the models expected of a feature, in the unit that ends its name.",
        zip(names, score.expected.tolist(), strict=True),
        "feature",
    )


def _model(snapshot: Snapshot) -> Iterator[Family]:
    bundle = snapshot.bundle
    if bundle is None:
        return
    info = Family("anomaly_model_info", "gauge", "The models in use: 1 for each, with the bundle it came in.")
    for name, kind in bundle.models:
        labels = (("model", name), ("type", kind), ("version", bundle.version), ("origin", bundle.origin))
        info.add(1, labels)
    yield info
    yield plain_gauge(
        "anomaly_model_trained_timestamp_seconds", "When the models in use were trained.", bundle.trained_at
    )


def _agent(snapshot: Snapshot, version: str) -> Iterator[Family]:
    build = Family("anomaly_agent_build_info", "gauge", "The agent's version: always 1.")
    build.add(1, (("version", version), ("pythonversion", platform.python_version())))
    yield build
    yield plain_gauge(
        "anomaly_agent_warm", "1 once there is enough history on this node to score it.", snapshot.warm
    )
    yield plain_gauge(
        "anomaly_agent_threshold_ratio",
        "This node's own alarm threshold as a multiple of the one that training promised for the budget.",
        math.nan if snapshot.score is None else snapshot.score.threshold_ratio,
    )
    yield plain_gauge(
        "anomaly_agent_threshold_learned_ratio",
        "Share of its window that this node's own threshold has seen: 1 after two days, or three and a half.",
        math.nan if snapshot.score is None else snapshot.score.threshold_learnt,
    )
    yield plain_gauge(
        "anomaly_agent_last_evaluation_timestamp_seconds",
        "When the node was last sampled and scored.",
        snapshot.timestamp,
    )
    yield plain_gauge(
        "anomaly_agent_interval_seconds", "The configured time between two evaluations.", snapshot.interval_s
    )


def _evaluations(counters: Counters) -> Iterator[Family]:
    yield plain_counter("anomaly_agent_evaluations", "Evaluations that gave a result.", counters.evaluations)
    yield counter(
        "anomaly_agent_evaluation_failures",
        "Evaluations that raised an error, by the phase that did.",
        counters.failures.items(),
        "reason",
    )
    yield counter(
        "anomaly_agent_evaluation_skipped",
        "Ticks without an evaluation, by reason.",
        counters.skipped.items(),
        "reason",
    )
    family = Family(
        "anomaly_agent_evaluation_duration_seconds", "histogram", "Time that one phase of an evaluation took."
    )
    for phase, histogram in counters.durations.items():
        running = 0
        for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
            running += count
            family.add(running, (("phase", phase), ("le", bound)), "_bucket")
        family.add(running, (("phase", phase),), "_count")
        family.add(histogram.total, (("phase", phase),), "_sum")
    yield family
    yield counter(
        "anomaly_agent_state_failures",
        "Failed attempts to load or save the state that survives a restart.",
        counters.state_failures.items(),
        "operation",
    )


def _reloads(snapshot: Snapshot) -> Iterator[Family]:
    counters, status = snapshot.counters, snapshot.reload
    yield plain_counter(
        "anomaly_agent_bundle_reloads", "Bundles that were verified and put to use.", counters.reloads
    )
    yield counter(
        "anomaly_agent_bundle_reload_failures",
        "Bundles that were refused, by reason; the last good one stays in use.",
        counters.reload_failures.items(),
        "reason",
    )
    yield plain_gauge(
        "anomaly_agent_bundle_last_reload_successful",
        "Whether the latest attempt to load a bundle succeeded.",
        status.successful,
    )
    if snapshot.bundle is not None:
        yield plain_gauge(
            "anomaly_agent_bundle_signature_verified",
            "Whether a trusted key signed the bundle in use; 0 where none is asked for, and for the starter.",
            bool(snapshot.bundle.signed_by),
        )
    yield plain_gauge(
        "anomaly_agent_bundle_last_reload_success_timestamp_seconds",
        "When a bundle was last put to use.",
        status.success_timestamp,
    )


def _collectors(snapshot: Snapshot) -> Iterator[Family]:
    items = snapshot.collectors.items()
    yield gauge(
        "anomaly_agent_collector_success",
        "Whether a collector could read its part of the host; none where the host has no such part.",
        ((name, status.success) for name, status in items if not status.missing),
        "collector",
    )
    yield gauge(
        "anomaly_agent_collector_duration_seconds",
        "Time that a collector took.",
        ((name, status.duration_s) for name, status in items),
        "collector",
    )


def _process(stats: ProcessStats) -> Iterator[Family]:
    yield plain_counter("process_cpu_seconds", "User and system CPU time spent in seconds.", stats.cpu_s)
    for name, text, value in (
        ("resident_memory_bytes", "Resident memory size in bytes.", stats.resident_bytes),
        ("virtual_memory_bytes", "Virtual memory size in bytes.", stats.virtual_bytes),
        ("start_time_seconds", "Start time of the process since the epoch in seconds.", stats.start_time),
        ("open_fds", "Number of open file descriptors.", stats.open_fds),
        ("max_fds", "Maximum number of open file descriptors.", stats.max_fds),
    ):
        yield plain_gauge(f"process_{name}", text, value)
