"""How well a score ranks labelled rows: average precision, and the volume under the range-PR surface.

The volume (VUS-PR; Paparrizos et al., "Volume under the surface", VLDB 2022, as TSB-AD computes it) averages
over how far from an event a detection still counts, so that neither a label that is a little off nor a late
alarm decides the figure.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from node_anomaly_trainer.labels import runs

WINDOW_TICKS = 100
LEVELS = 250

Array = NDArray[np.float64]
Label = NDArray[np.integer]


def average_precision(label: Label, score: NDArray[np.floating]) -> float:
    """Area under precision over recall of raw points: label (n,) 0/1, score (n,), higher is worse."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(label[order].astype(np.int64))
    last = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # one point per distinct score
    precision, recall = hits[last] / (last + 1), hits[last] / max(int(hits[-1]), 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def vus_pr(
    label: Label, score: NDArray[np.floating], window: int = WINDOW_TICKS, levels: int = LEVELS
) -> float:
    """Range-PR area averaged over buffer widths 0..window; label (n,) 0/1 with at least one event.

    `score` (n,) holds numbers only, higher is worse; `levels` is how many thresholds span its ranks.
    """
    events = runs(label == 1)
    if not len(events):
        raise ValueError("without an event there is no recall")
    inside = label == 1
    rank = _ranks(score, levels)
    flagged = _cumulated(rank, np.ones(len(rank)), levels)
    hits = _cumulated(rank[inside], np.ones(int(inside.sum())), levels)
    areas = [_area(rank, flagged, hits, inside, events, width) for width in range(window + 1)]
    return float(np.sum(areas)) / (window + 1)


def _ranks(score: NDArray[np.floating], levels: int) -> NDArray[np.intp]:
    """The strictest of `levels` thresholds, spread over the ranks of the scores, that still flags a row."""
    places = np.linspace(0, len(score) - 1, levels).astype(np.intp)
    thresholds = -np.sort(-score)[places]
    return np.minimum(np.searchsorted(-thresholds, -score, side="left"), levels - 1)


def _cumulated(rank: NDArray[np.intp], weight: Array, levels: int) -> Array:
    """Sum of the weights (n,) of the rows that each threshold flags, (levels,)."""
    return np.asarray(np.cumsum(np.bincount(rank, weights=weight, minlength=levels)), dtype=np.float64)


def _area(
    rank: NDArray[np.intp],
    flagged: Array,
    hits: Array,
    inside: NDArray[np.bool_],
    events: NDArray[np.intp],
    width: int,
) -> float:
    """Area under range precision over range recall for one buffer width."""
    soft = _soft_label(inside, events, width)
    rim = ~inside & (soft > 0)
    soft_hits = _cumulated(rank[rim], soft[rim], len(flagged))
    true = hits + soft_hits
    groups = _groups(events, width // 2, len(rank))
    met = np.zeros(len(flagged))
    for first, last in groups:
        met[rank[first : last + 1].min() :] += 1
    recall = np.minimum(true / ((2.0 * inside.sum() + soft_hits) / 2.0), 1.0) * met / len(groups)
    return float(np.sum(np.diff(recall, prepend=0.0) * (true / flagged)))


def _soft_label(inside: NDArray[np.bool_], events: NDArray[np.intp], width: int) -> Array:
    """1 inside events, falling to 0 half a width away from them; what several events add is capped at 1."""
    soft = inside.astype(np.float64)
    half = width // 2
    for first, stop in events if half else ():
        after = np.arange(stop, min(stop + half, len(soft)))
        soft[after] += np.sqrt(1.0 - (after - stop + 1) / width)
        before = np.arange(max(first - half, 0), first)
        soft[before] += np.sqrt(1.0 - (first - before) / width)
    return np.minimum(soft, 1.0)


def _groups(events: NDArray[np.intp], half: int, rows: int) -> list[tuple[int, int]]:
    """First and last row of events with their buffers; those whose buffers meet are one to be found."""
    groups, start = [], max(int(events[0, 0]) - half, 0)
    for (_, stop), (begin, _) in pairwise(events.tolist()):
        if stop - 1 + half < begin - half:
            groups.append((start, stop - 1 + half))
            start = begin - half
    return [*groups, (start, min(int(events[-1, 1]) - 1 + half, rows - 1))]
