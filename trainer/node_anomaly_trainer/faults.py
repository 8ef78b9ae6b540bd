"""Labelled faults in a copy of real history: what the Random Forest learns and recall is measured on.

The seven kinds of the recipe: spikes, level shifts, ramps, variance bursts, flat lines, drops and broken
correlation, on random subsets of a node's features, in units of that node's own robust scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import robust_scale
from node_anomaly_trainer.arrays import Empty, in_memory
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, History

DAY_S = 86400.0
SHORTEST_TICKS = 3
LONGEST_S = 7200.0
SEPARATION_TICKS = 60
"""Quiet ticks after each fault, so that the aftermath of one is not taken for the onset of the next."""

LONGEST_SHARE = 0.05
"""No fault takes more than this share of a node's history."""

MAGNITUDES = (4.0, 40.0)
"""Range of the size of a fault in robust scales, drawn log-uniformly."""

VISIBLE = 2.0
"""A change that stays below this many scales is no fault: the label would be a lie."""

ATTEMPTS = 6

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fault:
    """One labelled event: ticks `start` <= t < `stop` of `node`; `magnitude` in scales of its features."""

    node: str
    start: int
    stop: int
    kind: str
    features: tuple[str, ...]
    magnitude: float


@dataclass(frozen=True, slots=True)
class _Target:
    """What a fault is applied to: the ticks of one node's chosen features, and all of that node's history."""

    before: Floats  # (d, k) the window as it was
    whole: Floats  # (t, k) the node's history of the same features
    scale: Floats  # (k,)
    sign: Floats  # (k,) the side on which each feature is anomalous
    magnitude: float


Shape = Callable[[_Target, np.random.Generator], Floats]


def inject_faults(
    history: History, rate_per_node_day: float, seed: int, empty: Empty = in_memory
) -> tuple[History, list[Fault]]:
    """A copy of the history with faults in it, labelled 1, and the list of them in time order per node.

    The number per node is Poisson with mean `rate_per_node_day` times the days of history, as far as they fit
    with SEPARATION_TICKS between them; none is put on ticks that are not normal. Missing values stay
    missing, values stay within what the unit allows. Pure and seeded.
    """
    values, labels = empty(history.values.shape, np.float64), history.labels.copy()
    values[...] = history.values
    faults: list[Fault] = []
    for at, node in enumerate(history.nodes):
        rng = np.random.default_rng([seed, at])
        whole = history.values[:, at]
        scale = observed_scale(whole, np.array([feature.floor for feature in history.features]))
        for start, stop in fault_windows(history.ticks, history.interval_s, rate_per_node_day, rng):
            if (history.labels[start:stop, at] != NORMAL).any():
                continue
            made = _make(history, whole, scale, start, stop, rng)
            if made is None:
                continue
            kind, chosen, magnitude, end, window = made
            values[start:end, at, chosen] = window
            labels[start:end, at] = ANOMALOUS
            names = tuple(history.features[column].name for column in chosen)
            faults.append(Fault(node, start, end, kind, names, magnitude))
    return replace(history, values=values, labels=labels), faults


def observed_scale(values: Floats, floor: Floats) -> Floats:
    """Core's robust scale of each column of (t, f); NaN where there is no sample, and so no fault."""
    centre, scale = robust_scale(values, floor)
    return np.where(np.isfinite(centre), scale, np.nan)


