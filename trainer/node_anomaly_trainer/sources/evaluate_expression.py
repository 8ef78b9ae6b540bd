"""A feature's expression over raw samples, at every tick of a grid at once, exactly as Prometheus would.

What a range query returns for `expression.promql(...)` comes out here: selection with look-back and stale
markers, `rate()` with resets and extrapolation, matching by labels, aggregation by instance. The operations
are in Prometheus' order, so on the same samples results are the same to the bit; where a release orders a
sum differently (compensated summation) they are within 1e-15 of each other's operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.expressions import (
    Aggregate,
    Binary,
    ClampMin,
    Constant,
    Expression,
    FoldedCount,
    Gauge,
    Rate,
    Selector,
)
from node_anomaly_trainer.sources.raw_series import RawSeries

Floats = NDArray[np.float64]
Select = Callable[[Selector], Sequence[RawSeries]]
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Semantics:
    """What differs between releases of Prometheus.

    `left_open`: the left end of a range and of the look-back no longer belongs to it (3.0).
    `threshold_first`: rate() limits its reach to the left before it looks for the counter's zero (2.51).
    `compensated`: sums carry their rounding error along (3.0).
    """

    lookback_ms: int = 300_000
    left_open: bool = False
    threshold_first: bool = False
    compensated: bool = False


@dataclass(slots=True, eq=False)
class Values:
    """One number per tick: `values` (t,), of which only those with `present` (t,) exist."""

    values: Floats
    present: NDArray[np.bool_]


Vector = dict[Labels, Values]


def can_evaluate(expression: Expression | None) -> bool:
    """Whether the tree holds only what this module knows, and yields one number per instance."""
    match expression:
        case Constant() | FoldedCount():
            return True
        case Aggregate(_, inner):
            return _can_evaluate_vector(inner)
        case ClampMin(inner):
            return can_evaluate(inner)
        case Binary(_, left, right):
            return can_evaluate(left) and can_evaluate(right)
    return False


def _can_evaluate_vector(expression: Expression) -> bool:
    match expression:
        case Gauge() | Rate() | Constant():
            return True
        case ClampMin(inner):
            return _can_evaluate_vector(inner)
        case Binary(_, left, right):
            return _can_evaluate_vector(left) and _can_evaluate_vector(right)
    return False


def evaluate(
    expression: Expression, select: Select, grid: NDArray[np.int64], window_ms: int, semantics: Semantics
) -> dict[str, Floats]:
    """Instance -> (t,) at the unix milliseconds of `grid`; NaN where there is no finite result.

    `select` gives the raw series of a selector, sorted by labels. Raises ValueError where PromQL would
    refuse: a series without an instance, or two series with the same labels on one side of an operation.
    """
    with np.errstate(all="ignore"):
        vector = _Evaluation(select, grid, window_ms, semantics).of(expression)
    found: dict[str, Floats] = {}
    for labels, one in vector.items():
        instance = dict(labels).get("instance", "")
        if not instance:
            raise ValueError("a series without the label instance")
        found[instance] = np.where(one.present & np.isfinite(one.values), one.values, np.nan)
    return found


class _Evaluation:
    def __init__(self, select: Select, grid: NDArray[np.int64], window_ms: int, semantics: Semantics) -> None:
        self._select, self._grid = select, grid
        self._window_ms, self._semantics = window_ms, semantics

    def of(self, expression: Expression) -> Vector:
        match expression:
            case FoldedCount(metric, where):
                return self._aggregate("count", self._selected(Gauge(metric, "", where)))
            case Selector():
                return self._selected(expression)
            case Aggregate(op, inner):
                return self._aggregate(op, self.of(inner))
            case ClampMin(inner, minimum):
                return {
                    labels: Values(np.maximum(one.values, minimum), one.present)
                    for labels, one in self.of(inner).items()
                }
            case Binary(op, left, Constant(number)):
                return {
                    labels: Values(_ARITHMETIC[op](one.values, number), one.present)
                    for labels, one in self.of(left).items()
                }
            case Binary(op, Constant(number), right):
                return {
                    labels: Values(_ARITHMETIC[op](number, one.values), one.present)
                    for labels, one in self.of(right).items()
                }
            case Binary(op, left, right):
                ours, theirs = self.of(left), self.of(right)
                return {
                    labels: Values(
                        _ARITHMETIC[op](one.values, theirs[labels].values),
                        one.present & theirs[labels].present,
                    )
                    for labels, one in ours.items()
                    if labels in theirs
                }
        raise TypeError(f"{type(expression).__name__} cannot be evaluated over raw samples")

    def _selected(self, selector: Selector) -> Vector:
        at = self._rate if isinstance(selector, Rate) else self._instant
        vector: Vector = {}
        for series in self._select(selector):
            labels = tuple(sorted(series.labels.items()))
            if labels in vector:
                raise ValueError(f"two series of {selector.metric} with the labels {dict(labels)}")
            vector[labels] = at(series)
        return vector

    def _instant(self, series: RawSeries) -> Values:
        """The newest sample that is not older than the look-back, unless the series has ended."""
        last = np.searchsorted(series.times, self._grid, side="right") - 1
        age = self._grid - series.times[last]  # for last == -1 this is of no meaning, and masked
        limit = self._semantics.lookback_ms
        fresh = age < limit if self._semantics.left_open else age <= limit
        return Values(series.values[last], (last >= 0) & fresh & ~series.stale[last])

    def _rate(self, series: RawSeries) -> Values:
        stale = series.stale
        times, values = series.times, series.values
        if stale.any():
            times, values = times[~stale], values[~stale]
        if times.size < 2:
            return Values(np.full(len(self._grid), np.nan), np.zeros(len(self._grid), dtype=bool))
        begin = self._grid - self._window_ms
        first = np.searchsorted(times, begin, side="right" if self._semantics.left_open else "left")
        last = np.searchsorted(times, self._grid, side="right") - 1
        count = last - first  # samples less one
        present = count >= 1
        first, last = np.minimum(first, times.size - 1), np.maximum(last, 0)
        increase = values[last] - values[first]
        _add_resets(increase, values, first, last)
        sampled = (times[last] - times[first]) / 1000.0
        mean = sampled / count
        threshold = mean * 1.1
        to_start = (times[first] - begin) / 1000.0
        to_end = (self._grid - times[last]) / 1000.0
        if self._semantics.threshold_first:
            to_start = np.where(to_start >= threshold, mean / 2.0, to_start)
        to_zero = sampled * (values[first] / increase)
        born = (increase > 0.0) & (values[first] >= 0.0) & (to_zero < to_start)
        to_start = np.where(born, to_zero, to_start)
        if not self._semantics.threshold_first:
            to_start = np.where(to_start < threshold, to_start, mean / 2.0)
        to_end = np.where(to_end < threshold, to_end, mean / 2.0)
        factor = (sampled + to_start + to_end) / sampled
        factor /= self._window_ms / 1000.0
        return Values(increase * factor, present)

    def _aggregate(self, op: str, vector: Vector) -> Vector:
        groups: dict[Labels, list[Values]] = {}
        for labels, one in vector.items():
            instance = tuple(pair for pair in labels if pair[0] == "instance")
            groups.setdefault(instance, []).append(one)
        fold = _FOLDS[op]
        return {
            labels: fold(members, self._semantics.compensated)
            if len(members) > 1 or op == "count"
            else members[0]
            for labels, members in groups.items()
        }


def _add_resets(increase: Floats, values: Floats, first: NDArray[np.intp], last: NDArray[np.intp]) -> None:
    """Add what the counter had before each reset between `first` and `last`, one reset after the other."""
    resets = np.flatnonzero(values[1:] < values[:-1]) + 1
    if not resets.size:
        return
    start = np.searchsorted(resets, first, side="right")
    number = np.searchsorted(resets, last, side="right") - start
    for at in range(int(number.max(initial=0))):
        some = np.flatnonzero(number > at)
        increase[some] += values[resets[start[some] + at] - 1]


def _sum(members: Sequence[Values], compensated: bool) -> Values:
    total, present = members[0].values.copy(), members[0].present.copy()
    lost = np.zeros_like(total)
    for one in members[1:]:
        both = present & one.present
        added = total + one.values
        if compensated:
            larger = np.abs(total) >= np.abs(one.values)
            error = np.where(larger, (total - added) + one.values, (one.values - added) + total)
            lost = np.where(both, np.where(np.isinf(added), 0.0, lost + error), lost)
        total = np.where(both, added, np.where(one.present, one.values, total))
        present |= one.present
    return Values(total + lost if compensated else total, present)


def _average(members: Sequence[Values], compensated: bool) -> Values:
    total = _sum(members, compensated=True)
    return Values(total.values / _count(members, compensated).values, total.present)


def _extreme(
    better: Callable[[Floats, Floats], NDArray[np.bool_]],
) -> Callable[[Sequence[Values], bool], Values]:
    def fold(members: Sequence[Values], _: bool) -> Values:
        best, present = members[0].values.copy(), members[0].present.copy()
        for one in members[1:]:
            # A NaN among the values gives way to any number, as in Prometheus.
            replaces = one.present & (~present | better(one.values, best) | np.isnan(best))
            best = np.where(replaces, one.values, best)
            present |= one.present
        return Values(best, present)

    return fold


def _count(members: Sequence[Values], _: bool) -> Values:
    number = np.sum([one.present for one in members], axis=0)
    return Values(number.astype(np.float64), number > 0)


_FOLDS: Mapping[str, Callable[[Sequence[Values], bool], Values]] = {
    "sum": _sum,
    "max": _extreme(np.greater),
    "min": _extreme(np.less),
    "avg": _average,
    "count": _count,
}

_ARITHMETIC: Mapping[str, Callable[..., Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
