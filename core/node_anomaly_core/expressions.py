"""One expression per feature: printed as PromQL for the history, compiled for the node by `formulas`.

Both ends agree by construction because there is only one tree. Leaves select series of a metric, either
as they are (`Gauge`) or as PromQL's rate (`Rate`); an `Aggregate` turns the per-device vector into one
number per instance; arithmetic works between two vectors (matched by device), two numbers, or with a
constant. Mixing a vector with a number is refused when the tree is built, because PromQL would silently
return nothing for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

SeriesKey = tuple[str, str]
"""(node_exporter's metric name, value of its one distinguishing label or "")."""

Reading = dict[SeriesKey, float]
"""What the collectors saw in one tick, in node_exporter's names and base units."""

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

    def __str__(self) -> str:
        quoted = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.op}"{quoted}"'


class Expression:
    """A node of the tree; immutable, compared by value.

    `is_vector` is True while there is one value per device, False once there is one per instance.
    """

    __slots__ = ()

    def promql(self, window: str = "1m", matchers: str = "") -> str:
        """PromQL over node_exporter's metrics; `matchers` is put into every selector as it is."""
        return _render(self, window, matchers)

    def leaves(self) -> Iterator[Selector]:
        """Every selector of the tree, left to right."""
        return _leaves(self)

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

    def selects(self, label_value: str) -> bool:
        """Whether the series with this value of the kept label belongs to the selection."""
        return all(match.holds(label_value) for match in self.where if match.label == self.label)


@dataclass(frozen=True, slots=True)
class Gauge(Selector):
    """The latest value of each selected series."""


@dataclass(frozen=True, slots=True)
class Rate(Selector):
    """The per-second increase of each selected counter over the window."""


@dataclass(frozen=True, slots=True)
class FoldedCount(Expression):
    """How many series a collector folded into one, where PromQL counts them one by one.

    The node sums CPUs per mode while it reads, so it reports their number as the gauge `METRIC:count`.
    """

    metric: str
    where: tuple[Match, ...] = ()


@dataclass(frozen=True, slots=True)
class Aggregate(Expression):
    """One number per instance from one per device."""

    op: AggregateOp
    inner: Expression

    def __post_init__(self) -> None:
        if not is_vector(self.inner):
            raise ValueError(f"{self.op} needs one value per device, not a single number")


@dataclass(frozen=True, slots=True)
class ClampMin(Expression):
    """PromQL's `clamp_min`: the operand, but never below `minimum`; missing stays missing."""

    inner: Expression
    minimum: float


@dataclass(frozen=True, slots=True)
class Written(Expression):
    """A user's own feature: `text` is the PromQL as they wrote it, `local` what the node computes instead.

    `$window` and `$matchers` in the text stand for the window of rates and the caller's label matchers.
    """

    text: str
    local: Expression

    def __post_init__(self) -> None:
        if is_vector(self.local):
            raise ValueError("the local side must be one number, not one value per series")


@dataclass(frozen=True, slots=True)
class Binary(Expression):
    """Arithmetic between two vectors (matched by label), two numbers, or either and a constant."""

    op: BinaryOp
    left: Expression
    right: Expression

    def __post_init__(self) -> None:
        constant = isinstance(self.left, Constant) or isinstance(self.right, Constant)
        if not constant and is_vector(self.left) != is_vector(self.right):
            raise ValueError(f"{self.op}: one side has a value per device, the other a single number")


def only(metric: str) -> Expression:
    """The one series an instance has of this gauge (max, so that a duplicate scrape cannot double it)."""
    return Aggregate("max", Gauge(metric))


def only_rate(metric: str) -> Expression:
    """The rate of the one series an instance has of this counter."""
    return Aggregate("max", Rate(metric))


def is_vector(expression: Expression) -> bool:
    """True while the expression has one value per device, False if it has one per instance."""
    match expression:
        case Selector():
            return True
        case ClampMin(inner):
            return is_vector(inner)
        case Binary(_, left, right):
            return is_vector(left) or is_vector(right)
    return False


def _lift(operand: Expression | float) -> Expression:
    return operand if isinstance(operand, Expression) else Constant(float(operand))


def _leaves(expression: Expression) -> Iterator[Selector]:
    match expression:
        case Selector():
            yield expression
        case FoldedCount(metric):
            yield Gauge(f"{metric}:count")
        case Aggregate(_, inner) | ClampMin(inner) | Written(_, inner):
            yield from _leaves(inner)
        case Binary(_, left, right):
            yield from _leaves(left)
            yield from _leaves(right)


def _render(expression: Expression, window: str, matchers: str) -> str:
    match expression:
        case Constant(value):
            return _literal(value)
        case Rate(metric, _, where):
            return f"rate({metric}{_braces(matchers, where)}[{window}])"
        case Selector(metric, _, where):
            return f"{metric}{_braces(matchers, where)}"
        case FoldedCount(metric, where):
            return f"count by (instance) ({metric}{_braces(matchers, where)})"
        case Aggregate(op, inner):
            return f"{op} by (instance) ({_render(inner, window, matchers)})"
        case ClampMin(inner, minimum):
            return f"clamp_min({_render(inner, window, matchers)}, {_literal(minimum)})"
        case Written(text):
            return text.replace("$window", window).replace("$matchers", matchers)
        case Binary(binary, left, right):
            sides = (_render(side, window, matchers) for side in (left, right))
            first, second = (
                f"({text})" if isinstance(side, Binary) else text
                for side, text in zip((left, right), sides, strict=True)
            )
            return f"{first} {binary} {second}"
    raise TypeError(f"no PromQL for {type(expression).__name__}")


def _braces(matchers: str, where: tuple[Match, ...]) -> str:
    inside = ",".join([*([matchers] if matchers else []), *map(str, where)])
    return f"{{{inside}}}" if inside else ""


def _literal(value: float) -> str:
    """The shortest text that PromQL reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