def fault_windows(
    ticks: int, interval_s: float, rate_per_day: float, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Separated tick ranges in 0..ticks, in time order, of log-uniform length from 3 ticks to two hours."""
    count = int(rng.poisson(rate_per_day * ticks * interval_s / DAY_S))
    longest = max(min(LONGEST_S / interval_s, LONGEST_SHARE * ticks), SHORTEST_TICKS + 1.0)
    lengths = np.exp(rng.uniform(np.log(SHORTEST_TICKS), np.log(longest), count)).astype(int)
    room = ticks - SEPARATION_TICKS
    lengths = lengths[np.cumsum(lengths + SEPARATION_TICKS) <= room]
    if not len(lengths):
        return []
    taken = np.cumsum(lengths + SEPARATION_TICKS)
    slack = np.sort(rng.integers(0, room - taken[-1] + 1, len(lengths)))
    starts = slack + taken - lengths
    return [(int(start), int(start + length)) for start, length in zip(starts, lengths, strict=True)]


def _make(
    history: History, whole: Floats, scale: Floats, start: int, stop: int, rng: np.random.Generator
) -> tuple[str, list[int], float, int, Floats] | None:
    """A visible fault for these ticks (kind, columns, magnitude, end, new window), or None if none fits."""
    present = np.flatnonzero((~np.isnan(whole[start:stop])).any(axis=0))
    if not len(present):
        return None
    for _ in range(ATTEMPTS):
        kind = str(rng.choice(list(KINDS)))
        end = min(stop, start + SPIKE_TICKS) if kind == "spike" else stop
        chosen = _subset(history, present, rng)
        magnitude = float(np.exp(rng.uniform(*np.log(MAGNITUDES))))
        target = _Target(
            whole[start:end, chosen], whole[:, chosen], scale[chosen], _signs(history, chosen, rng), magnitude
        )
        window = _allowed(KINDS[kind](target, rng), target, history, chosen)
        # Only the features that visibly changed belong to the fault; the others go back to what they were.
        moved = _moved(window, target, kind)
        if moved.any():
            kept = [column for column, has_moved in zip(chosen, moved, strict=True) if has_moved]
            return kind, kept, magnitude, end, window[:, moved]
    return None


def _subset(history: History, present: NDArray[np.intp], rng: np.random.Generator) -> list[int]:
    """One feature up to half of them: of one group (a failing part) or across groups (a failing node)."""
    pool = present
    if rng.random() < 0.5:
        group = history.features[int(rng.choice(present))].group
        pool = np.array([column for column in present if history.features[column].group == group])
    largest = max(1, (len(pool) + 1) // 2)
    size = int(np.exp(rng.uniform(0.0, np.log(largest + 1))))
    return sorted(int(column) for column in rng.choice(pool, min(size, len(pool)), replace=False))


def _signs(history: History, chosen: Sequence[int], rng: np.random.Generator) -> Floats:
    sides = {"high": 1.0, "low": -1.0}
    coin = rng.choice([-1.0, 1.0], len(chosen))
    return np.array(
        [sides.get(history.features[column].direction, coin[at]) for at, column in enumerate(chosen)]
    )


def _allowed(window: Floats, target: _Target, history: History, chosen: Sequence[int]) -> Floats:
    """The window within what each unit allows, missing where it was missing."""
    ratio = np.array([history.features[column].unit == "ratio" for column in chosen])
    lowest = np.nanmin(target.whole, axis=0)
    highest = np.nanmax(target.whole, axis=0)
    low = np.where(lowest >= 0.0, 0.0, -np.inf)
    high = np.where(ratio & (highest <= 1.0), 1.0, np.inf)
    return np.where(np.isnan(target.before), np.nan, np.clip(window, low, high))


def _moved(window: Floats, target: _Target, kind: str) -> NDArray[np.bool_]:
    """Which columns (k,) the fault visibly changed."""
    change = np.nan_to_num(np.abs(window - target.before) / target.scale)
    if kind == "flat_line":
        # A line is flat where there should be movement, however small the change of the value itself.
        moving = np.nan_to_num(np.diff(target.before, axis=0)) != 0.0
        return np.asarray((len(window) >= FLAT_TICKS) & (np.mean(moving, axis=0) > 0.8))
    if kind == "broken_correlation":
        return np.asarray(change.mean(axis=0) >= 0.5 * VISIBLE)
    if kind == "drop":
        # What is often near zero by itself has not dropped for being there.
        return np.asarray(change.mean(axis=0) >= VISIBLE)
    return np.asarray(change.max(axis=0) >= VISIBLE)


SPIKE_TICKS = 12
FLAT_TICKS = 20


def _spike(target: _Target, rng: np.random.Generator) -> Floats:
    """Single ticks far off; the first one always, so that the label starts where the fault does."""
    hit = rng.random(len(target.before)) < 0.5
    hit[0] = hit[-1] = True
    size = target.magnitude * rng.uniform(0.6, 1.4, len(hit)) * hit
    return target.before + size[:, None] * target.scale * target.sign


def _level_shift(target: _Target, _rng: np.random.Generator) -> Floats:
    return target.before + target.magnitude * target.scale * target.sign


def _ramp(target: _Target, _rng: np.random.Generator) -> Floats:
    rise = np.linspace(0.0, 1.0, len(target.before) + 1)[1:]
    return target.before + target.magnitude * rise[:, None] * target.scale * target.sign


def _variance_burst(target: _Target, rng: np.random.Generator) -> Floats:
    return target.before + target.magnitude * target.scale * rng.standard_normal(target.before.shape)


def _flat_line(target: _Target, _rng: np.random.Generator) -> Floats:
    return np.broadcast_to(target.before[0], target.before.shape)


def _drop(target: _Target, rng: np.random.Generator) -> Floats:
    return target.before * rng.uniform(0.0, 0.1)


def _broken_correlation(target: _Target, rng: np.random.Generator) -> Floats:
    """Each feature as it was at another time of its own: every value is normal, their combination is not."""
    length, total = target.before.shape[0], target.whole.shape[0]
    columns = []
    for column in range(target.before.shape[1]):
        start = int(rng.integers(0, total - length + 1))
        other = target.whole[start : start + length, column]
        columns.append(np.where(np.isnan(other), target.before[:, column], other))
    return np.stack(columns, axis=1)


KINDS: dict[str, Shape] = {
    "spike": _spike,
    "level_shift": _level_shift,
    "ramp": _ramp,
    "variance_burst": _variance_burst,
    "flat_line": _flat_line,
    "drop": _drop,
    "broken_correlation": _broken_correlation,
}
