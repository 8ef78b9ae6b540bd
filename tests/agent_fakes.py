"""Hand-written stand-ins for the parts of the agent, each with just enough behaviour for a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from node_anomaly_agent.daemon import Daemon
from node_anomaly_agent.degradation import Budget
from node_anomaly_agent.distribution import Distribution
from node_anomaly_agent.loop_parts import Parts
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.sampler import CollectorStatus, Sample
from node_anomaly_agent.scorer import Candidate
from node_anomaly_agent.snapshot import BundleInfo, ReloadStatus, Snapshot
from node_anomaly_agent.state_keeper import StateKeeper
from node_anomaly_core.degradation import MemberHealth
from node_anomaly_core.features import Feature
from node_anomaly_core.reasons import Reasons
from node_anomaly_core.score import Score
from node_anomaly_core.witnesses import Witness

START = 1_700_000_000.0

FEATURES = (
    Feature("cpu_busy_ratio", "ratio", "CPU in use.", "cpu", "gauge", "high", 1e-3, None),
    Feature("disk_read_bytes_per_second", "bytes_per_second", "Read.", "disk", "rate", "both", 1e3, None),
    Feature("temperature_max_celsius", "celsius", "Hottest <zone>.", "kernel", "gauge", "high", 1.0, None),
)


@dataclass
class FakeClock:
    """Time that passes only in `wait` and `advance`; a wake-up ends a wait at once."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)
    woken: bool = False
    on_wait: Callable[[], None] = lambda: None

    def time(self) -> float:
        return START + self.now - 1000.0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if not self.woken:
            self.now += max(seconds, 0.0)
        self.woken = False
        self.on_wait()

    def wake(self) -> None:
        self.woken = True

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeLog:
    """Remembers (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.lines.append((level, event, fields))

    def events(self, level: str | None = None) -> list[str]:
        return [event for one, event, _ in self.lines if level in (None, one)]


class FakeSampler:
    """Gives the same row every time; can be slow, raise, or have another row put in."""

    def __init__(self, clock: FakeClock, row: tuple[float, ...] = (0.5, 2048.0, math.nan)) -> None:
        self.clock = clock
        self.row = row
        self.takes_s = 0.0
        self.error: Exception | None = None
        self.times: list[float] = []
        self.restored: Mapping[str, object] | None = None
        self.collectors = {"cpu": CollectorStatus(True, 0.001, "")}

    def sample(self, timestamp: float) -> Sample:
        self.times.append(timestamp)
        self.clock.advance(self.takes_s)
        if self.error is not None:
            raise self.error
        return Sample(timestamp, np.array(self.row), self.collectors)

    def state(self) -> dict[str, object]:
        return {"ticks": len(self.times)}

    def restore(self, state: Mapping[str, object]) -> bool:
        self.restored = state
        return "ticks" in state

    def close(self) -> None:
        pass


class FakeScorer:
    """Warm after three ticks; then scores `score`."""

    warmup_ticks = 3
    models = SimpleNamespace(forecaster="lstm")

    def __init__(self, score: float = 0.4, features: int = 3) -> None:
        self.score = score
        self.width = features
        self.ticks = 0
        self.error: Exception | None = None
        self.replayed_from: FakeScorer | None = None
        self.health = MemberHealth(("isolation_forest", "lstm"), ("isolation_forest",))

    @property
    def warm(self) -> bool:
        return self.ticks >= self.warmup_ticks

    def step(self, timestamp: float, values: np.ndarray) -> Score:
        if self.error is not None:
            raise self.error
        self.ticks += 1
        return make_score(timestamp, self.score, values, warm=self.warm)

    def state(self) -> dict[str, np.ndarray]:
        return {"ticks": np.array([self.ticks])}

    def restore(self, state: Mapping[str, np.ndarray]) -> bool:
        if "ticks" not in state:
            return False
        self.ticks = int(state["ticks"][0])
        return True

    def replay(self, other: FakeScorer) -> None:
        if self.error is not None:
            raise self.error
        self.replayed_from = other
        self.ticks = other.ticks


def make_score(
    timestamp: float = START,
    score: float = 0.4,
    values: Any = (0.5, 2048.0, math.nan),
    *,
    warm: bool = True,
    held_back_by: tuple[Witness, ...] = (),
    outgrown: bool = False,
) -> Score:
    values = np.asarray(values, dtype=float)
    nothing = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    shares = np.where(known, 1.0, 0.0) * np.arange(len(values), 0, -1)
    return Score(
        timestamp=timestamp,
        warm=warm,
        score=score if warm else math.nan,
        threshold_ratio=1.5,
        threshold_learnt=0.05,
        model_scores={"isolation_forest": score if warm else math.nan, "lstm": math.nan},
        why=Reasons.known(shares / shares.sum() if warm and known.any() else nothing),
        expected=np.where(known, values / 2, np.nan) if warm else nothing,
        observed=values,
        states=tuple("active" if ok else "missing" for ok in known),
        held_back_by=held_back_by,
        outgrown=outgrown,
    )


def make_info(version: str = "0123456789abcdef", origin: str = "trained") -> BundleInfo:
    return BundleInfo(
        path=f"/bundles/{version}",
        version=version,
        origin=origin,
        trained_at=START - 86400.0,
        models=(("isolation_forest", "isolation_forest"), ("lstm", "lstm")),
        features=FEATURES,
        provenance={"source": "<a test>"},
    )


def make_candidate(version: str = "0123456789abcdef", scorer: FakeScorer | None = None) -> Candidate:
    return Candidate(scorer or FakeScorer(), np.arange(3), make_info(version))  # type: ignore[arg-type]


def make_snapshot(**changes: Any) -> Snapshot:
    """A warm agent's snapshot with every field at a fixed value."""
    snapshot = Snapshot(
        started=START - 3600.0,
        interval_s=15.0,
        heartbeat=1000.0,
        timestamp=START,
        score=make_score(),
        warmup_ticks=20,
        warmup_done=20,
        bundle=make_info(),
        reload=ReloadStatus(successful=True, success_timestamp=START - 1800.0),
        collectors={
            "cpu": CollectorStatus(True, 0.001, ""),
            "thermal": CollectorStatus(False, 0.0005, "no thermal zones", missing=True),
        },
    )
    return replace(snapshot, **changes)


