"""History through core, tick by tick, as a node would live it.

A fleet is stepped as one batch by the very classes that an agent steps with one node; nothing here computes a
feature, a residual or a score of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import Baseline, compress, fit_level, fit_prior
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.cohort import Cohort
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.evidence import (
    ForecastPath,
    ResidualPath,
    WindowPath,
    feature_sides,
    measure_residuals,
)
from node_anomaly_core.log_errors import complaint_columns
from node_anomaly_core.relations import Moments
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.summary import SUMMARY_WIDTH, OnlineNormaliser
from node_anomaly_trainer.arrays import Empty, in_memory
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, History

Array = NDArray[np.float64]
Report = Callable[[float, str], None]

_RESIDUAL_ROWS = 200_000  # ticks that residual sizes are measured on, over all nodes
_RESIDUAL_ROWS_PER_NODE = (6_000, 20_000)
_NODES_AT_ONCE = 4  # whose residuals are held while they are measured: up to 70 MB a node
_MOST_RELATED_TICKS = 20_000  # that relations are learnt from
_TICKS_AT_ONCE = 1_000  # of all nodes, whose summaries are held in float64
_REPORT_EVERY = 500


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the members are fed, over t ticks and m nodes."""

    compressed: NDArray[np.float32]  # (t, m, f)
    summary: NDArray[np.float32]  # (t, m, SUMMARY_WIDTH)
    normalised: NDArray[np.float32]  # (t, m, SUMMARY_WIDTH)
    unpredicted: NDArray[np.float32]  # (t, m) how much the autoregression was surprised
    errors: NDArray[np.float32]  # (t, m) what the logs complained of


def fit_cohort(history: History, report: Report) -> Cohort:
    """Baselines of every node and what they have in common, from normal history only.

    The summary's mean and scale are still those of nothing (0 and 1), see `with_summary`.
    """
    floor = np.array([feature.floor for feature in history.features])
    nodes = range(len(history.nodes))
    normal = history.labels == NORMAL
    levels = [fit_level(_only(normal[:, node], history.values[:, node]), floor, None) for node in nodes]
    late = slice(max(0, history.ticks - _MOST_RELATED_TICKS), history.ticks)
    moments = Moments(len(history.features))
    moments.add(
        (
            np.stack([compress(row[node], *levels[node]) for node in nodes])
            for row in map(_only, normal[late], history.values[late])
        ),
        normal[late],
        history.interval_s,
    )
    relations = moments.fit()
    sides = feature_sides(history.features)
    rows = int(np.clip(_RESIDUAL_ROWS / len(levels), *_RESIDUAL_ROWS_PER_NODE))
    baselines: list[Baseline] = []
    for first in range(0, len(levels), _NODES_AT_ONCE):
        group = slice(first, first + _NODES_AT_ONCE)
        centre, scale = (np.stack(part) for part in zip(*levels[group], strict=True))
        latest = _only(normal[-rows:, group], history.values[-rows:, group])
        measured = measure_residuals(latest, (centre, scale), sides, history.interval_s, relations, rows)
        baselines += [Baseline(*level, *usual) for level, usual in zip(levels[group], measured, strict=True)]
        report(len(baselines) / len(levels), history.nodes[len(baselines) - 1])
    prior = fit_prior(baselines, floor)
    return Cohort(
        prior=prior,
        summary_mean=np.zeros(SUMMARY_WIDTH),
        summary_scale=np.ones(SUMMARY_WIDTH),
        forecast_scale=np.ones(len(history.features)),
        relations=relations,
        node_centre=np.stack([baseline.centre for baseline in baselines]),
        node_scale=np.stack([baseline.scale for baseline in baselines]),
        node_residual_centre=np.stack(
            [_filled(baseline.residual_centre, prior.residual_centre) for baseline in baselines]
        ),
        node_residual=np.stack(
            [_filled(baseline.residual_scale, prior.residual_scale) for baseline in baselines]
        ),
    )


def _only(chosen: NDArray[np.bool_], values: Array) -> Array:
    """The values (..., f) where chosen (...), NaN elsewhere."""
    return np.where(chosen[..., None], values, np.nan)


def _filled(own: Array, prior: Array) -> Array:
    """A feature this node never had gets the cohort's usual residual (b, f).

    It is missing and weighs nothing anyway.
    """
    return np.where(np.isfinite(own), own, prior)


def replay_residuals(
    history: History,
    cohort: Cohort,
    report: Report,
    *,
    learn_faults: bool = True,
    empty: Empty = in_memory,
) -> Replayed:
    """The residual path over the whole history, all nodes at once.

    Without `learn_faults` the adapted levels stand still at ticks that are labelled anomalous: a history into
    which a fault was put every hour would otherwise teach the node that this is its life, which no real one
    does.
    """
    nodes = len(history.nodes)
    path = ResidualPath(
        [cohort.node(index) for index in range(nodes)],
        feature_sides(history.features),
        cohort,
        history.interval_s,
        complaint_columns(history.features),
    )
    shape = (history.ticks, nodes)
    compressed = empty((*shape, len(history.features)), np.float32)
    summary = empty((*shape, SUMMARY_WIDTH), np.float32)
    normalised = empty((*shape, SUMMARY_WIDTH), np.float32)
    unpredicted = np.empty(shape, dtype=np.float32)
    errors = np.empty(shape, dtype=np.float32)
    for tick, values in enumerate(history.values):
        residual = path.step(values, None if learn_faults else history.labels[tick] != ANOMALOUS)
        compressed[tick], unpredicted[tick] = residual.compressed, residual.unpredicted
        errors[tick] = residual.errors
        summary[tick], normalised[tick] = residual.summary, residual.normalised
        if tick % _REPORT_EVERY == 0:
            report(tick / history.ticks, f"tick {tick:,} of {history.ticks:,}")
    return Replayed(compressed, summary, normalised, unpredicted, errors)


