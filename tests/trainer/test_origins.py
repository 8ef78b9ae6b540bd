"""Which instances make a node of a history, and where each of its features is read."""

from __future__ import annotations

import pytest

from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.sources.origins import Sides, nodes_of

CPU, TCP, LOGS = "cpu_busy_ratio", "tcp_established_count", "log_lines_per_second"
FEATURES = [FEATURES_BY_NAME[name] for name in (CPU, TCP, LOGS)]
AGENT, EXPORTER = "anomaly_feature_value", "node_exporter"


def settled(agents, exporters, names=()):
    """`agents` and `exporters` are instances with the instants at which each feature is there."""
    notes = []
    sides = Sides(
        agents=lambda instance, name: agents.get(instance, {}).get(name, 0),
        of_agents=frozenset(name for seen in agents.values() for name in seen),
        living=frozenset(instance for instance, seen in agents.items() if any(seen.values())),
        exporters=lambda instance, name: exporters.get(instance, {}).get(name, 0),
        computable=frozenset({CPU, TCP}) if exporters else frozenset(),
    )
    return nodes_of(sorted(agents), sorted(exporters), names, FEATURES, sides, notes.append), notes


WHOLE = {CPU: 25, TCP: 25, LOGS: 25}
OURS = {CPU: 25, TCP: 25}


def test_agents_alone_keep_their_instances_as_names():
    nodes, notes = settled({"a:9917": WHOLE, "b:9917": WHOLE}, {})
    assert nodes.instances == {"a:9917": {AGENT: "a:9917"}, "b:9917": {AGENT: "b:9917"}}
    assert nodes.from_agent["a:9917"] == {CPU, TCP, LOGS}
    assert notes == []


def test_one_agent_that_ran_through_the_range_takes_no_node_out_of_the_history():
    nodes, notes = settled({"a:9917": WHOLE}, {f"{host}:9100": OURS for host in "abcdefgh"})
    assert list(nodes.instances) == list("abcdefgh")
    assert nodes.from_agent == {"a": frozenset({CPU, TCP, LOGS})}
    assert nodes.from_exporter == {host: frozenset({CPU, TCP}) for host in "bcdefgh"}
    assert notes == ["read from node_exporter alone, without an agent: b, c, d, e, f and 2 more"]


@pytest.mark.parametrize(("seen", "origin"), [(22, EXPORTER), (23, AGENT)])
def test_an_agent_is_taken_from_nine_tenths_of_its_own_exporter_on(seen, origin):
    nodes, notes = settled({"a:9917": {CPU: seen, TCP: 25}}, {"a:9100": OURS, "b:9100": OURS})
    assert (CPU in nodes.from_agent["a"]) is (origin == AGENT)
    assert any("have less of 1 features (cpu_busy_ratio)" in note for note in notes) is (origin == EXPORTER)


def test_what_neither_shows_is_asked_of_a_living_agent_and_else_of_the_exporter():
    silent = {CPU: 25}
    nodes, _ = settled(
        {"a:9917": silent, "b:9917": WHOLE, "c:9917": {}}, {f"{h}:9100": {CPU: 25} for h in "abc"}
    )
    assert TCP in nodes.from_agent["a"]
    assert TCP in nodes.from_exporter["c"]


def test_an_agent_by_name_and_an_exporter_by_address_are_one_node():
    nodes, _ = settled(
        {"web-1": WHOLE}, {"10.0.0.1:9100": OURS, "10.0.0.2:9100": OURS}, [("10.0.0.1:9100", "web-1")]
    )
    assert list(nodes.instances) == ["10.0.0.2", "web-1"]
    assert nodes.instances["10.0.0.2"] == {EXPORTER: "10.0.0.2:9100"}


def test_a_host_with_two_of_a_kind_costs_no_other_host_its_join_nor_any_node():
    """An agent whose port was changed within the range, and one node that has no agent."""
    agents = {**{f"n{at}:9917": WHOLE for at in range(3)}, "n0:9918": WHOLE}
    nodes, notes = settled(agents, {f"n{at}:9100": OURS for at in range(4)})
    assert list(nodes.instances) == ["n0:9100", "n0:9917", "n0:9918", "n1", "n2", "n3"]
    assert nodes.from_exporter["n3"] == {CPU, TCP}
    assert notes[0].startswith("several instances of one kind share a host (n0), so agents")


def test_an_agent_and_an_exporter_of_the_same_instance_are_one_node_also_there():
    nodes, _ = settled({"a": WHOLE, "a:9917": WHOLE, "b": WHOLE}, {"a": OURS, "b": OURS})
    assert set(nodes.instances) == {"a", "a:9917", "b"}
    assert nodes.from_agent["a"] == {CPU, TCP, LOGS}
