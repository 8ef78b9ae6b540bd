"""One expression per feature: printed as PromQL for the history, evaluated over readings on the node.

Both ends agree by construction because there is only one tree. Leaves select series of a metric, either
as they are (`Gauge`) or as PromQL's rate (`Rate`); an `Aggregate` turns the per-device vector into one
number per instance; arithmetic works between two vectors (matched by device), two numbers, or with a
constant. Mixing a vector with a number is refused when the tree is built, because PromQL would silently
return nothing for it.

Absent and NaN are the same here: an operand that is missing makes the result missing, aggregates skip
missing series and are missing themselves only when all are. A missing value is never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

SeriesKey = tuple[str, str]
"""(node_exporter's metric name, value of its one distinguishing label or "")."""

Reading = dict[SeriesKey, float]
"""What the collectors saw in one tick, in node_exporter's names and base units."""

Scalar = Callable[[Sequence[float]], float]
Vector = Callable[[Sequence[float]], list[float]]

NAN = math.nan
MatchOp = Literal["=", "!=", "=~", "!~"]
AggregateOp = Literal["sum", "max", "min", "avg", "count"]
BinaryOp = Literal["+", "-", "*", "/"]


@dataclass(frozen=True, slots=True)
class Match:
    """A PromQL label matcher; regular expressions are anchored at both ends, as in PromQL."""

    label: str
    op: MatchOp
    value: str

    def holds(self, value: str) -> bool:
        """Whether a series whose label has this value is selected."""
        if self.op == "=":
            return value == self.value
        if self.op == "!=":
            return value != self.value
        found = re.fullmatch(self.value, value) is not None
        return found if self.op == "=~" else not found

    def promql(self) -> str:
        """The matcher as it is written between braces."""
        quoted = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.op}"{quoted}"'


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the series of one tick lie in the flat list of values that compiled expressions read.

    `rates` and `gauges` map a metric to its (label value, position) pairs.
    """

    rates: Mapping[str, Sequence[tuple[str, int]]]
    gauges: Mapping[str, Sequence[tuple[str, int]]]


class Expression:
    """A node of the tree; immutable, compared by value."""

    __slots__ = ()

    @property
    def is_vector(self) -> bool:
        """True while there is one value per device, False once there is one per instance."""
        raise NotImplementedError

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        """PromQL over node_exporter's metrics; `matchers` is added to every selector as it is."""
        raise NotImplementedError

    def leaves(self) -> Iterator[Selector]:
        """Every selector of the tree, left to right."""
        raise NotImplementedError

    def scalar(self, layout: Layout) -> Scalar:
        """Compile to a function of the flat values; NaN is missing. ValueError for a vector."""
        raise NotImplementedError

    def vector(self, layout: Layout) -> tuple[tuple[str, ...], Vector]:
        """Compile to (label values, function giving one value for each). ValueError for a scalar."""
        raise NotImplementedError

    def __add__(self, other: Expression | float) -> Expression:
        return Binary("+", self, _lift(other))

    def __sub__(self, other: Expression | float) -> Expression:
        return Binary("-", self, _lift(other))

    def __rsub__(self, other: float) -> Expression:
        return Binary("-", _lift(other), self)

    def __mul__(self, other: Expression | float) -> Expression:
        return Binary("*", self, _lift(other))

    def __truediv__(self, other: Expression | float) -> Expression:
        return Binary("/", self, _lift(other))


@dataclass(frozen=True, slots=True)
class Constant(Expression):
    """A number, the same for every instance and device."""

    value: float

    @property
    def is_vector(self) -> bool:
        return False

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        return format(self.value, "g")

    def leaves(self) -> Iterator[Selector]:
        return iter(())

    def scalar(self, layout: Layout) -> Scalar:
        value = self.value
        return lambda values: value

    def vector(self, layout: Layout) -> tuple[tuple[str, ...], Vector]:
        raise ValueError("a constant has no labels")


