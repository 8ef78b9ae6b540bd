"""What a server holds of what we want, asked before anything is read: metrics, instances, duplicates.

Answers come from the server's index, and from a handful of instants spread over the range, so a survey of
two weeks costs about as much as one page of a dashboard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.few import few
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.sources.duplicates import PASSING, doubled, single_metrics
from node_anomaly_trainer.sources.evaluate_expression import can_evaluate
from node_anomaly_trainer.sources.matchers import joined, one_of
from node_anomaly_trainer.sources.origins import Nodes, Sides, nodes_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
from node_anomaly_trainer.sources.seen import (
    Seen,
    counted,
    seen_by_agents,
    seen_of_exporters,
    seen_of_queries,
)
from node_anomaly_trainer.sources.wanted import (
    AGENT,
    AGENT_METRIC,
    EXPORTER,
    Span,
    Wanted,
    from_agents,
    from_exporter,
    iso,
)

LARGEST_SKEW_S = 30.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What will be read, of which nodes, and from where."""

    wanted: tuple[Wanted, ...]
    """In the order of the features asked for, a feature once for each origin that some node's is read from.

    Those without any series are not among them.
    """
    instances: Mapping[str, Mapping[str, str]]
    """node -> origin of features -> value of its label instance there."""
    series_per_instance: Mapping[str, float]
    """metric -> how many series of it a node has, on average."""
    seen_at: Mapping[str, int]
    """Origin of features -> unix second of the latest instant at which there was something of it."""
    nodes: Nodes

    def reads(self, node: str, one: Wanted) -> bool:
        """Whether this feature of the node is read from there."""
        by_origin = self.nodes.from_agent if one.source == AGENT else self.nodes.from_exporter
        return one.feature.name in by_origin.get(node, ())


def server_clock(api: PrometheusApi, note: Note) -> float:
    """The server's own time; a difference to ours is noted, because ranges are counted by the server's.

    Also the first question of a run: a wrong URL or password must not cost a query per feature.
    """
    (series, *_) = api.query("vector(time())") or [{}]
    try:
        clock = float(series["value"][1])
    except (KeyError, IndexError, TypeError, ValueError):
        return time.time()
    if abs(clock - time.time()) > LARGEST_SKEW_S:
        note(f"the server's clock differs by {clock - time.time():+.0f} s; its clock counts")
    return clock


def survey(
    api: PrometheusApi, config: PrometheusConfig, features: Sequence[Feature], span: Span, note: Note
) -> Survey:
    """Choose an origin for each feature of each node.

    Raises SourceError if the server holds nothing of it, or holds it twice.
    """
    metrics = _metrics(features)
    families = sorted({metric for names in metrics.values() for metric in names})
    by_name = joined(config.matchers, str(one_of("__name__", [*families, AGENT_METRIC])))
    present = set(api.label_values("__name__", [f"{{{by_name}}}"], span.start - 300, span.end))
    there = [name for name in families if name in present]
    agents = _instances(api, config, [AGENT_METRIC] if AGENT_METRIC in present else [], span)
    exporters = _instances(api, config, there, span)
    by_agents = seen_by_agents(api, config.matchers, agents, span)
    by_exporters = seen_of_exporters(api, config.matchers, exporters, there, span)
    own = {
        feature.name: _query(feature, config, span)
        for feature in features
        if feature.expression is not None and not can_evaluate(feature.expression)
    }
    by_queries = seen_of_queries(api, own, span)

    def computed(instance: str | None, name: str) -> int:
        if name in own:
            return by_queries.of(instance, name)
        return min((by_exporters.of(instance, metric) for metric in metrics[name]), default=0)

    in_index = {name for name, needed in metrics.items() if needed and set(needed) <= present}
    sides = Sides(
        agents=by_agents.of,
        of_agents=by_agents.keys,
        living=frozenset(by_agents.instants),
        exporters=computed,
        computable=frozenset(by_queries.keys | (in_index - set(own))),
    )
    hosts = sorted({*exporters, *by_queries.instants} - {""})
    nodes = nodes_of(agents, hosts, _nodenames(api, config, agents, hosts, span), features, sides, note)
    wanted = tuple(_wanted(features, nodes))
    for feature in features:
        if not any(one.feature is feature for one in wanted):
            query = _query(feature, config, span)
            note(f"no series for {feature.name}: {query or 'no PromQL known'}")
    if not wanted:
        raise _nothing_found(api, config, features, families, present, span)
    _refuse_duplicates(api, config, features, nodes, by_exporters, note)
    number = max(len(exporters), 1)
    return Survey(
        wanted,
        nodes.instances,
        {name: max(counts.values(), default=0.0) / number for name, counts in by_exporters.series.items()},
        {
            AGENT: by_agents.latest() or span.end,
            EXPORTER: max(by_exporters.latest(), by_queries.latest()) or span.end,
        },
        nodes,
    )


