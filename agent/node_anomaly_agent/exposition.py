"""The metrics: a registry of our own whose only collector renders the last snapshot.

Nothing is read, computed or locked here, so a scrape costs the same on an ill host as on a healthy one. A
value that is not known has no sample at all; 0 would be a claim.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from node_anomaly_agent.snapshot import DURATION_BUCKETS, FEATURE_STATES, Counters, Snapshot

_BOUNDS: tuple[str, ...] = (*(f"{bound:g}" for bound in DURATION_BUCKETS), "+Inf")


class SnapshotCollector(Collector):
    """Renders `source()` whenever it is scraped."""

    def __init__(self, source: Callable[[], Snapshot], version: str, *, whole_agent: bool) -> None:
        self._source = source
        self._version = version
        self._whole_agent = whole_agent

    def describe(self) -> Iterable[Metric]:
        """Nothing to announce: some families appear only once there is something to say."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families of one snapshot."""
        snapshot = self._source()
        yield from _scores(snapshot)
        yield from _features(snapshot)
        yield from _model(snapshot)
        yield from _agent(snapshot, self._version)
        yield from _collectors(snapshot)
        if self._whole_agent:
            yield from _evaluations(snapshot.counters)
            yield from _reloads(snapshot)
            yield from snapshot.process


def build_registry(
    source: Callable[[], Snapshot], version: str, *, whole_agent: bool = True
) -> CollectorRegistry:
    """A registry that holds the agent's collector and nothing of prometheus_client's global one.

    `whole_agent` is false for one evaluation without a daemon: it has no counters to show.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(source, version, whole_agent=whole_agent))
    return registry


def _gauge(name: str, text: str, value: float) -> Iterator[Metric]:
    if not math.isnan(value):
        yield GaugeMetricFamily(name, text, value=value)


def _gauges(name: str, text: str, label: str, samples: Iterable[tuple[str, float]]) -> Iterator[Metric]:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value_of_label, value in samples:
        if not math.isnan(value):
            family.add_metric([value_of_label], value)
    if family.samples:
        yield family


def _counter(name: str, text: str, label: str, samples: Iterable[tuple[str, float]]) -> Iterator[Metric]:
    family = CounterMetricFamily(name, text, labels=[label])
    for value_of_label, value in samples:
        family.add_metric([value_of_label], value)
    yield family


def _scores(snapshot: Snapshot) -> Iterator[Metric]:
    score = snapshot.score
    if score is None:
        return
    yield from _gauge(
        "anomaly_score",
        "How unusual this node is now: 1 is the alarm threshold, absent until the agent is warm.",
        score.score if score.warm else math.nan,
    )
    yield from _gauges(
        "anomaly_model_score",
        "The score of one model alone, on the scale of anomaly_score.",
        "model",
        score.model_scores.items() if score.warm else (),
    )


def _features(snapshot: Snapshot) -> Iterator[Metric]:
    score, bundle = snapshot.score, snapshot.bundle
    states: Sequence[str] = () if score is None else score.states
    yield from _gauges(
        "anomaly_agent_features",
        "Features of the bundle by their state on this node.",
        "state",
        ((state, float(sum(1 for one in states if one == state))) for state in FEATURE_STATES),
    )
    if score is None or bundle is None:
        return
    names = [feature.name for feature in bundle.features]
    yield from _gauges(
        "anomaly_feature_contribution_ratio",
        "Share of the score that a feature explains; the shares sum to 1.",
        "feature",
        zip(names, map(float, score.contributions), strict=True),
    )
    yield from _gauges(
        "anomaly_feature_value",
        "Value of a feature as the models saw it, in the unit that ends its name.",
        "feature",
        zip(names, map(float, score.observed), strict=True),
    )
    yield from _gauges(
        "anomaly_feature_expected",
        "Value that the models expected of a feature, in the unit that ends its name.",
        "feature",
        zip(names, map(float, score.expected), strict=True),
    )


def _model(snapshot: Snapshot) -> Iterator[Metric]:
    bundle = snapshot.bundle
    if bundle is None:
        return
    info = GaugeMetricFamily(
        "anomaly_model_info",
        "The models in use: 1 for each, with the bundle they came in.",
        labels=["model", "type", "version", "origin"],
    )
    for name, type_ in bundle.models:
        info.add_metric([name, type_, bundle.version, bundle.origin], 1)
    yield info
    yield from _gauge(
        "anomaly_model_trained_timestamp_seconds", "When the models in use were trained.", bundle.trained_at
    )


def _agent(snapshot: Snapshot, version: str) -> Iterator[Metric]:
    build = GaugeMetricFamily(
        "anomaly_agent_build_info", "The agent's version: always 1.", labels=["version", "pythonversion"]
    )
    build.add_metric([version, platform.python_version()], 1)
    yield build
    yield from _gauge(
        "anomaly_agent_warm", "1 once there is enough history on this node to score it.", float(snapshot.warm)
    )
    yield from _gauge(
        "anomaly_agent_last_evaluation_timestamp_seconds",
        "When the node was last sampled and scored.",
        snapshot.timestamp,
    )
    yield from _gauge(
        "anomaly_agent_interval_seconds", "The configured time between two evaluations.", snapshot.interval_s
    )


def _evaluations(counters: Counters) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "anomaly_agent_evaluations", "Evaluations that gave a result.", value=counters.evaluations
    )
    yield from _counter(
        "anomaly_agent_evaluation_failures",
        "Evaluations that raised an error, by the phase that did.",
        "reason",
        counters.failures.items(),
    )
    yield from _counter(
        "anomaly_agent_evaluation_skipped",
        "Ticks without an evaluation, by reason.",
        "reason",
        counters.skipped.items(),
    )
    family = HistogramMetricFamily(
        "anomaly_agent_evaluation_duration_seconds",
        "Time that one phase of an evaluation took.",
        labels=["phase"],
    )
    for phase, histogram in counters.durations.items():
        running = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
            running += count
            buckets.append((bound, float(running)))
        family.add_metric([phase], buckets, histogram.total)
    yield family
    yield from _counter(
        "anomaly_agent_state_failures",
        "Failed attempts to load or save the state that survives a restart.",
        "operation",
        counters.state_failures.items(),
    )


def _reloads(snapshot: Snapshot) -> Iterator[Metric]:
    counters, status = snapshot.counters, snapshot.reload
    yield CounterMetricFamily(
        "anomaly_agent_bundle_reloads", "Bundles that were verified and put to use.", value=counters.reloads
    )
    yield from _counter(
        "anomaly_agent_bundle_reload_failures",
        "Bundles that were refused, by reason; the last good one stays in use.",
        "reason",
        counters.reload_failures.items(),
    )
    yield from _gauge(
        "anomaly_agent_bundle_last_reload_successful",
        "Whether the latest attempt to load a bundle succeeded.",
        float(status.successful),
    )
    yield from _gauge(
        "anomaly_agent_bundle_last_reload_success_timestamp_seconds",
        "When a bundle was last put to use.",
        status.success_timestamp,
    )


def _collectors(snapshot: Snapshot) -> Iterator[Metric]:
    items = snapshot.collectors.items()
    yield from _gauges(
        "anomaly_agent_collector_success",
        "Whether a collector could read its part of the host.",
        "collector",
        ((name, float(status.success)) for name, status in items),
    )
    yield from _gauges(
        "anomaly_agent_collector_duration_seconds",
        "Time that a collector took.",
        "collector",
        ((name, status.duration_s) for name, status in items),
    )
