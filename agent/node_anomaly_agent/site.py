"""What the pages say of the agent besides its last snapshot: settled once, at the start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """The agent that answers.

    Attributes:
        version: the agent's.
        node: the node's name, as the training history has it.
        telemetry_path: where the metrics are.
    """

    version: str
    node: str = ""
    telemetry_path: str = "/metrics"
