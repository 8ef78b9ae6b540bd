"""Expressions: the PromQL they print, and that the compiled form means what the tree says."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.expressions import (
    Aggregate,
    AggregateOp,
    Binary,
    ClampMin,
    Constant,
    Expression,
    FoldedCount,
    Gauge,
    Match,
    Rate,
    is_vector,
    only,
    only_rate,
)
from node_anomaly_core.formulas import Layout, compile_formula

DISKS = Match("device", "!~", "loop[0-9]+|dm-.*")


class TestPromql:
    def test_selectors_carry_their_matchers_and_the_callers(self) -> None:
        """The caller's matchers come first, as they are."""
        assert Gauge("up").promql() == "up"
        assert Gauge("up").promql(matchers='job="node"') == 'up{job="node"}'
        assert Rate("b_total", "device", (DISKS,)).promql("2m", 'job="node"') == (
            'rate(b_total{job="node",device!~"loop[0-9]+|dm-.*"}[2m])'
        )

    def test_arithmetic_is_written_with_the_trees_own_precedence(self) -> None:
        """Nested arithmetic gets parentheses, whatever PromQL's precedence would make of it."""
        ratio = 1 - only("a") / only("b")
        assert ratio.promql() == "1 - (max by (instance) (a) / max by (instance) (b))"
        assert ((only("a") + 2) * 0.5).promql() == "(max by (instance) (a) + 2) * 0.5"

    def test_functions_and_counts(self) -> None:
        """clamp_min and the count of folded series."""
        assert ClampMin(only_rate("a_total"), 0.01).promql() == (
            "clamp_min(max by (instance) (rate(a_total[1m])), 0.01)"
        )
        assert FoldedCount("c", (Match("mode", "=", "idle"),)).promql("1m", 'job="n"') == (
            'count by (instance) (c{job="n",mode="idle"})'
        )

    def test_strings_are_quoted(self) -> None:
        """Backslashes, quotes and newlines survive the way into PromQL."""
        assert str(Match("a", "=~", 'x\\d"\n')) == 'a=~"x\\\\d\\"\\n"'

    def test_leaves_are_listed_left_to_right(self) -> None:
        """What a collector has to deliver for an expression."""
        tree = Aggregate("max", Rate("a") / ClampMin(Rate("b") + 1, 1.0)) / FoldedCount("c")
        assert [leaf.metric for leaf in tree.leaves()] == ["a", "b", "c:count"]


class TestMistakes:
    def test_a_vector_and_a_number_do_not_mix(self) -> None:
        """PromQL would find no pair and return nothing, silently."""
        with pytest.raises(ValueError, match="per device"):
            Gauge("a") / only("b")

    def test_only_a_vector_can_be_aggregated(self) -> None:
        """A second aggregate has nothing left to fold."""
        with pytest.raises(ValueError, match="sum"):
            Aggregate("sum", only("a"))

    def test_a_bare_selector_is_no_feature(self) -> None:
        """It needs an aggregate to be one number."""
        with pytest.raises(ValueError, match="aggregate"):
            compile_formula(Gauge("a"), Layout({}, {}))


class TestMatch:
    @pytest.mark.parametrize(
        ("op", "value", "label", "expected"),
        [
            ("=", "sda", "sda", True),
            ("!=", "sda", "sda", False),
            ("=~", "sd.", "sda", True),
            ("=~", "sd", "sda", False),
            ("!~", "sd", "sda", True),
            ("!~", "sd.*", "sda1", False),
        ],
    )
    def test_a_regular_expression_must_match_the_whole_value(
        self, op: str, value: str, label: str, expected: bool
    ) -> None:
        """Anchored at both ends, as in PromQL."""
        assert Match("device", op, value).holds(label) is expected  # type: ignore[arg-type]


# -- compiled against interpreted -------------------------------------------------------------------------

Table = Mapping[tuple[str, str], float]
DEVICES = ("sda", "sdb", "loop0", "dm-1")


