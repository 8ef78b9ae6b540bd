"""From the agent's features to the bundle's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import agent_bundle
from agent_fakes import FEATURES, START, make_candidate
from node_anomaly_agent.scorer import AgentScorer, align, load_candidate
from node_anomaly_agent.state import AgentState
from node_anomaly_core.errors import BundleError
from node_anomaly_core.features import CATALOGUE


def test_columns_follow_the_bundles_order():
    assert align(FEATURES[::-1], FEATURES).tolist() == [2, 1, 0]
    assert align(FEATURES[1:2], FEATURES).tolist() == [1]


def test_a_feature_the_agent_cannot_supply_is_named_with_the_nearest():
    wanted = replace(FEATURES[0], name="cpu_bussy_ratio")
    with pytest.raises(BundleError, match="cpu_bussy_ratio") as caught:
        align([wanted], FEATURES)
    assert caught.value.reason == "features"
    assert "cpu_busy_ratio" in caught.value.hint
    with pytest.raises(BundleError) as caught:
        align([replace(FEATURES[0], name="zzz")], FEATURES)
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("change", [{"unit": "bytes"}, {"kind": "rate"}], ids=str)
def test_a_feature_that_means_something_else_here_is_refused(change):
    with pytest.raises(BundleError, match="cpu_busy_ratio") as caught:
        align([replace(FEATURES[0], **change)], FEATURES)
    assert caught.value.reason == "features"


def test_a_bundle_with_fewer_features_in_another_order_scores(tmp_path):
    wanted = (CATALOGUE[5], CATALOGUE[2], CATALOGUE[30])
    path = agent_bundle.make_bundle(tmp_path, features=wanted)
    scorer = AgentScorer(load_candidate(path, CATALOGUE, 15.0, ""))
    values = np.arange(float(len(CATALOGUE)))
    score = scorer.step(1.7e9, values)
    assert score.observed.tolist() == [5.0, 2.0, 30.0]
    assert scorer.info.models == (("isolation_forest", "isolation_forest"),)


def test_a_swap_keeps_the_scorer_warm(tmp_path):
    first, second = (
        load_candidate(agent_bundle.make_bundle(tmp_path, trained_at=1.7e9 + n), CATALOGUE, 15.0, "")
        for n in range(2)
    )
    scorer = AgentScorer(first)
    generator = np.random.default_rng(0)
    for tick in range(60):
        score = scorer.step(1.7e9 + 15 * tick, generator.normal(10, 1, len(CATALOGUE)))
    assert score.warm
    scorer.swap(second)
    assert scorer.info.version == second.info.version
    assert scorer.warmup_done == scorer.warmup_ticks
    assert scorer.step(1.7e9 + 900, generator.normal(10, 1, len(CATALOGUE))).warm


def test_a_history_of_another_interval_is_left_whichever_is_the_longer():
    scorer = AgentScorer(make_candidate())
    for saved, now in ((15.0, 30.0), (30.0, 15.0)):
        state = AgentState(START, saved, scorer.info.version, {}, {"ticks": np.array([9])})
        assert "recorded every" in scorer.resume(state, now, START)