def _metrics(features: Sequence[Feature]) -> dict[str, tuple[str, ...]]:
    """Feature -> the metrics its expression reads."""
    return {
        feature.name: tuple(
            dict.fromkeys(leaf.metric.removesuffix(":count") for leaf in feature.expression.leaves())
        )
        if feature.expression is not None
        else ()
        for feature in features
    }


def _wanted(features: Sequence[Feature], nodes: Nodes) -> Iterator[Wanted]:
    by_agents = frozenset[str]().union(*nodes.from_agent.values())
    by_exporters = frozenset[str]().union(*nodes.from_exporter.values())
    for feature in features:
        if feature.name in by_agents:
            yield from_agents(feature)
        if feature.name in by_exporters:
            yield from_exporter(feature)


def _instances(
    api: PrometheusApi, config: PrometheusConfig, metrics: Sequence[str], span: Span
) -> tuple[str, ...]:
    if not metrics:
        return ()
    selected = joined(config.matchers, str(one_of("__name__", metrics)))
    return api.label_values("instance", [f"{{{selected}}}"], span.start - 300, span.end)


def _nodenames(
    api: PrometheusApi, config: PrometheusConfig, agents: Sequence[str], hosts: Sequence[str], span: Span
) -> Iterator[tuple[str, str]]:
    """Instances of exporters and the names of their hosts: agents on Kubernetes go by those."""
    if not agents or not hosts:
        return
    uname = f"node_uname_info{{{config.matchers}}}"
    for labels, _ in counted(api, f"max by (instance, nodename) ({uname})", span):
        yield labels.get("instance", ""), labels.get("nodename", "")


def _refuse_duplicates(
    api: PrometheusApi,
    config: PrometheusConfig,
    features: Sequence[Feature],
    nodes: Nodes,
    seen: Seen,
    note: Note,
) -> None:
    """Raises SourceError for nodes whose sums over devices would count everything double."""
    twice: dict[str, str] = {}
    passing = []
    singles: dict[frozenset[str], frozenset[str]] = {}
    for node, read in nodes.from_exporter.items():
        if read not in singles:
            singles[read] = single_metrics([feature for feature in features if feature.name in read])
        instance = nodes.instances[node][EXPORTER]
        found = {name: n for name, n in seen.doubled.get(instance, {}).items() if name in singles[read]}
        if not found:
            continue
        worst = max(found, key=lambda name: found[name] / seen.of(instance, name))
        if found[worst] > PASSING * seen.of(instance, worst):
            twice[instance] = worst
        else:
            passing.append(instance)
    if twice:
        example = next(iter(twice))
        at = seen.doubled_at[example, twice[example]]
        raise doubled(api, config.matchers, twice, twice[example], example, at)
    if passing:
        note(f"scraped more than once for a short time: {few(passing)}; sums over devices count double then")


def _nothing_found(
    api: PrometheusApi,
    config: PrometheusConfig,
    features: Sequence[Feature],
    families: Sequence[str],
    present: set[str],
    span: Span,
) -> SourceError:
    """What was looked for and what the server does have."""
    jobs = api.label_values("job", [], span.start, span.end)
    known = ", ".join(jobs[:10]) + (", ..." if len(jobs) > 10 else "")
    there = [name for name in families if name in present]
    example = next((query for f in features if (query := _query(f, config, span))), AGENT_METRIC)
    return SourceError(
        f"{config.url} holds no series for {len(features)} features "
        f"({', '.join(feature.name for feature in features[:3])}, ...) from {iso(span.start)} to "
        f"{iso(span.end)} with matchers {config.matchers or 'none'}: it has {len(there)} of the "
        f"{len(families)} metrics of node_exporter they need and "
        f"{'' if AGENT_METRIC in present else 'no '}{AGENT_METRIC}; tried {example}",
        f"it holds the jobs {known}: set source.prometheus.matchers, range or end"
        if known
        else "it holds nothing then: set source.prometheus.range or end, or choose another server",
    )


def _query(feature: Feature, config: PrometheusConfig, span: Span) -> str:
    return feature.promql(f"{span.window_s}s", config.matchers)
