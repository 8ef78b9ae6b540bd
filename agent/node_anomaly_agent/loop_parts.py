"""What a daemon is made of; tests put fakes in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from node_anomaly_agent.clock import Clock
from node_anomaly_agent.degradation import Budget
from node_anomaly_agent.distribution import Distribution
from node_anomaly_agent.episodes import Episodes
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.logs.status import LogStatus
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.sampler import Sample
from node_anomaly_agent.scorer import Candidate
from node_anomaly_agent.snapshot import Snapshot
from node_anomaly_agent.state_keeper import StateKeeper
from node_anomaly_agent.suppression import Suppression
from node_anomaly_agent.web_status import WebStatus
from node_anomaly_core.errors import BundleError


class Sampling(Protocol):
    """What the loop needs of the sampler."""

    def sample(self, timestamp: float) -> Sample:
        """Read the host."""

    def state(self) -> Mapping[str, object]:
        """The counters' window, JSON-able."""

    def restore(self, state: Mapping[str, object]) -> bool:
        """Take it over again; False if it is of no use."""


class Reloading(Protocol):
    """What the loop needs of the reloader."""

    def load_now(self) -> Candidate | BundleError | None:
        """The bundle on offer at the start."""

    def poll(self) -> Candidate | BundleError | None:
        """A bundle that is ready, or why one was refused."""

    def next_check(self) -> float:
        """When to poll next."""

    def request(self) -> None:
        """Look again now."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts, as the assembly puts them together.

    Attributes:
        fallback: loads the starter bundle, or another one by its version.
        process: what the agent itself costs now; never raises.
        trim: gives freed memory back to the system.
        distribution: what this node has to do with its bundles besides scoring; none in most tests.
        budget: what the agent may use; none in most tests.
        suppression: which deviations do not count; none in most tests.
        episodes: records alarms; none in most tests.
        logs: what has been counted of the logs.
        web: whether the file of TLS and users is in force.
        tell: tells the service manager what a snapshot shows, and whether a new bundle still waits.
    """

    sampler: Sampling
    reloader: Reloading
    fallback: Callable[[str], Candidate | None]
    clock: Clock
    log: Log
    interval_s: float
    keeper: StateKeeper
    process: Callable[[], ProcessStats]
    trim: Callable[[], None]
    distribution: Distribution | None = None
    budget: Budget | None = None
    suppression: Suppression | None = None
    episodes: Episodes | None = None
    logs: Callable[[], LogStatus] = LogStatus
    web: Callable[[], WebStatus] = WebStatus
    tell: Callable[[Snapshot, bool], None] = lambda _snapshot, _waiting: None
