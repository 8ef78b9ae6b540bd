"""Series that are there twice: two replicas of one scraper, or two jobs that scrape one exporter.

Every sum over devices, and every count of them, would be twice what the node itself sees.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import CATALOGUE, Feature
from node_anomaly_trainer.few import few
from node_anomaly_trainer.sources.matchers import joined, none_of, one_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi

PASSING = 0.2
"""A share of the instants up to which two series are taken for a job that was renamed: it overlaps once."""

_CHOOSERS = ("job", "prometheus_replica", "replica", "__replica__", "prometheus", "cluster", "namespace")

_OURS = frozenset(feature.name for feature in CATALOGUE)


def single_metrics(features: Sequence[Feature]) -> frozenset[str]:
    """Metrics of which a node has one series, read for these features; none of the users' own."""
    return frozenset(
        leaf.metric
        for feature in features
        if feature.name in _OURS and feature.expression is not None
        for leaf in feature.expression.leaves()
        if not leaf.label and not leaf.where and not leaf.metric.endswith(":count")
    )


def doubled(
    api: PrometheusApi, matchers: str, instances: Collection[str], metric: str, instance: str, at: float
) -> SourceError:
    """What to say of instances that are scraped more than once, one of them for an example at `at`."""
    chosen = joined(matchers, str(one_of("__name__", (metric,))), str(one_of("instance", (instance,))))
    found = [
        {str(name): str(value) for name, value in series.get("metric", {}).items()}
        for series in api.query(f"{{{chosen}}}", at)
    ]
    values: dict[str, list[str]] = {}
    for label in sorted({name for labels in found for name in labels}):
        different = sorted({labels.get(label, "") for labels in found})
        if len(different) > 1:
            values[label] = different
    label = min(values, key=lambda name: (_of_a_fleet(name), name), default="")
    example = f": {metric} of {instance} has {len(found)} series" + (
        f" that differ in {', '.join(f'{name} ({few(known)})' for name, known in values.items())}"
        if values
        else ""
    )
    # Without the others, and not with this one alone: agents are another job, and are to stay.
    others = [value for value in values.get(label, ()) if value != _likeliest(values[label])]
    chooser = str(none_of(label, others)) if label else 'job="node"'
    return SourceError(
        f"scraped more than once: {few(sorted(instances))}{example}; sums over devices would count double",
        f"choose one with source.prometheus.matchers, for example: {joined(matchers, chooser)}",
    )


def _of_a_fleet(label: str) -> int:
    """Labels by which a whole fleet can be chosen come first: a pod's name would choose one node."""
    return _CHOOSERS.index(label) if label in _CHOOSERS else len(_CHOOSERS)


def _likeliest(values: Sequence[str]) -> str:
    """The value to show in an example."""
    return next((value for value in values if "node" in value), values[0] or values[-1])
