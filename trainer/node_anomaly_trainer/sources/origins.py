"""Where each feature of each node is read: what its agent saw, or what its exporter's metrics give.

Each node is decided by itself. One agent that has run for long must not take the nodes that have
node_exporter alone out of a history, nor must one that is new cost its own node its past.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from node_anomaly_core.features import Feature
from node_anomaly_trainer.few import few
from node_anomaly_trainer.node_names import host_of
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.sources.wanted import AGENT, EXPORTER

ENOUGH = 0.9
"""Agents are preferred where they cover at least this share of what node_exporter covers."""

Instants = Callable[[str | None, str], int]
"""Instance and feature -> at how many instants it is there."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What the two origins have to offer."""

    agents: Instants
    of_agents: frozenset[str]
    """Features that any agent has."""
    living: frozenset[str]
    """Instances of agents of which any instant shows anything."""
    exporters: Instants
    computable: frozenset[str]
    """Features whose metrics are there on any node."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Which instances make which node, and which features of it are its agent's."""

    instances: Mapping[str, Mapping[str, str]]
    """node -> origin -> instance."""
    from_agent: Mapping[str, frozenset[str]]
    from_exporter: Mapping[str, frozenset[str]]


def nodes_of(
    agents: Sequence[str],
    exporters: Sequence[str],
    nodenames: Iterable[tuple[str, str]],
    features: Sequence[Feature],
    sides: Sides,
    note: Note,
) -> Nodes:
    """Nodes with the features that are read of each; a node of which nothing is read is left out.

    `nodenames` are pairs of an exporter's instance and the host name its kernel has. An agent and an exporter
    of one host are one node, named without port; where one origin is in use, a node is its instance.
    """
    names = [feature.name for feature in features]
    decided = {}
    young: dict[str, list[str]] = {}
    for host, found in _joined(agents, exporters, nodenames, note).items():
        choice = {name: _origin(found, name, sides) for name in names}
        decided[host] = found, choice
        for name, origin in choice.items():
            if origin == EXPORTER and sides.agents(found.get(AGENT), name):
                young.setdefault(host, []).append(name)
    _tell(decided, young, note)
    return _settled(decided)


def _joined(
    agents: Sequence[str], exporters: Sequence[str], nodenames: Iterable[tuple[str, str]], note: Note
) -> dict[str, dict[str, str]]:
    """Node -> origin -> instance. Where a host has several of one origin, each of its instances is a node."""
    if not agents or not exporters:
        origin = AGENT if agents else EXPORTER
        return {value: {origin: value} for value in (*agents, *exporters)}
    of_agents = {host_of(value) for value in agents}
    named = {instance: name for instance, name in nodenames if name in of_agents}
    hosts: dict[str, dict[str, list[str]]] = {}
    for origin, values in ((AGENT, agents), (EXPORTER, exporters)):
        for value in values:
            host = host_of(value)
            if origin == EXPORTER and host not in of_agents:
                host = named.get(value, host)
            hosts.setdefault(host, {}).setdefault(origin, []).append(value)
    nodes: dict[str, dict[str, str]] = {}
    crowded = []
    for host, found in hosts.items():
        if max(map(len, found.values())) == 1:
            nodes[host] = {origin: value for origin, (value,) in found.items()}
            continue
        crowded.append(host)
        for origin, values in found.items():
            for value in values:
                nodes.setdefault(value, {})[origin] = value
    if crowded:
        note(
            f"several instances of one kind share a host ({few(sorted(crowded))}), so agents and "
            "node_exporter cannot be joined there: each instance is a node of its own"
        )
    return nodes


def _origin(found: Mapping[str, str], name: str, sides: Sides) -> str:
    """Where a node's feature is read; "" where neither has it."""
    agent, exporter = found.get(AGENT), found.get(EXPORTER)
    computable = exporter is not None and name in sides.computable
    if not computable:
        return AGENT if agent is not None and name in sides.of_agents else ""
    seen, computed = sides.agents(agent, name), sides.exporters(exporter, name)
    if not seen and not computed:  # no instant shows it, and it is still to be asked for
        return AGENT if agent in sides.living and name in sides.of_agents else EXPORTER
    return AGENT if seen and seen >= ENOUGH * computed else EXPORTER


def _tell(
    decided: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]],
    young: Mapping[str, Sequence[str]],
    note: Note,
) -> None:
    if young:
        names = sorted({name for lacking in young.values() for name in lacking})
        note(
            f"agents of {len(young)} nodes ({few(sorted(young))}) have less of {len(names)} features "
            f"({few(names)}) than node_exporter, which is taken there"
        )
    alone = {
        origin: sorted(host for host, (found, _) in decided.items() if set(found) == {origin})
        for origin in (AGENT, EXPORTER)
    }
    both = len(decided) - len(alone[AGENT]) - len(alone[EXPORTER])
    if alone[AGENT] and alone[EXPORTER] and not both:
        note(
            f"no host has both an agent ({few(alone[AGENT])}) and node_exporter "
            f"({few(alone[EXPORTER])}): if these are the same hosts under two names, each counts twice; "
            "give both the same instance, or choose one job with source.prometheus.matchers"
        )
    elif alone[EXPORTER] and (both or alone[AGENT]):
        note(f"read from node_exporter alone, without an agent: {few(alone[EXPORTER])}")


def _settled(decided: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]) -> Nodes:
    """Origins from which nothing is read are dropped, and names keep their port where one origin is left."""
    alike: dict[frozenset[str], frozenset[str]] = {}  # a fleet has few different sets of features
    instances: dict[str, Mapping[str, str]] = {}
    taken: dict[str, dict[str, frozenset[str]]] = {AGENT: {}, EXPORTER: {}}
    for host, (found, choice) in decided.items():
        read = {origin: frozenset(n for n, o in choice.items() if o == origin) for origin in found}
        used = {origin: value for origin, value in found.items() if read[origin]}
        if used:
            instances[host] = used
            for origin in used:
                taken[origin][host] = alike.setdefault(read[origin], read[origin])
    if len({origin for used in instances.values() for origin in used}) == 1:
        renamed = {host: value for host, used in instances.items() for value in used.values()}
        instances = {renamed[host]: used for host, used in instances.items()}
        taken = {origin: {renamed[host]: of for host, of in by.items()} for origin, by in taken.items()}
    return Nodes(dict(sorted(instances.items())), taken[AGENT], taken[EXPORTER])