def interpret(tree: Expression, rates: Table, gauges: Table) -> dict[str, float]:
    """What the tree says, read naively: label value -> number; a single number has the label ""."""
    if isinstance(tree, Constant):
        return {"": tree.value}
    if isinstance(tree, Rate | Gauge):
        table = rates if isinstance(tree, Rate) else gauges
        return {d: v for (m, d), v in table.items() if m == tree.metric and tree.selects(d)}
    if isinstance(tree, ClampMin):
        inner = interpret(tree.inner, rates, gauges)
        return {d: v if math.isnan(v) else max(v, tree.minimum) for d, v in inner.items()}
    if isinstance(tree, Aggregate):
        found = [v for v in interpret(tree.inner, rates, gauges).values() if not math.isnan(v)]
        folds = {
            "sum": sum,
            "max": max,
            "min": min,
            "count": len,
            "avg": lambda values: sum(values) / len(values),
        }
        return {"": float(folds[tree.op](found)) if found else math.nan}
    assert isinstance(tree, Binary)
    left, right = interpret(tree.left, rates, gauges), interpret(tree.right, rates, gauges)
    if isinstance(tree.left, Constant):
        left = dict.fromkeys(right, tree.left.value)
    if isinstance(tree.right, Constant):
        right = dict.fromkeys(left, tree.right.value)
    return {d: arithmetic(tree.op, left[d], right[d]) for d in left if d in right}


def arithmetic(op: str, a: float, b: float) -> float:
    if op == "/":
        if b == 0:
            return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
        return a / b
    return {"+": a + b, "-": a - b, "*": a * b}[op]


NUMBERS = st.one_of(st.just(math.nan), st.just(0.0), st.integers(0, 1000).map(float))
SELECTORS = st.builds(
    lambda kind, metric, where: kind(metric, "device", where),
    st.sampled_from([Gauge, Rate]),
    st.sampled_from(["a", "b", "absent"]),
    st.sampled_from([(), (DISKS,), (Match("device", "=", "sda"),), (Match("fstype", "!~", ".*"),)]),
)
CONSTANTS = st.sampled_from([0.0, 1.0, 2.5]).map(Constant)
BINARY_OPS = st.sampled_from(["+", "-", "*", "/"])


def grown(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    return st.one_of(
        st.builds(Binary, BINARY_OPS, inner, inner),
        st.builds(Binary, BINARY_OPS, CONSTANTS, inner),
        st.builds(Binary, BINARY_OPS, inner, CONSTANTS),
        st.builds(ClampMin, inner, st.sampled_from([0.0, 1.0, 10.0])),
    )


VECTORS = st.recursive(SELECTORS, grown, max_leaves=4)
SCALARS = st.recursive(
    st.builds(Aggregate, st.sampled_from(["sum", "max", "min", "avg", "count"]), VECTORS),
    grown,
    max_leaves=4,
)


class TestCompiled:
    @given(
        tree=SCALARS,
        present=st.dictionaries(
            st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(DEVICES)), st.tuples(NUMBERS, NUMBERS)
        ),
    )
    def test_the_compiled_form_equals_a_naive_reading(
        self, tree: Expression, present: dict[tuple[str, str], tuple[float, float]]
    ) -> None:
        """Any tree over any set of present, absent and NaN series."""
        assert not is_vector(tree)
        rates: dict[str, list[tuple[str, int]]] = {}
        gauges: dict[str, list[tuple[str, int]]] = {}
        flat: list[float] = []
        for (metric, device), pair in present.items():
            for table, value in zip((rates, gauges), pair, strict=True):
                table.setdefault(metric, []).append((device, len(flat)))
                flat.append(value)
        expected = interpret(
            tree, {k: v[0] for k, v in present.items()}, {k: v[1] for k, v in present.items()}
        )
        found = compile_formula(tree, Layout(rates, gauges))(flat)
        assert found == pytest.approx(expected[""], rel=1e-12, nan_ok=True)

    def test_nothing_compiles_to_missing(self) -> None:
        """A feature known only by name has no value."""
        assert math.isnan(compile_formula(None, Layout({}, {}))([]))

    @pytest.mark.parametrize("op", ["sum", "max", "min", "avg", "count"])
    def test_an_aggregate_over_nothing_is_missing_not_zero(self, op: AggregateOp) -> None:
        """As PromQL returns no series."""
        assert math.isnan(compile_formula(Aggregate(op, Gauge("a")), Layout({}, {}))([]))
