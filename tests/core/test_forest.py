"""A forest of untrusted arrays is refused or harmless, and scores as its trees read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from node_anomaly_core.errors import BundleError
from node_anomaly_core.forest import LOG_ODDS_LIMIT, MAX_DEPTH, MAX_NODES, MAX_TREES, Forest, log_odds

FEATURES = 3
Tensors = dict[str, NDArray[Any]]


def grow(seed: int, trees: int, splits: int, kind: str = "random_forest") -> Tensors:
    """Grow a random valid forest: `splits` times a random leaf becomes an inner node with two leaves."""
    rng = np.random.default_rng(seed)
    kids: dict[int, tuple[int, int]] = {}
    leaves, size = list(range(trees)), trees
    for _ in range(splits):
        node = leaves.pop(int(rng.integers(len(leaves))))
        kids[node] = (size, size + 1)
        leaves += [size, size + 1]
        size += 2
    inner = np.array([node in kids for node in range(size)])
    value = rng.random(size) if kind == "random_forest" else 9.0 * rng.random(size)
    return {
        "left": np.array([kids.get(node, (-1, -1))[0] for node in range(size)], dtype=np.int32),
        "feature": np.where(inner, rng.integers(0, FEATURES, size), -1).astype(np.int16),
        "threshold": np.where(inner, rng.normal(size=size), 0.0).astype(np.float32),
        "missing_left": np.where(inner, rng.integers(0, 2, size), 0).astype(np.uint8),
        "value": value,
        "trees": np.array([trees], dtype=np.int32),
        "scale": np.array([float(trees) if kind == "random_forest" else 7.0 * trees]),
    }


def mean_by_walking(tensors: Tensors, row: NDArray[np.float32]) -> float:
    """Walk each tree node by node, as a person would, and return the sum over trees / scale."""
    total = 0.0
    for root in range(int(tensors["trees"][0])):
        node = root
        while tensors["left"][node] >= 0:
            x = row[tensors["feature"][node]]
            left = bool(tensors["missing_left"][node]) if np.isnan(x) else x <= tensors["threshold"][node]
            node = int(tensors["left"][node]) + (0 if left else 1)
        total += float(tensors["value"][node])
    return total / float(tensors["scale"][0])


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    trees=st.integers(1, 6),
    splits=st.integers(0, 40),
    kind=st.sampled_from(["random_forest", "isolation_forest"]),
)
def test_scores_equal_a_walk_through_each_tree(seed: int, trees: int, splits: int, kind: str) -> None:
    """Any forest gives any row, missing, infinite or on a threshold, the score of walking its trees."""
    tensors = grow(seed, trees, splits, kind)
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(30, FEATURES)).astype(np.float32)
    planted = rng.random(rows.shape) < 0.3
    rows[planted] = rng.choice(tensors["threshold"], int(planted.sum()))
    rows[rng.random(rows.shape) < 0.2] = np.nan
    rows[rng.random(rows.shape) < 0.05] = np.inf
    rows[rng.random(rows.shape) < 0.05] = -np.inf
    before = rows.copy()
    forest = Forest.from_tensors(tensors, kind, FEATURES)
    mean = np.array([mean_by_walking(tensors, row) for row in rows])
    expected = np.exp2(-mean) if kind == "isolation_forest" else log_odds(mean)
    np.testing.assert_allclose(forest.score(rows), expected, rtol=0, atol=1e-12)
    one_by_one = np.concatenate([forest.score(row[None]) for row in rows])
    np.testing.assert_allclose(one_by_one, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(rows, before)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), trees=st.integers(1, 6), splits=st.integers(0, 40))
def test_credits_add_up_to_the_distance_from_the_roots(seed: int, trees: int, splits: int) -> None:
    """What the columns are credited with is exactly how far the row's leaves are from the roots."""
    tensors = grow(seed, trees, splits)
    forest = Forest.from_tensors(tensors, "random_forest", FEATURES)
    row = np.random.default_rng(seed).normal(size=FEATURES)
    at_roots = float(tensors["value"][:trees].mean())
    moved = mean_by_walking(tensors, row.astype(np.float32)) - at_roots
    assert forest.credit(row).sum() == pytest.approx(moved, abs=1e-12)


def test_credit_of_an_isolation_forest_is_positive_for_a_shorter_path() -> None:
    """The column that isolates a row quickly is credited with more anomaly."""
    tensors = grow(0, 1, 1, "isolation_forest")
    tensors["feature"][0], tensors["threshold"][0] = 1, 0.5
    tensors["value"][:] = [6.0, 8.0, 1.0]
    forest = Forest.from_tensors(tensors, "isolation_forest", FEATURES)
    np.testing.assert_array_equal(forest.credit(np.array([0.0, 3.0, 0.0])), [0.0, 5.0, 0.0])


def test_a_leaf_with_certainty_scores_the_limit() -> None:
    """A probability of 0 or 1 becomes a finite score."""
    tensors = grow(0, 1, 1)
    tensors["feature"][0], tensors["threshold"][0], tensors["value"][1:] = 0, 0.0, [0.0, 1.0]
    forest = Forest.from_tensors(tensors, "random_forest", FEATURES)
    scores = forest.score(np.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(scores, [-LOG_ODDS_LIMIT, LOG_ODDS_LIMIT])


def test_no_rows_give_no_scores() -> None:
    """An empty batch is not an error."""
    assert Forest.from_tensors(grow(1, 2, 3), "random_forest", FEATURES).score(np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2)], ids=["flat", "wide", "narrow"])