@dataclass(frozen=True, slots=True)
class Selector(Expression):
    """Series of one metric; use `Gauge` or `Rate`.

    `label` names the one label whose value the node keeps ("" if there is none). Matches on that label
    are evaluated here; matches on any other label only narrow the PromQL, and the collector of that
    metric must yield nothing they would reject.
    """

    metric: str
    label: str = ""
    where: tuple[Match, ...] = ()

    @property
    def is_vector(self) -> bool:
        return True

    def selects(self, label_value: str) -> bool:
        """Whether the series with this value of the kept label belongs to the selection."""
        return all(match.holds(label_value) for match in self.where if match.label == self.label)

    def leaves(self) -> Iterator[Selector]:
        yield self

    def scalar(self, layout: Layout) -> Scalar:
        raise ValueError(f"{self.metric}: a selector needs an aggregate around it")

    def vector(self, layout: Layout) -> tuple[tuple[str, ...], Vector]:
        chosen = [(label, at) for label, at in self._series(layout) if self.selects(label)]
        return tuple(label for label, _ in chosen), _pick([at for _, at in chosen])

    def _series(self, layout: Layout) -> Sequence[tuple[str, int]]:
        return layout.gauges.get(self.metric, ())

    def _braces(self, matchers: str) -> str:
        inside = ",".join([*([matchers] if matchers else []), *(match.promql() for match in self.where)])
        return f"{{{inside}}}" if inside else ""


@dataclass(frozen=True, slots=True)
class Gauge(Selector):
    """The latest value of each selected series."""

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        return f"{self.metric}{self._braces(matchers)}"


@dataclass(frozen=True, slots=True)
class Rate(Selector):
    """The per-second increase of each selected counter over the window."""

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        return f"rate({self.metric}{self._braces(matchers)}[{window}])"

    def _series(self, layout: Layout) -> Sequence[tuple[str, int]]:
        return layout.rates.get(self.metric, ())


@dataclass(frozen=True, slots=True)
class FoldedCount(Expression):
    """How many series a collector folded into one, where PromQL counts them one by one.

    The node sums CPUs per mode while it reads, so it reports their number as the gauge `METRIC:count`.
    """

    metric: str
    where: tuple[Match, ...] = ()

    @property
    def is_vector(self) -> bool:
        return False

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        selected = Gauge(self.metric, "", self.where).promql(window, matchers)
        return f"count by (instance) ({selected})"

    def leaves(self) -> Iterator[Selector]:
        yield Gauge(f"{self.metric}:count")

    def scalar(self, layout: Layout) -> Scalar:
        return Aggregate("max", Gauge(f"{self.metric}:count")).scalar(layout)

    def vector(self, layout: Layout) -> tuple[tuple[str, ...], Vector]:
        raise ValueError("a count has no labels")


@dataclass(frozen=True, slots=True)
class Aggregate(Expression):
    """One number per instance from one per device."""

    op: AggregateOp
    inner: Expression

    def __post_init__(self) -> None:
        if not self.inner.is_vector:
            raise ValueError(f"{self.op} needs one value per device, not a single number")

    @property
    def is_vector(self) -> bool:
        return False

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        return f"{self.op} by (instance) ({self.inner.promql(window, matchers)})"

    def leaves(self) -> Iterator[Selector]:
        return self.inner.leaves()

    def scalar(self, layout: Layout) -> Scalar:
        labels, inner = self.inner.vector(layout)
        if not labels:
            return lambda values: NAN
        if len(labels) == 1 and self.op != "count":
            if isinstance(self.inner, Selector):
                at = next(at for label, at in self.inner._series(layout) if label == labels[0])
                return itemgetter(at)
            return lambda values: inner(values)[0]
        fold = _FOLDS[self.op]
        return lambda values: fold([value for value in inner(values) if value == value])

    def vector(self, layout: Layout) -> tuple[tuple[str, ...], Vector]:
        raise ValueError(f"{self.op} has already folded the labels")


