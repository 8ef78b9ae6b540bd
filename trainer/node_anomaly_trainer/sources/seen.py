"""At how many instants, spread over the range, a server has something of each node.

Asked for some nodes at a time, so that no answer grows with the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.sources.matchers import joined, one_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
from node_anomaly_trainer.sources.wanted import AGENT_METRIC, Span

INSTANTS = 24
INSTANCES_AT_ONCE = 64
NAMES_AT_ONCE = 1_500
"""Characters of them: they are spelt out in each query beside the metrics, and proxies limit URLs."""


@dataclass(slots=True)
class Seen:
    """Per instance and key (a feature of agents, a metric of exporters) the instants with a series of it."""

    instants: dict[str, dict[str, int]] = field(default_factory=dict)
    doubled: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of those, how many had more than one series."""
    doubled_at: dict[tuple[str, str], int] = field(default_factory=dict)
    """Instance and key -> unix second of the latest of them."""
    series: dict[str, dict[int, float]] = field(default_factory=dict)
    """Key -> unix second -> series of all instances together."""

    def add(self, instance: str, key: str, counts: Mapping[int, float]) -> None:
        """Count one instance's series of a key."""
        self.instants.setdefault(instance, {})[key] = len(counts)
        total = self.series.setdefault(key, {})
        for at, count in counts.items():
            total[at] = total.get(at, 0.0) + count
        if several := [at for at, count in counts.items() if count > 1]:
            self.doubled.setdefault(instance, {})[key] = len(several)
            self.doubled_at[instance, key] = max(several)

    def of(self, instance: str | None, key: str) -> int:
        """Instants with a series of the key; none for no instance."""
        return 0 if instance is None else self.instants.get(instance, {}).get(key, 0)

    @property
    def keys(self) -> frozenset[str]:
        """What was seen at all."""
        return frozenset(self.series)

    def latest(self) -> int:
        """Unix second of the latest instant with anything; 0 where there was nothing."""
        return max((at for counts in self.series.values() for at in counts), default=0)


def seen_by_agents(api: PrometheusApi, matchers: str, instances: Sequence[str], span: Span) -> Seen:
    """The features of these agents."""
    seen = Seen()
    for some in _pieces(instances):
        selected = joined(matchers, some)
        query = f"count by (instance, feature) ({AGENT_METRIC}{{{selected}}})"
        for labels, counts in counted(api, query, span):
            seen.add(labels.get("instance", ""), labels.get("feature", ""), counts)
    return seen


def seen_of_exporters(
    api: PrometheusApi, matchers: str, instances: Sequence[str], metrics: Sequence[str], span: Span
) -> Seen:
    """These metrics of these exporters."""
    seen = Seen()
    for some in _pieces(instances if metrics else ()):
        selected = joined(matchers, str(one_of("__name__", metrics)), some)
        for labels, counts in counted(api, f"count by (instance, __name__) ({{{selected}}})", span):
            seen.add(labels.get("instance", ""), labels.get("__name__", ""), counts)
    return seen


def seen_of_queries(api: PrometheusApi, queries: Mapping[str, str], span: Span) -> Seen:
    """What PromQL texts of the user's own give; the names they go by are the keys."""
    seen = Seen()
    for name, query in queries.items():
        for labels, counts in counted(api, f"count by (instance) ({query})", span):
            seen.add(labels.get("instance", ""), name, counts)
    return seen


def counted(
    api: PrometheusApi, query: str, span: Span
) -> Iterable[tuple[Mapping[str, str], Mapping[int, float]]]:
    """Labels of each series, and its values by the unix second of the instant. Raises SourceError."""
    # From the end, so that the newest samples are among the instants.
    step = max((span.end - span.start) // INSTANTS, 1)
    first = span.end - min(INSTANTS, (span.end - span.start) // step) * step
    found = api.query_range(query, first, span.end, step)
    try:
        return [
            (
                {str(name): str(value) for name, value in series["metric"].items()},
                {int(at): float(count) for at, count in series["values"]},
            )
            for series in found
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise SourceError(
            f"{api.connection.url} answered samples that cannot be read, asked for {query}",
            "source.prometheus.url must point to the API of Prometheus or what speaks it",
        ) from None


def _pieces(instances: Sequence[str]) -> Iterable[str]:
    """Matchers that choose some of the instances each."""
    some: list[str] = []
    for instance in instances:
        if some and (len(some) == INSTANCES_AT_ONCE or sum(map(len, some)) + len(instance) > NAMES_AT_ONCE):
            yield str(one_of("instance", some))
            some = []
        some.append(instance)
    if some:
        yield str(one_of("instance", some))
