"""Which nodes of a history a label value, or a name that a person wrote, stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

PORT = re.compile(r"(?P<host>[^:]+|\[.+\]):\d+")


def host_of(name: str) -> str:
    """`db-1:9100` without its port; a name without one as it is."""
    with_port = PORT.fullmatch(name)
    return with_port["host"] if with_port else name


class NodeNames:
    """The nodes of a history under all their names.

    A node is known by its own name (usually the label instance), by that without the port, and by its
    aliases. Where two nodes share a host, the host's name stands for both.
    """

    def __init__(self, nodes: Sequence[str], aliases: Iterable[tuple[str, str]] = ()) -> None:
        """`aliases` are pairs of a name by which a node is known anyway, whatever the port, and another one.

        Pairs of unknown nodes are left out.
        """
        self.nodes = tuple(nodes)
        self._exact = {node: (at,) for at, node in enumerate(self.nodes)}
        hosts: dict[str, set[int]] = {}
        for at, node in enumerate(self.nodes):
            hosts.setdefault(host_of(node), set()).add(at)
        self._hosts = {name: tuple(sorted(found)) for name, found in hosts.items()}
        for node, alias in aliases:
            if alias and (known := self.find(node)):
                hosts.setdefault(alias, set()).update(known)
        self._hosts = {name: tuple(sorted(found)) for name, found in hosts.items()}

    def find(self, name: str) -> tuple[int, ...]:
        """Positions of the nodes that `name` stands for; of its host's if only the port differs."""
        return self._exact.get(name) or self._hosts.get(name) or self._hosts.get(host_of(name)) or ()

    def find_labels(self, labels: Mapping[str, object], keys: Sequence[str]) -> tuple[int, ...]:
        """Positions by the first of `keys` whose value is a known node."""
        for key in keys:
            if found := self.find(str(labels.get(key, ""))):
                return found
        return ()
