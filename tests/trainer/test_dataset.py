"""The grid of a fleet's history: its shape is checked, its parts add up, its gaps are told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.features import CATALOGUE
from node_anomaly_trainer.dataset import History, coverage, least_ticks, require_trainable


def history(ticks: int = 20, nodes: int = 2, features: int = 3) -> History:
    rng = np.random.default_rng(1)
    return History(
        features=CATALOGUE[:features],
        interval_s=15.0,
        nodes=tuple(f"n{at}" for at in range(nodes)),
        timestamps=1000.0 + 15.0 * np.arange(ticks),
        values=rng.random((ticks, nodes, features)),
        labels=np.zeros((ticks, nodes), dtype=np.int8),
        origin={"source": "test"},
    )


def with_values(values: np.ndarray) -> History:
    ticks, nodes, features = values.shape
    return replace(history(ticks, nodes, features), values=values)


def test_shapes_that_do_not_fit_are_refused_with_both_shapes():
    with pytest.raises(TrainingError, match=r"\(20, 2, 2\).*\(20, 2, 3\)"):
        replace(history(), values=np.zeros((20, 2, 2)))


@pytest.mark.parametrize("broken", [[0, 15, 31], [0, 30, 15], [0, 15, 15], [0, 15, float("nan")]])
def test_timestamps_off_the_grid_are_refused(broken):
    good = history(3)
    with pytest.raises(TrainingError, match="tick"):
        replace(good, timestamps=np.array(broken, dtype=float))


def test_a_node_that_appears_twice_is_refused():
    with pytest.raises(TrainingError, match="'n0' appears twice"):
        replace(history(), nodes=("n0", "n0"))


def test_a_history_cannot_be_changed_in_place_and_its_source_array_still_can():
    values = np.zeros((20, 2, 3))
    built = replace(history(), values=values)
    with pytest.raises(ValueError, match="read-only"):
        built.values[0, 0, 0] = 1.0
    values[0, 0, 0] = 1.0


@given(st.integers(0, 300), st.floats(0, 1))
def test_two_parts_at_one_fraction_share_no_tick_and_lose_none(ticks, at):
    whole = history(ticks)
    joined = np.concatenate([whole.between(0, at).timestamps, whole.between(at, 1).timestamps])
    np.testing.assert_array_equal(joined, whole.timestamps)


def test_nodes_and_features_are_selected_in_the_order_asked_for():
    whole = history()
    part = whole.select_nodes(["n1", "n0"]).select_features([whole.feature_names[2]])
    np.testing.assert_array_equal(part.values[:, 0, 0], whole.values[:, 1, 2])
    with pytest.raises(TrainingError, match="no node 'n9'") as caught:
        whole.select_nodes(["n9"])
    assert "n0, n1" in caught.value.hint


def test_coverage_counts_gaps_constant_and_absent_columns():
    values = np.random.default_rng(0).random((100, 2, 3))
    values[:, :, 0] = np.nan
    values[:, :, 1] = 0.25
    values[:, 1, :] = np.nan
    values[:40, 0, 2] = np.nan
    report = coverage(with_values(values))
    assert report.absent_features == (CATALOGUE[0].name,)
    assert report.constant_features == (CATALOGUE[1].name,)
    assert report.silent_nodes == ("n1",)
    assert report.missing[0, 2] == pytest.approx(0.4)
    assert any(line.startswith("n0: 40% of") for line in report.lines())


def test_a_complete_history_has_nothing_to_report():
    assert coverage(history(100)).lines() == ()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        pytest.param(history(0), "is empty", id="no ticks"),
        pytest.param(history(20, 0), "holds no node", id="no nodes"),
        pytest.param(history(20, 2, 0), "holds no feature", id="no features"),
        pytest.param(with_values(np.full((20, 2, 3), np.nan)), "not one sample", id="all missing"),
        pytest.param(history(20), "20 ticks with samples, 1000 are needed", id="too short"),
        pytest.param(
            replace(history(1000), nodes=("a", "b\n")), r"a node 'b\\n', and a bundle holds", id="odd node"
        ),
        pytest.param(
            replace(history(1000, 1, 1), features=(replace(history(1, 1, 1).features[0], name="x" * 101),)),
            "a feature 'xx",
            id="long name",
        ),
        pytest.param(history(1000, 2001, 1), "of 2,001 nodes, a bundle holds 2,000", id="too many nodes"),
    ],
)
def test_history_that_cannot_be_trained_on_says_why_and_what_to_do(broken, said):
    with pytest.raises(TrainingError, match=said) as caught:
        require_trainable(broken, 1000)
    assert caught.value.hint


def test_a_node_alone_needs_a_longer_range_for_the_calibration():
    assert least_ticks(1, 0.75) == 1600
    assert least_ticks(2, 0.75) == least_ticks(300, 0.75) == 1000
    assert least_ticks(1, 0.95) == 8000


def test_one_node_with_constant_and_missing_columns_is_allowed_and_reported():
    values = np.random.default_rng(0).random((50, 1, 3))
    values[:, :, 0], values[:, :, 1] = np.nan, 3.0
    report = require_trainable(with_values(values), 50)
    assert report.absent_features
    assert report.constant_features
