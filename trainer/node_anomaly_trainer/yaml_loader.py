"""YAML as the trainer reads its settings and own features."""

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


def parse_yaml(text: str) -> object:
    """What a document holds. Raises ConfigError for a key that is given twice, and what yaml raises."""
    return yaml.load(text, UniqueKeys)  # noqa: S506  # it is the safe one
