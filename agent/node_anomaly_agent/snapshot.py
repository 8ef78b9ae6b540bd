"""What the agent knows after a tick: one immutable object that every scrape and page reads.

The loop is the only writer. It makes a new snapshot and publishes it by one assignment, so a reader never
sees half a tick and needs no lock.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from node_anomaly_agent.degradation import DegradationStatus
from node_anomaly_agent.distribution_status import DistributionStatus
from node_anomaly_agent.episode_status import EpisodeStatus
from node_anomaly_agent.forecast_status import ForecastStatus
from node_anomaly_agent.logs.status import LogStatus
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.sampler import CollectorStatus
from node_anomaly_agent.score_history import ScoreHistory
from node_anomaly_agent.selftest_status import SelfTestStatus
from node_anomaly_agent.web_status import WebStatus
from node_anomaly_core.errors import BUNDLE_REASONS
from node_anomaly_core.features import Feature
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.score import Score
from node_anomaly_core.witnesses import Witness

PHASES: tuple[str, ...] = ("sample", "score")
FAILURE_REASONS: tuple[str, ...] = ("sample", "score")
"""Which half of an evaluation raised."""
SKIP_REASONS: tuple[str, ...] = ("overrun", "no_bundle")
"""A tick that was due while the one before still ran, or one without any bundle to score with."""
STATE_OPERATIONS: tuple[str, ...] = ("load", "save")
FEATURE_STATES: tuple[str, ...] = ("active", "constant", "missing", "imputed")
DURATION_BUCKETS: tuple[float, ...] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds; a healthy tick takes 2 to 10 ms."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts per bucket of DURATION_BUCKETS and one above them all, and the sum in seconds."""

    counts: tuple[int, ...] = (0,) * (len(DURATION_BUCKETS) + 1)
    total: float = 0.0

    def observe(self, seconds: float) -> Histogram:
        """The histogram with one more observation."""
        at = bisect.bisect_left(DURATION_BUCKETS, seconds)
        counts = (*self.counts[:at], self.counts[at] + 1, *self.counts[at + 1 :])
        return Histogram(counts, self.total + seconds)


def _zeros(labels: tuple[str, ...]) -> Mapping[str, int]:
    return dict.fromkeys(labels, 0)


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything that is only ever counted, each label value present from the start."""

    evaluations: int = 0
    failures: Mapping[str, int] = field(default_factory=lambda: _zeros(FAILURE_REASONS))
    skipped: Mapping[str, int] = field(default_factory=lambda: _zeros(SKIP_REASONS))
    durations: Mapping[str, Histogram] = field(default_factory=lambda: dict.fromkeys(PHASES, Histogram()))
    reloads: int = 0
    reload_failures: Mapping[str, int] = field(default_factory=lambda: _zeros(BUNDLE_REASONS))
    state_failures: Mapping[str, int] = field(default_factory=lambda: _zeros(STATE_OPERATIONS))

    def add(self, name: str, label: str | None = None, amount: int = 1) -> Counters:
        """The counters with `amount` more of one of them."""
        current = getattr(self, name)
        value: Any = current + amount if label is None else {**current, label: current[label] + amount}
        return replace(self, **{name: value})

    def evaluated(self, sample_s: float, score_s: float) -> Counters:
        """The counters with one more evaluation that succeeded, and how long its phases took, in seconds."""
        before = self.durations
        durations = {
            **before,
            "sample": before["sample"].observe(sample_s),
            "score": before["score"].observe(score_s),
        }
        return Counters(  # every tick: replace() looks at each field anew
            self.evaluations + 1,
            self.failures,
            self.skipped,
            durations,
            self.reloads,
            self.reload_failures,
            self.state_failures,
        )

    def observe(self, phase: str, seconds: float) -> Counters:
        """The counters with one more duration of a phase."""
        return replace(self, durations={**self.durations, phase: self.durations[phase].observe(seconds)})


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """The bundle in use, without its bytes."""

    path: str
    version: str
    origin: str
    trained_at: float
    models: tuple[tuple[str, str], ...]
    features: tuple[Feature, ...]
    provenance: Mapping[str, str | float]
    budget_per_week: float = 1.0
    signed_by: str = ""
    witnesses: tuple[Witness, ...] = ()

    @classmethod
    def of(cls, path: str, version: str, manifest: Manifest, signed_by: str = "") -> BundleInfo:
        """What a manifest says, under the version that its digest gives, and the key that signed it."""
        return cls(
            path=path,
            version=version,
            origin=manifest.origin,
            trained_at=manifest.trained_at,
            models=tuple((model.name, model.type) for model in manifest.models),
            features=manifest.features,
            provenance=manifest.provenance,
            budget_per_week=manifest.budget_per_week,
            signed_by=signed_by,
            witnesses=manifest.witnesses,
        )


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """How the latest attempt to load a bundle ended."""

    successful: bool = False
    success_timestamp: float = math.nan
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One published state of the agent. Times are unix seconds but `heartbeat`, which is monotonic."""

    started: float
    interval_s: float
    heartbeat: float
    counters: Counters = field(default_factory=Counters)
    timestamp: float = math.nan
    score: Score | None = None
    warmup_ticks: int = 0
    warmup_done: int = 0
    bundle: BundleInfo | None = None
    reload: ReloadStatus = field(default_factory=ReloadStatus)
    collectors: Mapping[str, CollectorStatus] = field(default_factory=dict)
    process: ProcessStats = field(default_factory=ProcessStats)
    distribution: DistributionStatus = field(default_factory=DistributionStatus)
    logs: LogStatus = field(default_factory=LogStatus)
    web: WebStatus = field(default_factory=WebStatus)
    history: ScoreHistory = field(default_factory=ScoreHistory)
    degradation: DegradationStatus = field(default_factory=DegradationStatus)
    suppressed: Mapping[str, int] = field(default_factory=dict)
    episodes: EpisodeStatus = field(default_factory=EpisodeStatus)
    selftest: SelfTestStatus = field(default_factory=SelfTestStatus)
    forecast: ForecastStatus = field(default_factory=ForecastStatus)

    @property
    def warm(self) -> bool:
        """Whether there is a score to act on."""
        return self.score is not None and self.score.warm

    def not_ready(self) -> str:
        """Why there is nothing to show yet, or an empty string."""
        if self.bundle is None:
            return (
                f"no bundle is loaded: {self.reload.message}"
                if self.reload.message
                else "no bundle is loaded"
            )
        if math.isnan(self.timestamp):
            return "no evaluation has been done yet"
        return ""


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in a score: `share` of 1, in the feature's unit where the rest is."""

    feature: Feature
    share: float
    observed: float
    expected: float
    state: str


def reasons(snapshot: Snapshot, limit: int | None = None) -> list[Reason]:
    """Features by their share in the score, largest first; those without a known share come last."""
    score, bundle = snapshot.score, snapshot.bundle
    if score is None or bundle is None:
        return []
    rows: list[Reason] = []
    columns: zip[Any] = zip(
        bundle.features, score.contributions, score.observed, score.expected, score.states, strict=True
    )
    for feature, share, observed, expected, state in columns:
        rows.append(Reason(feature, float(share), float(observed), float(expected), state))
    rows.sort(key=lambda row: (math.isnan(row.share), -row.share if not math.isnan(row.share) else 0.0))
    return rows[:limit]
