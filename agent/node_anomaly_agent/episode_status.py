"""What a scrape and a page show of episodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from node_anomaly_agent.families import Family, counter, plain_counter, plain_gauge

if TYPE_CHECKING:
    from node_anomaly_agent.episode import Episode

EPISODE_OPERATIONS: tuple[str, ...] = ("load", "write")


@dataclass(frozen=True, slots=True)
class EpisodeStatus:
    """What is known after a tick.

    Attributes:
        detected: episodes that began since the agent started.
        ongoing: whether one goes on.
        quiet: whether a quiet window holds back new ones.
        failures: files that could not be read or written, by each of EPISODE_OPERATIONS.
        recent: the latest ones, oldest first, without their flight records.
    """

    detected: int = 0
    ongoing: bool = False
    quiet: bool = False
    failures: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(EPISODE_OPERATIONS, 0))
    recent: tuple[Episode, ...] = ()


def episode_families(status: EpisodeStatus) -> Iterator[Family]:
    """The metrics."""
    yield plain_counter(
        "anomalies_detected",
        "Episodes that began since the agent started: a score of 1 or more for three ticks in a row.",
        status.detected,
    )
    yield plain_gauge(
        "anomaly_agent_episode_open",
        "Whether an episode goes on; it ends when the score has stayed below 1 for episodes.end-after.",
        status.ongoing,
    )
    yield plain_gauge(
        "anomaly_agent_quiet",
        "Whether a configured quiet window holds back new episodes now; the score is shown as ever.",
        status.quiet,
    )
    yield counter(
        "anomaly_agent_episode_failures",
        "Files of episodes that could not be read or written.",
        status.failures.items(),
        "operation",
    )