def with_summary(
    replayed: Replayed, cohort: Cohort, normal: NDArray[np.bool_], interval_s: float
) -> tuple[Replayed, Cohort]:
    """Learn the summary's mean and scale from the fit part, and normalise the whole replay online, in place.

    `normal` (k, m) says what of the first k ticks, the fit part, is normal. Raises TrainingError where none
    of them is known throughout: of values at every other tick there is no difference to the tick before.
    """
    mean = _mean_of(replayed.summary, normal, lambda rows: rows)
    if not np.isfinite(mean).all():
        raise TrainingError(
            f"no normal tick of the part that is fitted has a value where the tick {interval_s:g} s before "
            "has one too",
            "an interval at which there are values at every tick",
        )
    scale = np.maximum(1.25 * _mean_of(replayed.summary, normal, lambda rows: np.abs(rows - mean)), 1e-3)
    learnt = replace(cohort, summary_mean=mean, summary_scale=scale)
    normaliser = OnlineNormaliser(replayed.summary.shape[1], mean, scale, interval_s)
    for tick, row in enumerate(replayed.summary):
        replayed.normalised[tick] = normaliser.step(row.astype(np.float64))
    return replayed, learnt


def _mean_of(
    table: NDArray[np.float32], chosen: NDArray[np.bool_], change: Callable[[Array], Array]
) -> Array:
    """Mean (w,) of what is made of the chosen (k, m) rows of (t, m, w) that are known throughout."""
    total, count = np.zeros((1, table.shape[-1])), 0
    for first in range(0, len(chosen), _TICKS_AT_ONCE):
        part = slice(first, min(first + _TICKS_AT_ONCE, len(chosen)))
        rows = table[part][chosen[part]].astype(np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        # One row after the other, so that the sum is the same to the bit however it is cut.
        total = np.concatenate([total, change(rows)]).sum(axis=0, keepdims=True)
        count += len(rows)
    return np.asarray(total[0] / count if count else np.full(table.shape[-1], np.nan))


def replay_forecasts(path: ForecastPath, compressed: NDArray[np.float32], report: Report) -> Array:
    """The forecaster's score (t, m) over compressed values (t, m, f)."""
    scores = np.empty(compressed.shape[:2])
    for tick, values in enumerate(compressed):
        scores[tick] = path.step(values.astype(np.float64)).score
        if tick % _REPORT_EVERY == 0:
            report(tick / len(compressed), f"tick {tick:,} of {len(compressed):,}")
    return scores


def replay_windows(path: WindowPath, compressed: NDArray[np.float32], report: Report) -> Array:
    """The score (t, m) of the distance to the nearest centroid, over compressed values (t, m, f)."""
    scores = np.empty(compressed.shape[:2])
    for tick, values in enumerate(compressed):
        scores[tick] = path.step(values.astype(np.float64)).score
        if tick % _REPORT_EVERY == 0:
            report(tick / len(compressed), f"tick {tick:,} of {len(compressed):,}")
    return scores


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of one node's history, lived by a scorer that has never seen the node."""

    node: int
    start: int
    stop: int


def stretches(history: History, ticks: int, count: int, seed: int) -> list[Stretch]:
    """`count` stretches of `ticks` ticks, over all nodes and hours alike."""
    rng = np.random.default_rng(seed)
    ticks = min(ticks, history.ticks)
    last = history.ticks - ticks
    starts = [int(last * (index + rng.random()) / count) for index in range(count)]
    nodes = [index % len(history.nodes) for index in range(count)]
    rng.shuffle(nodes)
    return [Stretch(node, start, start + ticks) for node, start in zip(nodes, starts, strict=True)]


def replay_fresh(
    bundle: Bundle, history: History, pieces: Sequence[Stretch], report: Report
) -> list[dict[str, Array]]:
    """Raw member scores (ticks,) of each stretch for a node unknown to the bundle; NaN until warm."""
    names = [model.name for model in bundle.manifest.models]
    result = []
    for number, piece in enumerate(pieces):
        scorer = NodeScorer(bundle, history.interval_s)
        scores = {name: np.full(piece.stop - piece.start, np.nan) for name in names}
        for tick in range(piece.start, piece.stop):
            raw = scorer.measure(float(history.timestamps[tick]), history.values[tick, piece.node])
            for name, value in raw.items():
                scores[name][tick - piece.start] = value
        result.append(scores)
        report((number + 1) / len(pieces), f"fresh node {number + 1} of {len(pieces)}")
    return result
