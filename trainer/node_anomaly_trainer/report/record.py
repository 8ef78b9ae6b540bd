"""Everything that the report of a run says, as plain data: the page and the card only lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.calibration import Tail
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.witnesses import in_words
from node_anomaly_trainer.assess import COMBINED, Assessed
from node_anomaly_trainer.candidate import Parts
from node_anomaly_trainer.dataset import ANOMALOUS, History, coverage
from node_anomaly_trainer.few import few
from node_anomaly_trainer.forecast_figures import ForecastFigures
from node_anomaly_trainer.labels import runs
from node_anomaly_trainer.moment import moment

MOST_GAPS = 20
MOST_CHANGED = 8  # names, of nodes or features
SHORTEST_GAP_TICKS = 10
MOST_FEATURES = 20  # with missing values, the worst first
LEAST_MISSING = 0.005  # below that nobody wants a list of all features
COVERAGE_COLUMNS = 96
BINS = np.round(np.concatenate([np.arange(-0.5, 2.0, 0.05), np.arange(2.0, 6.01, 0.25)]), 3)
LEVELS = np.round(np.arange(0.2, 1.51, 0.1), 2)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Gap:
    """A node of which nothing was known for a while."""

    node: str
    start: str
    hours: float


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What the run was made of."""

    origin: Mapping[str, str]
    start: str
    stop: str
    interval_s: float
    ticks: int
    nodes: tuple[str, ...]
    features: tuple[str, ...]
    fit_until: str
    calibrate_until: str
    silent_nodes: tuple[str, ...]
    absent_features: tuple[str, ...]
    constant_features: tuple[str, ...]
    missing: Mapping[str, float]
    """Share of values missing per feature, over the nodes that have it at all."""
    gaps: tuple[Gap, ...]
    """The longest, at most MOST_GAPS."""
    gap_count: int


@dataclass(frozen=True, slots=True)
class Distributions:
    """How scores lie; counts per bin of `edges`, shares per level of `levels`."""

    edges: tuple[float, ...]
    normal: tuple[int, ...]
    faulty: tuple[int, ...]
    levels: tuple[float, ...]
    promised: tuple[float, ...]
    """Share of normal ticks that should reach the level."""
    observed: tuple[float, ...]
    """Share of held-back normal ticks that did; NaN where none was seen."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run."""

    outcome: str
    version: str
    finished: str
    seconds: float
    reasons: tuple[str, ...]
    allowances: tuple[str, ...]
    notes: tuple[str, ...]
    excluded: Mapping[str, float]
    events: Mapping[str, int]
    data: DataSummary
    evaluation: Mapping[str, object]
    distributions: Distributions
    losses: tuple[float, ...]
    """Validation loss of the LSTM per epoch."""
    changes: tuple[str, ...]
    """Against the bundle in production."""
    coverage: tuple[tuple[float, ...], ...]
    """Share of values known per node and stretch of time."""
    forecast: tuple[ForecastFigures, ...] = ()
    """Of each horizon; empty where it was not measured."""
    taught_by: str = ""
    """What the Random Forest learnt from."""


def summarise_data(history: History, parts: Parts) -> DataSummary:
    """What history there was, and what of it was not."""
    known = coverage(history)
    silent: NDArray[np.bool_] = np.asarray(np.isnan(history.values).all(axis=2))
    gaps = [
        (int(stop - start), node, int(start))
        for node, column in zip(history.nodes, silent.T, strict=True)
        for start, stop in runs(column)
        if stop - start >= SHORTEST_GAP_TICKS
    ]
    gaps.sort(reverse=True)
    had = known.missing < 1.0
    share = np.where(had, known.missing, 0.0).sum(axis=0) / np.maximum(had.sum(axis=0), 1)
    worst = np.argsort(-share, kind="stable")[:MOST_FEATURES]
    return DataSummary(
        origin={key: str(value) for key, value in history.origin.items()},
        start=moment(history.timestamps[0]),
        stop=moment(history.timestamps[-1]),
        interval_s=history.interval_s,
        ticks=history.ticks,
        nodes=history.nodes,
        features=history.feature_names,
        fit_until=moment(history.timestamps[min(parts.fit.stop, history.ticks - 1)]),
        calibrate_until=moment(history.timestamps[min(parts.judged.start, history.ticks - 1)]),
        silent_nodes=known.silent_nodes,
        absent_features=known.absent_features,
        constant_features=known.constant_features,
        missing={history.feature_names[at]: float(share[at]) for at in worst if share[at] >= LEAST_MISSING},
        gaps=tuple(
            Gap(node, moment(history.timestamps[start]), ticks * history.interval_s / 3600.0)
            for ticks, node, start in gaps[:MOST_GAPS]
        ),
        gap_count=len(gaps),
    )


