"""What one tick is judged by in fewer steps is what it was judged by before, to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.bundle import starter_bundle, verify_bundle
from node_anomaly_core.degradation import MemberHealth
from node_anomaly_core.errors import BundleError
from node_anomaly_core.forest import Forest
from node_anomaly_core.grove import Grove, plant
from node_anomaly_core.manifest import BOTH_SUMMARIES, NORMALISED
from node_anomaly_core.members import Models, forest_input, judge, judge_tick
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_core.tensors import read_tensors, write_tensors
from node_anomaly_core.witnesses import Witness

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
                model.name: forest_input(model.input, summary, normalised) for model in bundle.manifest.models
            }
            assert raw == {name: forest.score_one(given[name]) for name, forest in alone.items()}
            assert said == list(alone)


def test_planted_forests_score_and_credit_as_before_and_share_their_nodes(alone, rows):
    planted = plant({name: forest.twin() for name, forest in alone.items()})
    for name, forest in alone.items():
        np.testing.assert_array_equal(planted[name].score(rows[:, 0]), forest.score(rows[:, 0]))
        np.testing.assert_array_equal(planted[name].credit(rows[30, 0]), forest.credit(rows[30, 0]))
        np.testing.assert_array_equal(planted[name].twin().score(rows[:1, 1]), forest.score(rows[:1, 1]))
    tables = {id(forest.table) for forest in planted.values()}
    assert len(tables) == 1


def test_a_single_forest_is_a_grove_too(alone, rows):
    (name, forest), *_ = alone.items()
    grove = Grove(plant({name: forest}), {name: NORMALISED})
    for other, row in rows[:20]:
        grove.take(other, row)
        assert forest.score_leaves(grove.leaves(name)) == forest.score_one(row)


@pytest.fixture(scope="module")
def both(bundle):
    """The starter's bundle with a random forest whose nodes ask for a number in one form or the other."""
    (model,) = (model for model in bundle.manifest.models if model.type == "random_forest")
    tensors = read_tensors(bundle.files[model.file])
    second = np.random.default_rng(7).random(len(tensors["feature"])) < 0.5
    second &= tensors["feature"] >= 0
    feature = (tensors["feature"] + np.where(second, SUMMARY_WIDTH, 0)).astype(np.int16)
    models = (replace(one, input=BOTH_SUMMARIES) if one is model else one for one in bundle.manifest.models)
    return replace(
        bundle,
        manifest=replace(bundle.manifest, models=tuple(models)),
        files={**bundle.files, model.file: write_tensors({**tensors, "feature": feature})},
    )


def test_a_forest_of_both_summaries_says_in_a_tick_what_it_says_in_a_batch(both, rows):
    models = Models(both)
    (name,) = (model.name for model in both.manifest.models if model.input == BOTH_SUMMARIES)
    assert models.forests[name].n_features == 2 * SUMMARY_WIDTH
    batch = models.forest_scores(rows[:, 0], rows[:, 1])
    moved = 0
    for at, (summary, normalised) in enumerate(rows[:59]):
        raw, _ = models.twin().forest_score(summary, normalised, MemberHealth(models.forests, models.forests))
        assert raw == {each: scores[at] for each, scores in batch.items()}
        other, _ = models.forest_score(summary, summary, MemberHealth(models.forests, models.forests))
        moved += other[name] != raw[name]
    assert moved > 30  # it does look at the second


def test_what_a_forest_credits_to_either_form_is_credited_to_the_number(both, rows):
    models = Models(both)
    (name,) = (model.name for model in both.manifest.models if model.input == BOTH_SUMMARIES)
    for summary, normalised in rows[:5]:
        split = models.forests[name].credit(np.concatenate([summary, normalised]))
        credit = models.credit({name}, summary, normalised)[name]
        np.testing.assert_array_equal(credit, split[:SUMMARY_WIDTH] + split[SUMMARY_WIDTH:])
        assert split[SUMMARY_WIDTH:].any()


def test_a_forest_of_both_summaries_is_refused_where_it_is_said_to_read_one(both):
    models = (replace(model, input="summary") for model in both.manifest.models)
    with pytest.raises(BundleError, match=r"a node compares a column outside 0\.\.127"):
        Models(replace(both, manifest=replace(both.manifest, models=tuple(models))))


@given(st.lists(st.floats(-20, 200) | st.just(float("nan")), min_size=7, max_size=7))
def test_a_tick_in_plain_numbers_is_judged_as_in_a_batch(bundle, scores):
    raw = {model.name: score for model, score in zip(bundle.manifest.models, scores, strict=True)}
    witnesses = (Witness((bundle.manifest.models[0].name,), 0.9),)
    manifest = replace(bundle.manifest, witnesses=witnesses)
    batch = judge(manifest, {name: np.array([score, 0.5]) for name, score in raw.items()})
    tick = judge_tick(manifest, raw)
    np.testing.assert_array_equal(tick.combined, batch.combined[0])
    np.testing.assert_array_equal(tick.counted, batch.counted[0])
    for name in raw:
        np.testing.assert_array_equal(tick.members[name], batch.members[name][0])
        np.testing.assert_array_equal(tick.evidence[name], batch.evidence[name][0])
