"""How the last self-test went (see selftest.py), as a scrape shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from node_anomaly_agent.families import Family, plain_gauge


@dataclass(frozen=True, slots=True)
class SelfTestStatus:
    """How the last one went."""

    success: float = math.nan
    """1 if the anomaly was seen, 0 if it was not, NaN before the first."""
    timestamp: float = math.nan
    """When, unix seconds."""


def selftest_families(status: SelfTestStatus) -> Iterator[Family]:
    """The metrics."""
    yield plain_gauge(
        "anomaly_agent_selftest_success",
        "Whether an anomaly that the agent made up reached the alarm threshold; absent before the first.",
        status.success,
    )
    yield plain_gauge(
        "anomaly_agent_selftest_timestamp_seconds",
        "When the last self-test ended, as a unix timestamp.",
        status.timestamp,
    )
