"""A key that stands twice in one mapping of YAML: the second would win, and the first be dropped unsaid.

Settings and own features are read by the agent and by the trainer, each with a YAML loader of its own; what
both ask is here. This package has no YAML: it is handed the loader's nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

from node_anomaly_core.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
_VALUE = "tag:yaml.org,2002:value"  # of a plain `=`, which as a key is a text
_LONGEST_KEY = 80


class Mark(Protocol):
    """Where a node begins, from 0."""

    line: int
    column: int


class Node(Protocol):
    """A key as the loader has it."""

    tag: str
    value: object
    start_mark: Mark


def refuse_repeated_keys(pairs: Iterable[tuple[Node, object]], construct: Callable[[Any], Any]) -> None:
    """Raises ConfigError, with the place of the second, where two keys of a mapping's `pairs` are the same.

    `construct` makes of a key what it means: `on` and `yes` are one key. Merge keys (`<<`) may repeat, and
    what they bring in is not among the pairs yet, so that it may be overridden. Keys that are no scalars are
    left to the loader, which takes none of them.
    """
    seen: dict[Hashable, int] = {}
    for key, _ in pairs:
        if key.tag == _MERGE or not isinstance(key.value, str):
            continue
        meant: Any = key.value if key.tag == _VALUE else construct(key)
        if not isinstance(meant, Hashable):
            continue
        line = key.start_mark.line + 1
        if meant in seen:
            place = f"line {line}, column {key.start_mark.column + 1}"
            what = f"the key {key.value[:_LONGEST_KEY]} is given twice, first in line {seen[meant]}"
            raise ConfigError(f"{place}: {what}", "keep one of the two")
        seen[meant] = line
