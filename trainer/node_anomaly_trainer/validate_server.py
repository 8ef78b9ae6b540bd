"""Whether a Prometheus can give the history that the configuration asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node_anomaly_core.errors import AnomalyError, SourceError, TrainingError
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import MINIMUM_TICKS, least_ticks
from node_anomaly_trainer.exclusions import selector
from node_anomaly_trainer.memory import needed_bytes
from node_anomaly_trainer.node_names import host_of
from node_anomaly_trainer.production import in_production
from node_anomaly_trainer.sources import wanted_features
from node_anomaly_trainer.sources.duplicates import doubled, single_metrics
from node_anomaly_trainer.sources.matchers import joined, one_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi, Series
from node_anomaly_trainer.sources.wanted import AGENT_METRIC, RATE_WINDOW_INTERVALS
from node_anomaly_trainer.validate import NOTE, OK, PROBLEM, Check
from node_anomaly_trainer.workspace import Workspace

TOLERATED_SKEW_S = 5.0
RANGE_POINTS = 200
TOLERATED_LATE = 0.02
"""Share of the range, from its start, that may be without data."""

SCRAPES_SEEN_S = 600
MOST_NAMED = 10
OWN = "own"
"""The group of users' own features."""


def check_server(config: TrainConfig) -> Iterator[Check]:
    """The checks in turn; where the server does not answer at all, only that is said."""
    prometheus = config.source.prometheus
    try:
        features = wanted_features(config)
        api = PrometheusApi(prometheus)
        before = time.time()
        answer = api.query("vector(time())")
        local = (before + time.time()) / 2
    except AnomalyError as error:
        yield Check("prometheus", PROBLEM, error.message, error.hint)
        return
    yield Check("prometheus", OK, f"{prometheus.url} answers, {_version(api)}")
    skew = _value(answer) - local
    yield check_skew(skew, max(TOLERATED_SKEW_S, config.interval))
    # The server's own clock, so that a skew is one problem and not five.
    end = prometheus.end if prometheus.end is not None else local + skew
    server = _Server(api, config, end)
    for check in (server.scrapes, lambda: server.features(features), server.exclusions):
        try:
            yield from check()
        except SourceError as error:
            yield Check("prometheus", PROBLEM, error.message, error.hint)


def check_skew(skew: float, tolerated: float) -> Check:
    """How far the server's clock is from this host's, in seconds; positive if it is ahead."""
    where = f"the server's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this host's"
    if abs(skew) <= tolerated:
        return Check("clock", OK, where)
    return Check("clock", PROBLEM, where, "let both hosts keep time with NTP; ranges end at the wrong moment")


@dataclass(frozen=True, slots=True)
class _Hosts:
    """Which hosts have an agent, and the names of those that have an exporter, by its instance."""

    agents: frozenset[str]
    exporters: Mapping[str, str]

    def has_agent(self, instance: str) -> bool:
        """Whether the exporter's host has one, by its address or by its name."""
        return bool({host_of(instance), self.exporters.get(instance, "")} & self.agents)

    @property
    def number(self) -> int:
        """How many hosts there are."""
        alone = {host_of(instance) for instance in self.exporters if not self.has_agent(instance)}
        return len(self.agents) + len(alone)


