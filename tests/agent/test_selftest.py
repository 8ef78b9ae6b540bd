"""The agent tries out whether it would see an anomaly, and does not touch the real score by it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import small_bundle
from agent_fakes import FakeLog
from node_anomaly_agent.scorer import AgentScorer, Candidate
from node_anomaly_agent.selftest import EVERY_S, FIRST_AFTER_S, SelfTest, anomaly, anomaly_ticks, held_score
from node_anomaly_agent.snapshot import BundleInfo
from node_anomaly_core.bundle import Bundle, starter_bundle, verify_bundle
from node_anomaly_core.scoring import NodeScorer

NOW = 1_700_000_000.0


def agent_scorer(bundle: Bundle) -> AgentScorer:
    info = BundleInfo.of("here", bundle.version, bundle.manifest)
    scorer = NodeScorer(bundle, 15.0)
    return AgentScorer(Candidate(scorer, np.arange(len(bundle.manifest.features)), info))


def lived(bundle: Bundle, ticks: int = 80):
    """A scorer in use that knows its node, and its last score."""
    scorer = agent_scorer(bundle)
    for tick, row in enumerate(small_bundle.rows(3, ticks)):
        score = scorer.step(NOW + 15.0 * tick, row)
    return scorer, score


class Later:
    """A thread that waits to be told to run."""

    def __init__(self) -> None:
        self.work = []

    def __call__(self, work) -> None:
        self.work.append(work)

    def run(self) -> None:
        while self.work:
            self.work.pop(0)()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return small_bundle.build().bundle()


def test_the_made_up_anomaly_is_seen_and_leaves_the_real_score_alone(bundle):
    scorer, score = lived(bundle)
    before = {name: array.copy() for name, array in scorer.export().items()}
    assert held_score(scorer.fork(), score, score.timestamp) >= 1.0
    for name, array in scorer.export().items():
        np.testing.assert_array_equal(array, before[name])


def test_the_starter_sees_it_on_a_node_that_it_has_just_learnt():
    starter = verify_bundle(starter_bundle())
    scorer = agent_scorer(starter)
    rng = np.random.default_rng(0)
    for tick in range(60):
        row = np.abs(rng.normal(1.0, 0.05, len(starter.manifest.features)))
        score = scorer.step(NOW + 15.0 * tick, row)
    assert held_score(scorer.fork(), score, score.timestamp) >= 1.0


@pytest.mark.parametrize(("interval_s", "ticks"), [(1.0, 120), (15.0, 12), (300.0, 12)])
def test_the_anomaly_lasts_two_minutes_or_twelve_ticks_so_that_windows_fill_with_it(interval_s, ticks):
    assert anomaly_ticks(interval_s) == ticks


def test_it_begins_ten_minutes_after_the_agent_is_warm_and_comes_back_after_hours(bundle):
    scorer, score = lived(bundle)
    later = Later()
    test = SelfTest(FakeLog(), later)
    cold = replace(score, warm=False)
    test.tick(0.0, NOW, cold, scorer)
    test.tick(100.0, NOW, score, scorer)
    test.tick(100.0 + FIRST_AFTER_S - 1, NOW, score, scorer)
    assert not later.work
    test.tick(100.0 + FIRST_AFTER_S, NOW, score, scorer)
    assert len(later.work) == 1
    assert math.isnan(test.status.success), "absent before the first"
    test.tick(100.0 + FIRST_AFTER_S + EVERY_S, NOW, score, scorer)
    assert len(later.work) == 1, "one at a time"
    later.run()
    test.tick(5000.0, NOW + 7, score, scorer)
    assert (test.status.success, test.status.timestamp) == (1.0, NOW + 7)


def test_another_bundle_is_tried_soon_after_it_has_taken_over(bundle):
    scorer, score = lived(bundle)
    other, its = lived(replace(bundle, version="another"))
    later = Later()
    test = SelfTest(FakeLog(), later)
    for at in (0.0, FIRST_AFTER_S):
        test.tick(at, NOW, score, scorer)
    later.run()
    test.tick(FIRST_AFTER_S + 1, NOW, its, other)
    assert not later.work
    test.tick(2 * FIRST_AFTER_S + 1, NOW, its, other)
    assert len(later.work) == 1


def test_models_that_see_nothing_are_told_once_and_so_is_their_recovery(bundle):
    later, log = Later(), FakeLog()
    test = SelfTest(log, later)
    blind = replace(
        bundle, manifest=replace(bundle.manifest, tail=replace(bundle.manifest.tail, alarm_log10p=-1e6))
    )
    at = 0.0
    for used in (blind, blind, bundle):
        one, its = lived(used)
        test.tick(at, NOW, its, one)
        at += FIRST_AFTER_S + EVERY_S
        test.tick(at, NOW, its, one)
        later.run()
        test.tick(at + 1, NOW, its, one)
    assert log.events("error") == ["self-test failed: this agent may be blind"]
    assert log.events("info") == ["self-test passed"]
    assert test.status.success == 1.0


def test_a_test_that_cannot_be_made_is_a_failed_one(bundle):
    scorer, score = lived(bundle)
    later, log = Later(), FakeLog()
    test = SelfTest(log, later)

    class Broken:
        info = scorer.info

        def fork(self):
            raise MemoryError

    test.tick(0.0, NOW, score, scorer)
    test.tick(FIRST_AFTER_S, NOW, score, Broken())
    test.tick(FIRST_AFTER_S + 1, NOW, score, scorer)
    assert test.status.success == 0.0
    assert log.events("error")


def test_the_row_does_in_every_feature_what_would_alarm_an_operator(bundle):
    features = bundle.manifest.features
    _, score = lived(bundle)
    observed = score.observed.copy()
    observed[0] = np.nan
    row = anomaly(features, replace(score, observed=observed))
    assert np.isnan(row[0]), "a feature that the node does not have stays missing"
    for feature, value, usual in list(zip(features, row, score.expected, strict=True))[1:]:
        assert value < usual or value == 0.0 if feature.direction == "low" else value > 5 * usual
