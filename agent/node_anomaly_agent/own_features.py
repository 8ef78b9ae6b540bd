"""Everything that is not read from /proc and /sys: a local node_exporter, and users' own features.

Imported only where one of them is configured (it takes http.client); see docs/own-features.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from node_anomaly_agent.collectors import Collector
from node_anomaly_agent.collectors.exporter import ExporterCollector
from node_anomaly_agent.collectors.http_get import HttpGet, shown_url
from node_anomaly_agent.collectors.node_exporter import NAME, CpuFold, node_exporter_wants
from node_anomaly_agent.collectors.prom_text import Want
from node_anomaly_agent.collectors.textfile import STALE_TICKS, TextfileCollector
from node_anomaly_agent.config import AgentConfig
from node_anomaly_core.expressions import SeriesKey
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.own_features import NODE_EXPORTER, LocalSource, OwnFeature, series_metric

LONGEST_WAIT_S = 5.0
WAITING_SHARE = 3.0
"""All exporters together may take up a third of the interval, so that a tick is never late for one."""


def other_collectors(config: AgentConfig) -> list[Collector]:
    """The collectors of the configured exporters and textfiles; none of them fetches anything yet."""
    url = config.node_exporter_url
    wanted = wanted_of(config.own_features, url)
    whole_host = config.source == "node_exporter"
    exporters = len(wanted.exporters.keys() | ({url} if whole_host else set()))
    wait_s = min(LONGEST_WAIT_S, config.interval_s / (WAITING_SHARE * max(exporters, 1)))
    collectors: list[Collector] = []
    if whole_host:
        metrics = node_exporter_wants(CATALOGUE)
        for metric, wants in wanted.exporters.pop(url, {}).items():
            metrics.setdefault(metric, []).extend(wants)
        collectors.append(ExporterCollector(NAME, HttpGet(url, wait_s), metrics, CpuFold()))
    names: dict[str, int] = {}
    for other, metrics in wanted.exporters.items():
        shown = shown_url(other)
        names[shown] = names.get(shown, 0) + 1  # two that differ in their query only
        name = shown if names[shown] == 1 else f"{shown} ({names[shown]})"
        collectors.append(ExporterCollector(name, HttpGet(other, wait_s), metrics))
    return collectors + textfile_collectors(wanted, config.interval_s)


@dataclass(slots=True)
class Wanted:
    """What is wanted of each place: metric -> the features that want it."""

    exporters: dict[str, dict[str, list[Want]]] = field(default_factory=dict)
    textfiles: dict[str, dict[str, list[Want]]] = field(default_factory=dict)
    ages: dict[str, float] = field(default_factory=dict)


def wanted_of(features: Sequence[OwnFeature], node_exporter_url: str) -> Wanted:
    """What the own features want, by URL and path; `node_exporter` stands for its URL."""
    wanted = Wanted()
    for own in features:
        source = own.source
        if source.textfile:
            metrics = wanted.textfiles.setdefault(source.textfile, {})
            wanted.ages[source.textfile] = max(wanted.ages.get(source.textfile, 0.0), source.max_age_s)
        else:
            url = node_exporter_url if source.exporter == NODE_EXPORTER else source.exporter
            metrics = wanted.exporters.setdefault(url, {})
        metrics.setdefault(source.metric, []).append(_want(series_metric(own.feature.name), source))
    return wanted


def textfile_collectors(wanted: Wanted, interval_s: float) -> list[Collector]:
    """A collector for each file; the most patient of its features decides when it is stale."""
    return [
        TextfileCollector(path, metrics, wanted.ages[path] or STALE_TICKS * interval_s)
        for path, metrics in wanted.textfiles.items()
    ]


def _want(metric: str, source: LocalSource) -> Want:
    def key(labels: Mapping[str, str]) -> SeriesKey | None:
        if not source.selects(labels):
            return None
        return metric, ",".join(f"{name}={value!r}" for name, value in sorted(labels.items()))

    return key