def test_rows_of_another_width_are_a_programming_error(shape: tuple[int, ...]) -> None:
    """Rows that do not have the forest's columns are refused before any index is used."""
    forest = Forest.from_tensors(grow(1, 2, 3), "random_forest", FEATURES)
    with pytest.raises(ValueError, match="expected"):
        forest.score(np.zeros(shape))
    with pytest.raises(ValueError, match="expected"):
        forest.credit(np.zeros(shape)[:1])


def put(name: str, index: int, value: float) -> Any:
    """Return a damage that writes one entry."""

    def damage(tensors: Tensors) -> None:
        tensors[name][index] = value

    return damage


def replace(name: str, array: NDArray[Any]) -> Any:
    """Return a damage that swaps a whole array."""

    def damage(tensors: Tensors) -> None:
        tensors[name] = array

    return damage


DAMAGES = {
    "child past the end": put("left", 0, 10_000),
    "child is its parent": put("left", 0, 0),
    "child before its parent": put("left", 2, 1),
    "orphaned children": put("left", 0, -1),
    "unknown leaf mark": put("left", 0, -2),
    "column out of range": put("feature", 0, FEATURES),
    "negative column": put("feature", 0, -3),
    "threshold is NaN": put("threshold", 0, np.nan),
    "threshold is infinite": put("threshold", 0, np.inf),
    "direction is neither": put("missing_left", 0, 2),
    "value is NaN": put("value", 0, np.nan),
    "probability above one": put("value", 0, 1.5),
    "no trees": put("trees", 0, 0),
    "negative trees": put("trees", 0, -1),
    "more trees than nodes": put("trees", 0, 400),
    "scale is zero": put("scale", 0, 0.0),
    "scale is NaN": put("scale", 0, np.nan),
    "scale is not the trees": put("scale", 0, 3.0),
    "wrong dtype": replace("left", np.zeros(5, dtype=np.int64)),
    "wrong shape": replace("value", np.zeros((2, 2))),
    "one entry short": replace("value", np.zeros(4)),
    "no nodes": replace("left", np.zeros(0, dtype=np.int32)),
    "too many nodes": replace("left", np.full(MAX_NODES + 1, -1, dtype=np.int32)),
    "no scale": replace("scale", np.zeros(0)),
    "unknown array": replace("code", np.zeros(1)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_arrays_are_refused(damage: Any) -> None:
    """Every single broken promise of the layout is a BundleError with the reason "model"."""
    tensors = grow(3, 2, 6)
    assert tensors["left"][0] != -1
    damage(tensors)
    with pytest.raises(BundleError) as caught:
        Forest.from_tensors(tensors, "random_forest", FEATURES)
    assert caught.value.reason == "model"
    assert caught.value.hint


def test_a_missing_array_an_unknown_kind_and_an_impossible_width_are_refused() -> None:
    """What is around the arrays is checked too."""
    tensors = grow(3, 2, 6)
    without = {name: array for name, array in tensors.items() if name != "value"}
    for arrays, kind, width in [
        (without, "random_forest", 3),
        (tensors, "pickle", 3),
        (tensors, "random_forest", 0),
    ]:
        with pytest.raises(BundleError):
            Forest.from_tensors(arrays, kind, width)


def test_a_path_longer_than_possible_is_refused() -> None:
    """An isolation forest's path lengths are bounded by its nodes."""
    tensors = grow(3, 2, 6, "isolation_forest")
    tensors["value"][-1] = 1e9
    with pytest.raises(BundleError, match="path length"):
        Forest.from_tensors(tensors, "isolation_forest", FEATURES)


def test_limits_of_trees_and_depth_hold() -> None:
    """More than MAX_TREES trees, or a chain deeper than MAX_DEPTH, cost no descent at all."""
    many = grow(0, MAX_TREES + 1, 0)
    with pytest.raises(BundleError, match="trees"):
        Forest.from_tensors(many, "random_forest", FEATURES)
    chain = grow(0, 1, MAX_DEPTH + 1)
    nodes = len(chain["left"])
    chain["left"] = np.full(nodes, -1, dtype=np.int32)
    chain["left"][0:1] = 1
    chain["left"][1 : nodes - 2 : 2] = np.arange(3, nodes, 2)
    inner = chain["left"] >= 0
    chain["feature"] = np.where(inner, 0, -1).astype(np.int16)
    with pytest.raises(BundleError, match="deeper"):
        Forest.from_tensors(chain, "random_forest", FEATURES)


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["random_forest", "isolation_forest"]),
)
def test_mutated_arrays_are_refused_or_harmless(data: st.DataObject, seed: int, kind: str) -> None:
    """Whatever bytes the arrays hold, loading raises nothing but BundleError and scores stay finite."""
    tensors = grow(seed, 3, 12, kind)
    for _ in range(data.draw(st.integers(1, 4))):
        name = data.draw(st.sampled_from(sorted(tensors)))
        raw = bytearray(tensors[name].tobytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        tensors[name] = np.frombuffer(bytes(raw), dtype=tensors[name].dtype)
    try:
        forest = Forest.from_tensors(tensors, kind, FEATURES)
    except BundleError:
        return
    rows = np.array([[np.nan, 0.0, 1.0], [5.0, -5.0, np.nan]])
    assert np.isfinite(forest.score(rows)).all()
    assert np.isfinite(forest.credit(rows[0])).all()
