"""What is concluded from the index and the counts of a server, on one whose answers are known by heart."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.sources.duplicates import doubled
from node_anomaly_trainer.sources.seen import (
    INSTANCES_AT_ONCE,
    INSTANTS,
    NAMES_AT_ONCE,
    Seen,
    counted,
    seen_of_exporters,
)
from node_anomaly_trainer.sources.survey import Survey, server_clock, survey
from node_anomaly_trainer.sources.wanted import AGENT, AGENT_METRIC, EXPORTER, Span

SPAN = Span(1_700_000_000, 15, 24 * 40 + 1)
STEP = 600
"""Seconds between two of the instants at which a server is asked over that span."""

AVAILABLE, DIRTY, FORKS = (
    FEATURES_BY_NAME[name] for name in ("memory_available_ratio", "memory_dirty_ratio", "forks_per_second")
)
TOTAL, FREE, DIRTIED, FORKED = (
    "node_memory_MemTotal_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_Dirty_bytes",
    "node_forks_total",
)

Counts = Mapping[int, float]
"""How many series by the number of the instant, 1 to INSTANTS."""


def during(first: int, last: int, series: float = 1.0) -> Counts:
    return dict.fromkeys(range(first, last + 1), series)


ALWAYS = during(1, INSTANTS)


class Server:
    """Answers what an index and counts of these series would."""

    def __init__(
        self,
        exporters: Mapping[str, Mapping[str, Counts]],
        agents: Mapping[str, Mapping[str, Counts]] | None = None,
        jobs: Sequence[str] = (),
        samples: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.connection = SimpleNamespace(url="http://p:9090")
        self.exporters, self.agents = exporters, agents or {}
        self.jobs, self.samples = jobs, samples
        self.asked: list[str] = []

    def label_values(self, label: str, match: Sequence[str], start: float, end: float) -> tuple[str, ...]:
        if label == "job":
            return tuple(self.jobs)
        if label == "instance":
            return tuple(sorted(self.agents if AGENT_METRIC in match[0] else self.exporters))
        names = {name for metrics in self.exporters.values() for name in metrics}
        return tuple(sorted(names | ({AGENT_METRIC} if self.agents else set())))

    def query_range(self, query: str, start: int, end: int, step: int) -> list[dict[str, Any]]:
        self.asked.append(query)
        if "nodename" in query:
            return []
        key, held = ("feature", self.agents) if AGENT_METRIC in query else ("__name__", self.exporters)
        return [
            {
                "metric": {"instance": instance, key: name},
                "values": [[SPAN.start + STEP * at, f"{count:g}"] for at, count in counts.items()],
            }
            for instance, metrics in held.items()
            for name, counts in metrics.items()
            if re.escape(instance) in query or f'"{instance}"' in query
        ]

    def query(self, query: str, at: float | None = None) -> Sequence[Mapping[str, Any]]:
        return self.samples


def surveyed(server: Server, *features: Any) -> tuple[Survey, list[str]]:
    notes: list[str] = []
    config = PrometheusConfig(url="http://p:9090", matchers='job="node"')
    return survey(server, config, features or (AVAILABLE,), SPAN, notes.append), notes  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- what is there


def test_how_many_series_a_node_has_is_a_mean_over_the_nodes_at_the_busiest_instant() -> None:
    server = Server(
        {
            "a:9100": {TOTAL: {**ALWAYS, 5: 2.0}, FREE: ALWAYS},
            "b:9100": {TOTAL: during(1, 9), FREE: during(10, INSTANTS)},
        }
    )
    found, _ = surveyed(server)
    assert found.series_per_instance == {TOTAL: 1.5, FREE: 1.0}


def test_each_origin_is_tried_where_it_was_last_seen() -> None:
    server = Server(
        {"a:9100": {TOTAL: during(1, 20), FREE: during(1, 20)}},
        {"b:9917": {AVAILABLE.name: during(1, 11)}},
    )
    found, _ = surveyed(server)
    assert found.seen_at == {AGENT: SPAN.start + 11 * STEP, EXPORTER: SPAN.start + 20 * STEP}


def test_an_origin_that_has_nothing_is_tried_at_the_end() -> None:
    found, _ = surveyed(Server({"a:9100": {TOTAL: ALWAYS, FREE: during(1, 20)}}))
    assert found.seen_at[AGENT] == SPAN.end


def test_a_feature_is_there_as_often_as_the_rarest_metric_that_it_needs() -> None:
    """Its agent has it at 20 instants: enough beside 20 of its own exporter, and not beside 24."""
    agents = {"a:9917": {AVAILABLE.name: during(1, 20)}}
    rare, _ = surveyed(Server({"a:9100": {TOTAL: ALWAYS, FREE: during(1, 20)}}, agents))
    often, _ = surveyed(Server({"a:9100": {TOTAL: ALWAYS, FREE: ALWAYS}}, agents))
    assert [one.source for one in rare.wanted] == [AGENT]
    assert [one.source for one in often.wanted] == [EXPORTER]


def test_what_a_server_lacks_is_said_with_how_much_of_it_is_there() -> None:
    server = Server({"a:9100": {TOTAL: ALWAYS}}, jobs=[f"job-{number}" for number in range(12)])
    with pytest.raises(SourceError) as caught:
        surveyed(server, AVAILABLE, FORKS)
    said = str(caught.value)
    assert "holds no series for 2 features (memory_available_ratio, forks_per_second, ...)" in said
    assert 'with matchers job="node": it has 1 of the 3 metrics of node_exporter they need and no ' in said
    assert caught.value.hint.startswith("it holds the jobs job-0, job-1, ")
    assert "job-9, ...: set" in caught.value.hint


def test_agents_that_know_nothing_of_it_are_no_metric_of_an_exporter() -> None:
    server = Server({"a:9100": {TOTAL: ALWAYS}}, {"a:9917": {FORKS.name: ALWAYS}})
    with pytest.raises(SourceError, match=f"it has 1 of the 2 metrics of .* need and {AGENT_METRIC}; tried"):
        surveyed(server, AVAILABLE)


# -------------------------------------------------------------------------------------- what is there twice


def test_of_what_is_scraped_twice_the_metric_is_named_that_is_so_most_of_the_time() -> None:
    twice, shortly = {**ALWAYS, **during(3, 24, 2.0)}, {**ALWAYS, **during(1, 6, 2.0)}
    copies = [{"metric": {"job": job}} for job in ("node", "other")]
    server = Server({"a:9100": {TOTAL: shortly, FREE: ALWAYS, DIRTIED: twice}}, samples=copies)
    with pytest.raises(
        SourceError, match=f"scraped more than once: a:9100: {DIRTIED} of a:9100 has 2 series"
    ):
        surveyed(server, AVAILABLE, DIRTY)


@pytest.mark.parametrize(("instants", "refused"), [(2, False), (3, True)])
def test_two_series_at_up_to_a_fifth_of_the_instants_are_a_job_that_was_renamed(
    instants: int, refused: bool
) -> None:
    """Of ten: a node that came late."""
    late = {**during(15, 24), **during(15, 14 + instants, 2.0)}
    server = Server({"a:9100": {TOTAL: late, FREE: during(15, 24)}})
    if refused:
        with pytest.raises(SourceError, match="scraped more than once: a:9100"):
            surveyed(server)
    else:
        _, notes = surveyed(server)
        assert notes == [
            "scraped more than once for a short time: a:9100; sums over devices count double then"
        ]


def test_a_label_by_which_a_fleet_is_chosen_is_advised_before_that_of_a_pod() -> None:
    found = [
        {"metric": {"cluster": "x", "job": job, "a_pod": pod}}
        for job, pod in (("node", "p-1"), ("kube", "p-2"), ("other", "p-3"))
    ]
    error = doubled(Server({}, samples=found), "", ["b:1", "a:1"], TOTAL, "a:1", 0.0)  # type: ignore[arg-type]
    assert str(error).startswith(
        f"scraped more than once: a:1, b:1: {TOTAL} of a:1 has 3 series that differ "
    )
    assert "a_pod (p-1, p-2, p-3), job (kube, node, other)" in str(error)
    assert error.hint.endswith('for example: job!~"kube|other"')


def test_series_that_differ_in_nothing_are_told_apart_by_no_label() -> None:
    found = [{"metric": {"job": "node"}}, {"metric": {"job": "node"}}]
    error = doubled(Server({}, samples=found), "", ["a:1"], TOTAL, "a:1", 0.0)  # type: ignore[arg-type]
    assert "has 2 series; sums" in str(error)
    assert error.hint.endswith('for example: job="node"')


# ------------------------------------------------------------------------------------------- how it is asked


def test_series_of_all_instances_are_added_up_and_the_latest_double_is_remembered() -> None:
    seen = Seen()
    seen.add("a", "m", {600: 2.0, 1200: 3.0, 1800: 1.0})
    seen.add("b", "m", {1200: 1.0})
    assert seen.series == {"m": {600: 2.0, 1200: 4.0, 1800: 1.0}}
    assert (seen.of("a", "m"), seen.of("b", "m"), seen.of("a", "other"), seen.of(None, "m")) == (3, 1, 0, 0)
    assert (seen.doubled, seen.doubled_at) == ({"a": {"m": 2}}, {("a", "m"): 1200})
    assert seen.latest() == 1800
    assert Seen().latest() == 0


@pytest.mark.parametrize(
    ("seconds", "first", "step"), [(24_000, 0, 1_000), (24_010, 10, 1_000), (10, 0, 1), (0, 0, 1)]
)
def test_instants_are_spread_over_the_range_and_the_newest_is_its_end(
    seconds: int, first: int, step: int
) -> None:
    asked: list[tuple[int, ...]] = []

    def query_range(_query: str, *at: int) -> list[dict[str, Any]]:
        asked.append(at)
        return []

    api = SimpleNamespace(query_range=query_range)
    counted(api, "up", Span(0, 1, seconds + 1))  # type: ignore[arg-type]
    assert asked == [(first, seconds, step)]


def test_instances_are_asked_for_some_at_a_time_by_number_and_by_length() -> None:
    many = [f"n{number}" for number in range(INSTANCES_AT_ONCE + 1)]
    long = [f"{number:0>700}" for number in range(3)]
    for names, sizes in ((many, [INSTANCES_AT_ONCE, 1]), (long, [2, 1])):
        server = Server({name: {FORKED: ALWAYS} for name in names})
        seen = seen_of_exporters(server, "", names, [FORKED], SPAN)  # type: ignore[arg-type]
        assert set(seen.instants) == set(names)
        assert [query.count("|") + 1 for query in server.asked] == sizes
        assert all(len(query) < NAMES_AT_ONCE + 200 for query in server.asked)


# ------------------------------------------------------------------------------------------------- its clock


@pytest.mark.parametrize(("ahead", "said"), [(25, 0), (35, 1), (-35, 1)])
def test_a_clock_that_is_more_than_half_a_minute_off_is_said(ahead: float, said: int) -> None:
    notes: list[str] = []
    clock = time.time() + ahead
    server = Server({}, samples=[{"metric": {}, "value": [clock, f"{clock:.3f}"]}])
    assert server_clock(server, notes.append) == pytest.approx(clock, abs=0.001)  # type: ignore[arg-type]
    assert len(notes) == said
    assert all(f"differs by {ahead:+.0f} s" in note for note in notes)


@pytest.mark.parametrize("samples", [[], [{"metric": {}}], [{"metric": {}, "value": [1, "soon"]}]])
def test_a_server_that_does_not_say_its_time_has_ours(samples: list[dict[str, Any]]) -> None:
    before = time.time()
    assert before <= server_clock(Server({}, samples=samples), print) <= time.time()  # type: ignore[arg-type]