class _Server:
    """The questions whose answers depend on the range's end."""

    def __init__(self, api: PrometheusApi, config: TrainConfig, end: float) -> None:
        self._api, self._config = api, config
        self._prometheus = config.source.prometheus
        step = max(1, round(config.interval))
        self._end = int(end // step * step)
        self._window_s = RATE_WINDOW_INTERVALS * config.interval

    def scrapes(self) -> Iterator[Check]:
        """Whether the window of every rate holds two samples."""
        up = selector("up", self._prometheus.matchers)
        found = self._api.query(f"max(count_over_time({up}[{SCRAPES_SEEN_S}s]))", self._end)
        if not found:
            yield Check("scrapes", NOTE, f"no {up} at {_iso(self._end)}: how often it scrapes is not known")
            return
        every = SCRAPES_SEEN_S / max(_value(found), 1.0)
        told = f"about every {every:.0f} s; rates are taken over {self._window_s:g} s"
        if 2.0 * every <= self._window_s:
            yield Check("scrapes", OK, told)
        else:
            longer = 5 * -(-every // 10)
            yield Check("scrapes", PROBLEM, f"{told}, which need two samples", f"set interval: {longer:g}s")

    def features(self, features: Sequence[Feature]) -> Iterator[Check]:
        """Which features have series at the end of the range, and how far back the first that has goes."""
        seen_by_agents = selector(AGENT_METRIC, self._prometheus.matchers)
        agents = {
            str(series["metric"].get("feature", ""))
            for series in self._api.query(f"count by (feature) ({seen_by_agents})", self._end)
        }
        nodes: dict[str, int] = {}
        for feature in features:
            try:
                nodes[feature.name] = self._nodes(feature)
            except SourceError as error:
                nodes[feature.name] = 0
                yield Check(f"feature {feature.name}", PROBLEM, error.message, error.hint)
        missing = [name for name, count in nodes.items() if not count and name not in agents]
        own = {feature.name for feature in features if feature.group == OWN}
        found = len(features) - len(missing)
        told = f"{found} of {len(features)} have series at {_iso(self._end)}"
        by_exporters = max(nodes.values(), default=0)
        if by_exporters:
            told += f", on up to {by_exporters} nodes"
        elif found:
            told += ": all from agents, none from node_exporter"
        hosts = self._hosts() if found else _Hosts(frozenset(), {})
        most = max(by_exporters, hosts.number)
        if not found:
            jobs = self._jobs()
            yield Check("features", PROBLEM, told, f"{jobs}; check source.prometheus.matchers and end")
            return
        names = ", ".join(missing[:MOST_NAMED]) + (", ..." if len(missing) > MOST_NAMED else "")
        if missing:
            fix = "fine where no node has such a thing; else enable that collector of node_exporter"
            yield Check("features", NOTE, f"{told}; none for {names}", fix)
        else:
            yield Check("features", OK, told)
        for name in missing:
            if name in own:
                query = next(feature for feature in features if feature.name == name)
                yield Check(
                    f"own feature {name}",
                    PROBLEM,
                    f"its query gives nothing: {self._query(query)}",
                    "run the query in the server's own page and correct promql, or remove the feature",
                )
        yield from self._duplicates(features, hosts)
        if most and self._config.training.check_memory:
            yield self._memory(most, len(features))
        first = next((feature for feature in features if nodes[feature.name]), None)
        ticks = least_ticks(most, self._config.training.fit_fraction) if most else MINIMUM_TICKS
        yield self._reach(f"count({self._query(first)})" if first else f"count({seen_by_agents})", ticks)

    def exclusions(self) -> Iterator[Check]:
        """Which of the metrics that exclusions are read from the server has; none of them is needed."""
        wanted = self._config.exclusions
        metrics = {}
        if wanted.alerts:
            metrics["ALERTS"] = selector("ALERTS", 'alertstate="firing"', wanted.alert_matchers)
        if wanted.after_reboot > 0:
            metrics["node_boot_time_seconds"] = selector("node_boot_time_seconds", self._prometheus.matchers)
        if wanted.cordoned:
            metrics["kube_node_spec_unschedulable"] = "kube_node_spec_unschedulable"
        present = {name: bool(self._over_range(f"count({what})")) for name, what in metrics.items()}
        has = [name for name, there in present.items() if there]
        lacks = [name for name, there in present.items() if not there]
        told = f"found {', '.join(has) or 'nothing'}"
        if lacks:
            told += f"; not in the range: {', '.join(lacks)}, which excludes nothing"
        yield Check("exclusions", OK, told)

    def _hosts(self) -> _Hosts:
        """Those with an agent, node_exporter, or both."""
        matchers = self._prometheus.matchers
        agents = self._api.query(f"count by (instance) ({selector(AGENT_METRIC, matchers)})", self._end)
        uname = f"count by (instance, nodename) ({selector('node_uname_info', matchers)})"
        return _Hosts(
            frozenset(host_of(str(series["metric"].get("instance", ""))) for series in agents),
            {
                str(series["metric"].get("instance", "")): str(series["metric"].get("nodename", ""))
                for series in self._api.query(uname, self._end)
            },
        )

    def _duplicates(self, features: Sequence[Feature], hosts: _Hosts) -> Iterator[Check]:
        """Whether node_exporter's series are there once, on nodes without an agent to take them from."""
        metrics = sorted(single_metrics(features))
        selected = joined(self._prometheus.matchers, str(one_of("__name__", metrics)))
        query = f"count by (instance, __name__) ({{{selected}}}) > 1"
        twice = {
            instance: str(series["metric"].get("__name__", ""))
            for series in (self._api.query(query, self._end) if metrics else ())
            if not hosts.has_agent(instance := str(series["metric"].get("instance", "")))
        }
        if twice:
            example = min(twice)
            said = doubled(self._api, self._prometheus.matchers, twice, twice[example], example, self._end)
            yield Check("duplicates", PROBLEM, said.message, said.hint)

    def _memory(self, nodes: int, features: int) -> Check:
        """Whether as many nodes as are there now could be trained on here."""
        ticks = int(self._prometheus.range // self._config.interval)
        notes: list[str] = []
        workspace = Workspace(self._config.training, notes.append, rival=self._rival())
        try:
            workspace.admit(nodes, ticks, features)
        except TrainingError as error:
            return Check("memory", PROBLEM, error.message.removeprefix("memory: "), error.hint)
        needed = needed_bytes(nodes, ticks, features) / 2**30
        told = f"{nodes} nodes and {ticks:,} ticks take about {needed:.1f} GiB"
        return Check("memory", OK, "; ".join([told, *(note.removeprefix("memory: ") for note in notes)]))

    def _rival(self) -> bool:
        """Whether a bundle in production would be replayed beside the candidate."""
        directory = Path(self._config.publish.directory)
        return in_production(directory, self._config.interval, lambda _line: None) is not None

    def _reach(self, query: str, ticks: int) -> Check:
        start = self._end - self._prometheus.range
        points = self._over_range(query)
        first = min(
            (float(series["values"][0][0]) for series in points if series["values"]), default=self._end
        )
        told = f"history from {_iso(first)} to {_iso(self._end)}"
        needed = ticks * self._config.interval
        if self._end - first < needed:
            return Check(
                "retention",
                PROBLEM,
                f"{told}; a run needs {needed / 3600.0:.1f} h ({ticks} ticks of {self._config.interval:g} s)",
                "wait until there is as much, or read another server; --source synthetic needs none",
            )
        late = first - start
        if late <= max(TOLERATED_LATE * self._prometheus.range, 2.0 * self._step()):
            return Check("retention", OK, told)
        hours = (self._end - first) / 3600.0
        shorter = f"{hours / 24:.0f}d" if hours >= 48 else f"{max(hours, 1):.0f}h"
        return Check(
            "retention",
            PROBLEM,
            f"{told}, the range begins {late / 86400.0:.1f} days earlier",
            f"set source.prometheus.range: {shorter}, or raise the server's --storage.tsdb.retention.time",
        )

    def _over_range(self, query: str) -> Sequence[Series]:
        step = self._step()
        first = self._end - int(self._prometheus.range // step) * step
        return self._api.query_range(query, first, self._end, step)

    def _step(self) -> int:
        return max(1, int(self._prometheus.range // RANGE_POINTS))

    def _nodes(self, feature: Feature) -> int:
        query = self._query(feature)
        return int(_value(self._api.query(f"count({query})", self._end), 0.0)) if query else 0

    def _query(self, feature: Feature) -> str:
        if feature.expression is None:
            return ""
        return feature.promql(window=f"{self._window_s:g}s", matchers=self._prometheus.matchers)

    def _jobs(self) -> str:
        found = self._api.query("count by (job) (up)", self._end)
        names = sorted(str(series["metric"].get("job", "")) for series in found)
        return f"it scrapes {', '.join(names[:MOST_NAMED])}" if names else "it scrapes nothing then"


def _version(api: PrometheusApi) -> str:
    """What the server says of itself; Mimir and others need not say anything."""
    try:
        told = api.connection.get("/api/v1/status/buildinfo", {})
    except SourceError:
        return "it does not tell its version"
    version = told.get("version") if isinstance(told, dict) else None
    return f"version {version}" if version else "it does not tell its version"


def _value(vector: Sequence[Series], default: float = float("nan")) -> float:
    """The number of a vector with one series."""
    try:
        return float(vector[0]["value"][1]) if vector else default
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(
            f"the server's answer cannot be read ({error})", "is this Prometheus' HTTP API?"
        ) from error


def _iso(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