class FakeReloader:
    """Hands out what was put into `results`, one for each poll."""

    def __init__(self, clock: FakeClock, first: Any = None) -> None:
        self.clock = clock
        self.first = first
        self.results: list[Any] = []
        self.requests = 0

    def load_now(self) -> Any:
        return self.first

    def poll(self) -> Any:
        return self.results.pop(0) if self.results else None

    def next_check(self) -> float:
        return self.clock.now + 30.0

    def request(self) -> None:
        self.requests += 1


@dataclass
class Rig:
    """A daemon made of fakes, and the fakes."""

    clock: FakeClock
    log: FakeLog
    sampler: FakeSampler
    reloader: FakeReloader
    fallbacks: dict[str, Any]
    daemon: Daemon
    tell: Callable[[Snapshot, bool], None] = lambda _snapshot, _waiting: None
    process: Callable[[], ProcessStats] = ProcessStats

    def run_for(self, seconds: float) -> None:
        """Let the loop run until so much of its time has passed."""
        end = self.clock.now + seconds

        def stop_at_end() -> None:
            if self.clock.now >= end:
                self.daemon.request_stop()

        self.clock.on_wait = stop_at_end
        self.daemon.run()
        self.daemon._stopping = False
        self.clock.woken = False


def make_rig(
    first: Any = None,
    state: Path | None = None,
    interval_s: float = 15.0,
    distribution: Distribution | None = None,
    budget: Budget | None = None,
) -> Rig:
    clock, log = FakeClock(), FakeLog()
    sampler, reloader = FakeSampler(clock), FakeReloader(clock, first)
    fallbacks: dict[str, Any] = {}

    def fallback(version: str) -> Any:
        found = fallbacks.get(version)
        if isinstance(found, Exception):
            raise found
        return found

    def tell(snapshot: Snapshot, waiting: bool) -> None:
        rig.tell(snapshot, waiting)

    def process() -> ProcessStats:
        return rig.process()

    daemon = Daemon(
        Parts(
            sampler=sampler,
            reloader=reloader,
            keeper=StateKeeper(state, clock, log),  # type: ignore[arg-type]
            fallback=fallback,
            clock=clock,
            log=log,  # type: ignore[arg-type]
            interval_s=interval_s,
            process=process,
            trim=lambda: None,
            distribution=distribution,
            budget=budget,
            tell=tell,
        )
    )
    rig = Rig(clock, log, sampler, reloader, fallbacks, daemon)
    return rig
