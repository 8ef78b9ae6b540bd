"""The agent in the states that its page must show well: used by the tests, and by scripts/page_gallery.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_fakes import START
from node_anomaly_agent.episode import Cause, Episode, ProcessUse
from node_anomaly_agent.episode_status import EpisodeStatus
from node_anomaly_agent.forecast_status import ForecastStatus
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.sampler import CollectorStatus
from node_anomaly_agent.score_history import ScoreRecorder
from node_anomaly_agent.snapshot import BundleInfo, Counters, Histogram, ReloadStatus, Snapshot
from node_anomaly_core.features import CATALOGUE, Feature
from node_anomaly_core.forecast import Forecast, Leaving
from node_anomaly_core.reasons import Reasons
from node_anomaly_core.score import Score
from node_anomaly_core.witnesses import Witness

MODELS = (
    "isolation_forest",
    "isolation_forest_absolute",
    "random_forest",
    "lstm",
    "kmeans",
    "autoregression",
)
NOW = START + 3.0
BLAMED = {
    "disk_busy_ratio": (0.38, 0.97),
    "pressure_io_waiting_ratio": (0.24, 0.81),
    "disk_written_bytes_per_second": (0.12, 3.1e8),
    "tcp_established_count": (0.05, 1.0),
}
"""Features that an anomaly is made of: share and observed value."""


def score_of(timestamp: float, score: float, *, warm: bool = True) -> Score:
    """One evaluation of the whole catalogue; of a high score two features are to blame."""
    width = len(CATALOGUE)
    spread = np.random.default_rng(int(timestamp) % 1000)
    expected = np.array([_usual(feature) for feature in CATALOGUE])
    observed = expected * spread.uniform(0.85, 1.15, width)
    shares = spread.dirichlet(np.ones(width))
    if score >= 1:
        shares *= 0.25
        for name, (share, seen) in BLAMED.items():
            at = next(at for at, feature in enumerate(CATALOGUE) if feature.name == name)
            shares[at] += share
            observed[at] = seen
    states = ["active"] * width
    for at in (30, 31, 44):
        states[at], observed[at], expected[at], shares[at] = "missing", math.nan, math.nan, math.nan
    states[12] = states[13] = "constant"
    nothing = np.full(width, math.nan)
    return Score(
        timestamp=timestamp,
        warm=warm,
        score=score if warm else math.nan,
        threshold_ratio=1.27,
        threshold_learnt=1.0,
        model_scores={
            name: score * part if warm else math.nan
            for name, part in zip(MODELS, (0.9, 1.1, 0.7, math.nan, 0.4, 1.6), strict=True)
        },
        why=Reasons.known(shares / np.nansum(shares) if warm else nothing),
        expected=expected if warm else nothing,
        observed=observed,
        states=tuple(states),
    )


def _usual(feature: Feature) -> float:
    if any(word in feature.name for word in ("oom", "error", "drop", "retrans", "overflow", "swap")):
        return 0.02
    known = {"ratio": 0.23, "bytes": 3.2e9, "bytes_per_second": 1.4e6, "per_second": 830.0, "seconds": 0.004}
    return known.get(feature.unit, 4.2)


def bundle(origin: str = "trained") -> BundleInfo:
    """A bundle of six models over the whole catalogue."""
    return BundleInfo(
        path="/var/lib/node-anomaly/bundles/3f9a1c0d5e7b2468",
        version="3f9a1c0d5e7b2468",
        origin=origin,
        trained_at=START - 2.4 * 86400,
        models=tuple((name, name.removesuffix("_raw")) for name in MODELS),
        features=CATALOGUE,
        provenance={
            "source": "prometheus http://prometheus.monitoring.svc:9090",
            "from": START - 16 * 86400.0,
            "to": START - 2.5 * 86400,
            "nodes": 148.0,
            "commit": "9b1f64a20c7d",
        },
        budget_per_week=1.0,
        signed_by="ops-2026",
    )


def history_of(scores: Sequence[float] | NDArray[np.float64], interval_s: float = 15.0) -> Any:
    """What the recorder makes of these scores, the last one at START; NaN is a tick without one."""
    recorder = ScoreRecorder(interval_s)
    first = START - interval_s * (len(scores) - 1)
    for at, value in enumerate(scores):
        timestamp = first + at * interval_s
        recorder.record(timestamp, None if math.isnan(value) else score_of(timestamp, value))
    return recorder.history


def normal_scores(count: int = 1440, seed: int = 3) -> np.ndarray:
    """Six hours of an ordinary day."""
    noise = np.random.default_rng(seed).gamma(2.0, 0.07, count)
    return 0.25 + noise + 0.1 * np.sin(np.linspace(0, 9, count))


def fresh() -> Snapshot:
    """Just started, on the starter bundle, warming up."""
    return _snapshot(
        started=START - 90.0,
        score=score_of(START, 0.4, warm=False),
        warmup_done=7,
        bundle=bundle("starter"),
        counters=Counters(evaluations=7),
    )


def not_ready() -> Snapshot:
    """Nothing loaded at all."""
    return _snapshot(score=None, bundle=None, timestamp=math.nan, collectors={}, reload=ReloadStatus())


def warm() -> Snapshot:
    """An ordinary day, with a gap where the agent was restarted."""
    scores = normal_scores()
    scores[500:560] = math.nan
    scores[900] = 1.2  # one tick is no alarm
    return _snapshot(score=score_of(START, 0.42), history=history_of(scores))


def anomalous() -> Snapshot:
    """An alarm that is over, and one that goes on."""
    scores = normal_scores()
    scores[400:430] = 1.8
    scores[1330:] = np.linspace(0.8, 4.6, 110)
    return _snapshot(score=score_of(START, 4.6), history=history_of(scores))


def recorded() -> Snapshot:
    """The same, with what was recorded of both."""
    causes = tuple(
        Cause(name, feature.unit, share, "above", seen, _usual(feature))
        for name, (share, seen) in BLAMED.items()
        for feature in CATALOGUE
        if feature.name == name
    )
    processes = tuple(
        ProcessUse(pid, name, 0.9, 2e9, 3e8) for pid, name in ((812, "postgres"), (4011, "pg_dump"))
    )
    over, open_ = (
        Episode(
            "20231114T175300Z",
            START - 15600,
            START - 15150,
            1.8,
            START - 15300,
            causes[:1],
            causes[:2],
            "3f9a",
            1.27,
        ),
        Episode(
            "20231114T214700Z",
            START - 1590,
            START,
            4.6,
            START,
            causes,
            causes,
            "3f9a",
            1.27,
            processes=processes,
        ),
    )
    ended = replace(over, end=START - 15150, ended="recovered")
    status = EpisodeStatus(detected=2, ongoing=True, quiet=True, recent=(ended, open_))
    return replace(anomalous(), episodes=status)


def foreseen() -> Snapshot:
    """All is well, and two features are expected to leave their normal range."""
    by_name = {feature.name: feature for feature in CATALOGUE}
    leaving = (
        Leaving(by_name["load1_per_cpu_ratio"], 540.0, 2.4, 1.9),
        Leaving(by_name["memory_available_ratio"], 1860.0, 0.06, 0.11),
    )
    forecast = Forecast(START - 140, {300.0: 0.42, 900.0: 0.81, 3600.0: 1.34}, leaving)
    return replace(warm(), forecast=ForecastStatus(forecast))


def rejected() -> Snapshot:
    """A bundle on offer was refused, and a collector fails; the bundle in use goes on."""
    message = (
        "/var/lib/node-anomaly/bundles/77aa0b1c2d3e4f50/lstm.tflite has sha256 "
        "1d2e3f40516273849a0b1c2d3e4f5061728394a5b6c7d8e9f0a1b2c3d4e5f607, but manifest.json names another"
    )
    usual = warm()
    return replace(
        usual,
        reload=ReloadStatus(
            successful=False, success_timestamp=START - 7200, reason="digest", message=message
        ),
        collectors={
            **usual.collectors,
            "journal": CollectorStatus(False, 0.0021, "/var/log/journal cannot be read: Permission denied"),
        },
    )


def held_back() -> Snapshot:
    """All models together are over the threshold, the forecaster is not surprised."""
    witnesses = (Witness(("lstm",), 0.9), Witness(("isolation_forest", "isolation_forest_absolute"), 0.7))
    scores = normal_scores()
    scores[1400:] = np.linspace(0.7, 0.97, 40)
    score = score_of(START, 0.97)
    score = replace(score, model_scores={**score.model_scores, "lstm": 0.31}, held_back_by=witnesses[:1])
    return _snapshot(score=score, history=history_of(scores), bundle=replace(bundle(), witnesses=witnesses))


def outgrown() -> Snapshot:
    """An alarm of hours is over because the threshold rose; nothing is as it was before."""
    scores = normal_scores()
    scores[:1100] = 1.6 + 0.2 * np.random.default_rng(5).random(1100)
    scores[1100:] = 0.85 + 0.1 * np.random.default_rng(6).random(len(scores) - 1100)
    over, end = recorded().episodes.recent[0], START - 15 * 340
    over = replace(over, start=end - 33_000, last=end, end=end, ended="outgrown")
    status = EpisodeStatus(detected=1, recent=(over,))
    return _snapshot(
        score=replace(score_of(START, 0.91), threshold_ratio=2.7, outgrown=True),
        history=history_of(scores),
        episodes=status,
    )


STATES = {
    "fresh": fresh,
    "not-ready": not_ready,
    "warm": warm,
    "anomalous": anomalous,
    "recorded": recorded,
    "foreseen": foreseen,
    "held-back": held_back,
    "outgrown": outgrown,
    "rejected": rejected,
}


def _snapshot(**changes: Any) -> Snapshot:
    ticks = Histogram((0, 40, 4000, 1500, 100, 0, 0, 0, 0, 0, 0, 0), 20.4)
    snapshot = Snapshot(
        started=START - 11 * 3600.0,
        interval_s=15.0,
        heartbeat=1000.0,
        counters=Counters(evaluations=5640, durations={"sample": ticks, "score": ticks}),
        timestamp=START,
        warmup_ticks=20,
        warmup_done=20,
        bundle=bundle(),
        reload=ReloadStatus(successful=True, success_timestamp=START - 7200.0),
        collectors={
            **{
                name: CollectorStatus(True, 0.0004, "")
                for name in ("cpu", "meminfo", "diskstats", "netdev", "filesystem", "pressure", "journal")
            },
            "hwmon": CollectorStatus(False, 0.0001, "this host has no temperature sensor", missing=True),
        },
        process=ProcessStats(143.2, 60.9e6, 310e6, START - 11 * 3600, 41, 1024),
    )
    return replace(snapshot, **changes)
