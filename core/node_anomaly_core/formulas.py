"""Expressions compiled for the node: closures over positions in one flat list of values.

Absent and NaN are the same here: an operand that is missing makes the result missing, aggregates skip
missing series and are missing themselves only when all are. A missing value is never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import add, itemgetter, mul, sub

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
    Written,
)

Values = Sequence[float]
Formula = Callable[[Values], float]
"""The flat values of a tick -> one number, NaN if missing."""

_Vector = Callable[[Values], list[float]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the series of one tick lie in the flat list of values.

    `rates` and `gauges` map a metric to its (label value, position) pairs.
    """

    rates: Mapping[str, Sequence[tuple[str, int]]]
    gauges: Mapping[str, Sequence[tuple[str, int]]]

    def places(self, selector: Selector) -> tuple[tuple[str, ...], list[int]]:
        """Label values and positions of the series that are selected."""
        table = self.rates if isinstance(selector, Rate) else self.gauges
        chosen = [(name, at) for name, at in table.get(selector.metric, ()) if selector.selects(name)]
        return tuple(name for name, _ in chosen), [at for _, at in chosen]


def compile_formula(expression: Expression | None, layout: Layout) -> Formula:
    """The function that yields this feature; always missing for None. ValueError for a vector."""
    match expression:
        case None:
            return _missing
        case Constant(value):
            return lambda _: value
        case FoldedCount(metric):
            return _aggregate("max", Gauge(f"{metric}:count"), layout)
        case Aggregate(op, inner):
            return _aggregate(op, inner, layout)
        case Written(_, local):
            return compile_formula(local, layout)
        case ClampMin(inner, minimum):
            operand = compile_formula(inner, layout)
            return lambda values: max(operand(values), minimum)  # this order keeps NaN
        case Binary(op, left, right):
            apply = _ARITHMETIC[op]
            first, second = compile_formula(left, layout), compile_formula(right, layout)
            return lambda values: apply(first(values), second(values))
    raise ValueError(f"{type(expression).__name__} needs an aggregate around it")


def _aggregate(op: str, inner: Expression, layout: Layout) -> Formula:
    if isinstance(inner, Selector) and op != "count":
        places = layout.places(inner)[1]
        if len(places) == 1:  # by far the most frequent case: one series, taken as it is
            return itemgetter(places[0])
    labels, vector = _vector(inner, layout)
    if not labels:
        return _missing
    fold = _FOLDS[op]

    def folded(values: Values) -> float:
        present = vector(values)
        if math.isnan(sum(present)):  # by far not always, and cheaper to find out than to look at each
            present = [value for value in present if not math.isnan(value)]
        return fold(present) if present else math.nan

    return folded


def _vector(expression: Expression, layout: Layout) -> tuple[tuple[str, ...], _Vector]:
    """Label values, and the function that yields one number for each of them."""
    match expression:
        case Selector():
            names, places = layout.places(expression)
            return names, _pick(places)
        case ClampMin(inner, minimum):
            names, vector = _vector(inner, layout)
            return names, lambda values: [max(v, minimum) for v in vector(values)]
        case Binary(op, left, Constant(constant)):
            names, vector = _vector(left, layout)
            apply = _ARITHMETIC[op]
            return names, lambda values: [apply(v, constant) for v in vector(values)]
        case Binary(op, Constant(constant), right):
            names, vector = _vector(right, layout)
            apply = _ARITHMETIC[op]
            return names, lambda values: [apply(constant, v) for v in vector(values)]
        case Binary(op, left, right):
            return _matched(_ARITHMETIC[op], _vector(left, layout), _vector(right, layout))
    raise ValueError(f"{type(expression).__name__} has one value for each instance, not for each device")


def _matched(
    apply: Callable[[float, float], float],
    left: tuple[tuple[str, ...], _Vector],
    right: tuple[tuple[str, ...], _Vector],
) -> tuple[tuple[str, ...], _Vector]:
    """Arithmetic between the series of both sides that have the same label value."""
    (names, first), (other_names, second) = left, right
    if names == other_names:
        return names, lambda values: list(map(apply, first(values), second(values)))
    there = {name: at for at, name in enumerate(other_names)}
    pairs = [(at, there[name]) for at, name in enumerate(names) if name in there]

    def vector(values: Values) -> list[float]:
        ours, theirs = first(values), second(values)
        return [apply(ours[i], theirs[j]) for i, j in pairs]

    return tuple(names[i] for i, _ in pairs), vector


def _pick(places: list[int]) -> _Vector:
    if len(places) < 2:
        return lambda values: [values[at] for at in places]
    take = itemgetter(*places)
    return lambda values: list(take(values))


def _missing(_: Values) -> float:
    return math.nan


def _divide(a: float, b: float) -> float:
    """IEEE division, as in PromQL: 0/0 is NaN and x/0 infinite."""
    if b == 0.0:
        return math.nan if a == 0.0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {"+": add, "-": sub, "*": mul, "/": _divide}

_FOLDS: Mapping[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "avg": lambda present: sum(present) / len(present),
    "count": lambda present: float(len(present)),
}