@dataclass(frozen=True, slots=True)
class ClampMin(Expression):
    """`clamp_min`: the operand, but never below `minimum`; missing stays missing."""

    inner: Expression
    minimum: float

    @property
    def is_vector(self) -> bool:
        return self.inner.is_vector

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        return f"clamp_min({self.inner.promql(window, matchers)}, {self.minimum:g})"

    def leaves(self) -> Iterator[Selector]:
        return self.inner.leaves()

    def scalar(self, layout: Layout) -> Scalar:
        inner, minimum = self.inner.scalar(layout), self.minimum

        def clamped(values: Sequence[float]) -> float:
            value = inner(values)
            return minimum if value < minimum else value

        return clamped

    def vector(self, layout: Layout) -> tuple[tuple[str, ...], Vector]:
        labels, inner = self.inner.vector(layout)
        minimum = self.minimum
        return labels, lambda values: [minimum if v < minimum else v for v in inner(values)]


@dataclass(frozen=True, slots=True)
class Binary(Expression):
    """Arithmetic between two vectors (matched by label), two numbers, or either and a constant."""

    op: BinaryOp
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        constant = isinstance(self.left, Constant) or isinstance(self.right, Constant)
        if not constant and self.left.is_vector != self.right.is_vector:
            raise ValueError(f"{self.op}: one side has a value per device, the other a single number")

    @property
    def is_vector(self) -> bool:
        return self.left.is_vector or self.right.is_vector

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        sides = (self.left, self.right)
        left, right = (
            f"({side.promql(window, matchers)})"
            if isinstance(side, Binary)
            else side.promql(window, matchers)
            for side in sides
        )
        return f"{left} {self.op} {right}"

    def leaves(self) -> Iterator[Selector]:
        yield from self.left.leaves()
        yield from self.right.leaves()

    def scalar(self, layout: Layout) -> Scalar:
        left, right, apply = self.left.scalar(layout), self.right.scalar(layout), _ARITHMETIC[self.op]
        return lambda values: apply(left(values), right(values))

    def vector(self, layout: Layout) -> tuple[tuple[str, ...], Vector]:
        apply = _ARITHMETIC[self.op]
        if isinstance(self.right, Constant):
            labels, one = self.left.vector(layout)
            right = self.right.value
            return labels, lambda values: [apply(v, right) for v in one(values)]
        if isinstance(self.left, Constant):
            labels, one = self.right.vector(layout)
            left = self.left.value
            return labels, lambda values: [apply(left, v) for v in one(values)]
        left_labels, first = self.left.vector(layout)
        right_labels, second = self.right.vector(layout)
        if left_labels == right_labels:
            return left_labels, lambda values: list(map(apply, first(values), second(values)))
        places = {label: at for at, label in enumerate(right_labels)}
        pairs = [(at, places[label]) for at, label in enumerate(left_labels) if label in places]

        def matched(values: Sequence[float]) -> list[float]:
            ours, theirs = first(values), second(values)
            return [apply(ours[i], theirs[j]) for i, j in pairs]

        return tuple(left_labels[i] for i, _ in pairs), matched


def only(metric: str, *where: Match, label: str = "") -> Expression:
    """The one series an instance has of this gauge (max, so that a duplicate scrape cannot double it)."""
    return Aggregate("max", Gauge(metric, label, where))


def only_rate(metric: str, *where: Match, label: str = "") -> Expression:
    """The rate of the one series an instance has of this counter."""
    return Aggregate("max", Rate(metric, label, where))


def _lift(operand: Expression | float) -> Expression:
    return operand if isinstance(operand, Expression) else Constant(float(operand))


def _pick(positions: Sequence[int]) -> Vector:
    """A function that takes these positions out of the flat values."""
    if not positions:
        return lambda values: []
    if len(positions) == 1:
        only_one = positions[0]
        return lambda values: [values[only_one]]
    get = itemgetter(*positions)
    return lambda values: list(get(values))


def _divide(a: float, b: float) -> float:
    """IEEE division, as in PromQL: 0/0 is NaN and x/0 infinite."""
    if b == 0.0:
        return NAN if a == 0.0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
}

_FOLDS: Mapping[str, Callable[[list[float]], float]] = {
    "sum": lambda found: sum(found) if found else NAN,
    "max": lambda found: max(found) if found else NAN,
    "min": lambda found: min(found) if found else NAN,
    "avg": lambda found: sum(found) / len(found) if found else NAN,
    "count": lambda found: float(len(found)) if found else NAN,
}
