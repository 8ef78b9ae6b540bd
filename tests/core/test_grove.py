"""What one tick is judged by in fewer steps is what it was judged by before, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.bundle import starter_bundle, verify_bundle
from node_anomaly_core.degradation import MemberHealth
from node_anomaly_core.forest import Forest
from node_anomaly_core.grove import Grove, plant
from node_anomaly_core.members import Models, judge, judge_tick
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_core.tensors import read_tensors

KINDS = ("isolation_forest", "random_forest")


@pytest.fixture(scope="module")
def bundle():
    return verify_bundle(starter_bundle())


@pytest.fixture(scope="module")
def alone(bundle):
    """The forests of the starter bundle, each by itself."""
    return {
        model.name: Forest.from_tensors(read_tensors(bundle.files[model.file]), model.type, SUMMARY_WIDTH)
        for model in bundle.manifest.models
        if model.type in KINDS
    }


@pytest.fixture(scope="module")
def rows():
    """Rows (60, 2, SUMMARY_WIDTH): two forms of each, some with missing numbers, one with nothing else."""
    rng = np.random.default_rng(4)
    rows = 3.0 * rng.normal(size=(60, 2, SUMMARY_WIDTH))
    rows[20:40][rng.random((20, 2, SUMMARY_WIDTH)) < 0.2] = np.nan
    rows[59] = np.nan
    rows[58, :, ::3] = 1e300
    return rows


def test_together_they_say_to_the_bit_what_each_says_alone(bundle, alone, rows):
    models = Models(bundle)
    for one in (models, models.twin()):
        for summary, normalised in rows[:59]:
            raw, said = one.forest_score(summary, normalised, MemberHealth(alone, alone))
            given = {
                model.name: normalised if model.input == "summary_normalised" else summary
                for model in bundle.manifest.models
            }
            assert raw == {name: forest.score_one(given[name]) for name, forest in alone.items()}
            assert said == list(alone)


def test_planted_forests_score_and_credit_as_before_and_share_their_nodes(alone, rows):
    planted = plant(alone)
    for name, forest in alone.items():
        np.testing.assert_array_equal(planted[name].score(rows[:, 0]), forest.score(rows[:, 0]))
        np.testing.assert_array_equal(planted[name].credit(rows[30, 0]), forest.credit(rows[30, 0]))
        np.testing.assert_array_equal(planted[name].twin().score(rows[:1, 1]), forest.score(rows[:1, 1]))
    tables = {id(forest.table) for forest in planted.values()}
    assert len(tables) == 1


def test_a_single_forest_is_a_grove_too(alone, rows):
    (name, forest), *_ = alone.items()
    grove = Grove(plant({name: forest}), frozenset({name}))
    for other, row in rows[:20]:
        grove.take(other, row)
        assert forest.score_leaves(grove.leaves(name)) == forest.score_one(row)


@given(st.lists(st.floats(-20, 200) | st.just(float("nan")), min_size=7, max_size=7))
def test_a_tick_in_plain_numbers_is_judged_as_in_a_batch(bundle, scores):
    raw = {model.name: score for model, score in zip(bundle.manifest.models, scores, strict=True)}
    batch = judge(bundle.manifest, {name: np.array([score, 0.5]) for name, score in raw.items()})
    tick = judge_tick(bundle.manifest, raw)
    np.testing.assert_array_equal(tick.combined, batch.combined[0])
    for name in raw:
        np.testing.assert_array_equal(tick.members[name], batch.members[name][0])
        np.testing.assert_array_equal(tick.evidence[name], batch.evidence[name][0])
