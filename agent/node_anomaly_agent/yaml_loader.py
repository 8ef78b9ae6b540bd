"""YAML as the agent reads it. Imports yaml, 0.9 MiB that an agent without a file does without."""

from __future__ import annotations

from typing import Any

import yaml

from node_anomaly_core.unique_keys import refuse_repeated_keys


class UniqueKeys(yaml.SafeLoader):
    """The safe loader, which drops the first of two equal keys, without that."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look at each mapping once, as it was written: merging comes later."""
        node = super().compose_mapping_node(anchor)
        refuse_repeated_keys(node.value, self.construct_object)
        return node


def parse_yaml(content: bytes) -> object:
    """What a document holds.

    Raises ConfigError for a key that is given twice; yaml.YAMLError, UnicodeDecodeError, ValueError and
    RecursionError (it nests as deep as the file does) for what is no YAML.
    """
    return yaml.load(content, UniqueKeys)  # noqa: S506  # it is the safe one