def coverage_picture(history: History) -> tuple[tuple[float, ...], ...]:
    """Share of values known, per node and one of COVERAGE_COLUMNS stretches of time."""
    edges = np.linspace(0, history.ticks, min(COVERAGE_COLUMNS, history.ticks) + 1).astype(int)
    rows = np.empty((len(history.nodes), len(edges) - 1))
    for column in range(len(edges) - 1):
        part = history.values[edges[column] : edges[column + 1]]
        rows[:, column] = np.isfinite(part).mean(axis=(0, 2))
    return tuple(tuple(float(value) for value in row) for row in rows)


def distributions(assessed: Assessed, parts: Parts) -> Distributions:
    """Of the combined score: on held-back normal data as a node would show it, and within injected faults."""
    late = slice(parts.judged.start, parts.judged.stop)
    faulty = parts.faulted.labels[late] == ANOMALOUS
    inside = assessed.faulted[COMBINED][late][faulty]
    normal = np.concatenate([scores.ravel() for scores in assessed.lived]) if assessed.lived else np.empty(0)
    normal = normal[np.isfinite(normal)]
    tail = assessed.candidate.manifest.tail
    observed = [float((normal >= level).mean()) if len(normal) else np.nan for level in LEVELS]
    return Distributions(
        edges=tuple(float(edge) for edge in BINS),
        normal=_counts(normal),
        faulty=_counts(inside[np.isfinite(inside)]),
        levels=tuple(float(level) for level in LEVELS),
        promised=tuple(_promised(tail, float(level)) for level in LEVELS),
        observed=tuple(share if share > 0 else float("nan") for share in observed),
    )


def _promised(tail: Tail, level: float) -> float:
    return float(10.0 ** (level * tail.alarm_log10p))


def _counts(scores: Array) -> tuple[int, ...]:
    counts, _ = np.histogram(np.clip(scores, BINS[0], BINS[-1] - 1e-9), BINS)
    return tuple(int(count) for count in counts)


def changes(manifest: Manifest, production: Bundle | None) -> tuple[str, ...]:
    """What is different from the bundle in production, one line each; empty where there is none."""
    if production is None:
        return ()
    old = production.manifest
    lines = [f"in production: {production.version}, trained {moment(old.trained_at)}"]
    names, before = ([feature.name for feature in one.features] for one in (manifest, old))
    lines += _difference("features", names, before)
    lines += _difference("nodes", manifest.nodes, old.nodes)
    lines += _difference("members", [m.name for m in manifest.models], [m.name for m in old.models])
    was = {model.name: model.weight for model in old.models}
    for model in manifest.models:
        if model.name in was and abs(was[model.name] - model.weight) > 1e-9:
            lines.append(f"weight of {model.name}: {was[model.name]:g} before, {model.weight:g} now")
    if manifest.witnesses != old.witnesses:
        needs = (in_words(one.witnesses) or "no witness" for one in (old, manifest))
        lines.append("an alarm needs {} before, {} now".format(*needs))
    if manifest.budget_per_week != old.budget_per_week:
        lines.append(f"budget: {old.budget_per_week:g} before, {manifest.budget_per_week:g} now")
    lines.append(
        f"alarm threshold, in units of normal scatter: {old.tail.alarm_level():.2f} before, "
        f"{manifest.tail.alarm_level():.2f} now"
    )
    return tuple(lines)


def _difference(what: str, now: Sequence[str], before: Sequence[str]) -> list[str]:
    lines = []
    if new := [name for name in now if name not in before]:
        lines.append(f"new {what}: {few(new, MOST_CHANGED)}")
    if gone := [name for name in before if name not in now]:
        lines.append(f"{what} gone: {few(gone, MOST_CHANGED)}")
    return lines
