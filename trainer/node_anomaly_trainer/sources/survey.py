"""What a server holds of what we want, asked before anything is read: metrics, instances, duplicates.

Answers come from the server's index, and from a handful of instants spread over the range, so a survey of
two weeks costs about as much as one page of a dashboard.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.node_names import host_of
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.sources.evaluate_expression import can_evaluate
from node_anomaly_trainer.sources.matchers import joined, one_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
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

INSTANTS = 24
ENOUGH = 0.9
"""Agents are preferred where they cover at least this share of what node_exporter covers."""

LARGEST_SKEW_S = 30.0


@dataclass(frozen=True, slots=True)
class Survey:
    """What will be read, of which nodes, and from where."""

    wanted: tuple[Wanted, ...]
    """In the order of the features asked for; those without any series are not among them."""
    instances: Mapping[str, Mapping[str, str]]
    """node -> origin of features -> value of its label instance there."""
    series_per_instance: Mapping[str, float]
    """metric -> how many series of it a node has, on average."""
    seen_at: Mapping[str, int]
    """Origin of features -> unix second of the latest instant at which there was something of it."""


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
    """Choose an origin for each feature. Raises SourceError if the server holds nothing of it."""
    metrics = _metrics(features)
    families = sorted({metric for names in metrics.values() for metric in names})
    by_name = joined(config.matchers, str(one_of("__name__", [*families, AGENT_METRIC])))
    present = set(api.label_values("__name__", [f"{{{by_name}}}"], span.start - 300, span.end))
    agents = _agent_counts(api, config, span) if AGENT_METRIC in present else {}
    exporters = _exporter_counts(api, config, span, [name for name in families if name in present])
    own: dict[str, dict[str, Counts]] = {
        feature.name: _counts(api, f"count by (instance) ({_query(feature, config, span)})", "instance", span)
        for feature in features
        if feature.expression is not None and not can_evaluate(feature.expression)
    }
    wanted = []
    for feature in features:
        if feature.name in own:
            computed = len({at for counts in own[feature.name].values() for at in counts})
        elif metrics[feature.name] and set(metrics[feature.name]) <= present:
            # Present in the index, so it can be computed, even where no instant happens to show it.
            computed = max(min(len(exporters.get(name, {})) for name in metrics[feature.name]), 1)
        else:
            computed = 0
        chosen = _choose(feature, len(agents.get(feature.name, {})), computed, note)
        if chosen is not None:
            wanted.append(chosen)
        else:
            query = _query(feature, config, span)
            note(f"no series for {feature.name}: {query or 'no PromQL known'}")
    if not wanted:
        raise _nothing_found(api, config, features, families, present, span)
    of_own = {
        instance for one in wanted for instance in own.get(one.feature.name, ()) if one.source == EXPORTER
    }
    instances = _instances(api, config, wanted, metrics, of_own, span, note)
    if not instances:
        raise _nothing_found(api, config, features, families, present, span)
    _note_duplicates(api, config, wanted, span, note)
    nodes = max(sum(EXPORTER in found for found in instances.values()), 1)
    return Survey(
        tuple(wanted),
        instances,
        {name: max(counts.values(), default=0.0) / nodes for name, counts in exporters.items()},
        {
            AGENT: _latest(span, list(agents.values())),
            EXPORTER: _latest(
                span, [*exporters.values(), *(c for found in own.values() for c in found.values())]
            ),
        },
    )


Counts = Mapping[int, float]
"""Unix second of an instant -> number of series then."""


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


def _agent_counts(api: PrometheusApi, config: PrometheusConfig, span: Span) -> dict[str, Counts]:
    query = f"count by (feature) ({AGENT_METRIC}{_braces(config.matchers)})"
    return _counts(api, query, "feature", span)


def _exporter_counts(
    api: PrometheusApi, config: PrometheusConfig, span: Span, present: Sequence[str]
) -> dict[str, Counts]:
    if not present:
        return {}
    selected = joined(config.matchers, str(one_of("__name__", present)))
    return _counts(api, f"count by (__name__) ({{{selected}}})", "__name__", span)


def _counts(api: PrometheusApi, query: str, label: str, span: Span) -> dict[str, Counts]:
    # From the end, so that the newest samples are among the instants.
    step = max((span.end - span.start) // INSTANTS, 1)
    first = span.end - min(INSTANTS, (span.end - span.start) // step) * step
    found = api.query_range(query, first, span.end, step)
    try:
        return {
            str(series["metric"].get(label, "")): {int(at): float(count) for at, count in series["values"]}
            for series in found
        }
    except (KeyError, TypeError, ValueError):
        raise SourceError(
            f"{api.connection.url} answered samples that cannot be read, asked for {query}",
            "source.prometheus.url must point to the API of Prometheus or what speaks it",
        ) from None


def _choose(feature: Feature, seen: int, computed: int, note: Note) -> Wanted | None:
    """The origin of a feature that agents have at `seen` instants, and node_exporter at `computed`."""
    if seen and seen >= ENOUGH * computed:
        return from_agents(feature)
    if not computed:
        return None
    if seen:
        note(f"{feature.name}: agents have it at {seen} of {computed} instants, so node_exporter is taken")
    return from_exporter(feature)


def _instances(
    api: PrometheusApi,
    config: PrometheusConfig,
    wanted: Sequence[Wanted],
    metrics: Mapping[str, Sequence[str]],
    of_own: set[str],
    span: Span,
    note: Note,
) -> dict[str, dict[str, str]]:
    """Node -> origin -> instance. An agent and an exporter of one host are one node, named without port."""
    selections: dict[str, list[str]] = {}
    for one in wanted:
        if one.source == AGENT:
            selections[AGENT] = [f"{AGENT_METRIC}{_braces(config.matchers)}"]
        else:
            selections.setdefault(EXPORTER, []).extend(metrics[one.feature.name])
    if names := selections.get(EXPORTER):
        by_name = str(one_of("__name__", sorted(set(names))))
        selections[EXPORTER] = [f"{{{joined(config.matchers, by_name)}}}"]
    found = {
        origin: api.label_values("instance", match, span.start - 300, span.end)
        for origin, match in selections.items()
    }
    if of_own:
        found[EXPORTER] = tuple(sorted({*found.get(EXPORTER, ()), *of_own}))
    if len(found) == 1:
        ((origin, values),) = found.items()
        return {value: {origin: value} for value in values}
    clashing = [
        origin for origin, values in found.items() if len({host_of(value) for value in values}) < len(values)
    ]
    if clashing:
        note(
            f"several instances of {' and '.join(clashing)} share a host, so agents and node_exporter "
            "cannot be joined by host: their instances are separate nodes"
        )
    nodes: dict[str, dict[str, str]] = {}
    for origin, values in found.items():
        for value in values:
            nodes.setdefault(value if clashing else host_of(value), {})[origin] = value
    return dict(sorted(nodes.items()))


def _note_duplicates(
    api: PrometheusApi, config: PrometheusConfig, wanted: Sequence[Wanted], span: Span, note: Note
) -> None:
    """Say which nodes are scraped twice: sums over their devices would count everything double."""
    single = {
        leaf.metric
        for one in wanted
        if one.source == EXPORTER and can_evaluate(one.expression)
        for leaf in one.expression.leaves()
        if not leaf.label and not leaf.metric.endswith(":count")
    }
    if not single:
        return
    selected = joined(config.matchers, str(one_of("__name__", sorted(single))))
    query = f"count by (instance, __name__) ({{{selected}}}) > 1"
    twice = sorted(_counts(api, query, "instance", span))
    if twice:
        shown = ", ".join(twice[:5]) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
        note(
            f"scraped more than once: {shown}; sums over devices count double there, "
            "choose one with source.prometheus.matchers"
        )


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


def _latest(span: Span, counts: Sequence[Counts]) -> int:
    return max((at for found in counts for at in found), default=span.end)


def _braces(matchers: str) -> str:
    return f"{{{matchers}}}" if matchers else ""
