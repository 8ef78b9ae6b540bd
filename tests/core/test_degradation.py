"""A member that raises or gives no number costs its own say, and never the whole tick."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_bundle
from node_anomaly_core.degradation import REST_TICKS, MemberHealth, robust_z
from node_anomaly_core.scoring import NodeScorer

ALL = ("isolation_forest", "random_forest", "lstm", "autoregression")


def scorer_of(small, *names: str) -> NodeScorer:
    made = small_bundle.only(small, *names) if names else small
    scorer = NodeScorer(made.bundle(), small_bundle.INTERVAL_S)
    scorer.health.tolerant = True
    small_bundle.live(scorer, small_bundle.rows(5, 60))
    return scorer


def broken(*_arguments: object) -> None:
    raise RuntimeError("the model is broken")


class NoNumbers:
    """An interpreter whose output is NaN."""

    def step(self, values: np.ndarray) -> np.ndarray:
        return np.full_like(values, np.nan)


def break_member(scorer: NodeScorer, name: str, how: str) -> None:
    """Let one member raise, or say NaN, from now on."""
    if name == "lstm":
        path = scorer._forecasts
        if how == "raises":
            scorer.models.forecast_path = broken  # type: ignore[method-assign,assignment]
            path.step = broken
        else:
            path._lstm = NoNumbers()
            path._forecast[:] = np.nan
    else:
        scorer.models.forests[name] = type("Broken", (), {
            "score_leaves": broken if how == "raises" else lambda _self, _row: math.nan,
            "credit": broken,
        })()  # fmt: skip


@pytest.mark.parametrize("how", ["raises", "nan"])
@pytest.mark.parametrize("name", ["isolation_forest", "random_forest", "lstm"])
def test_without_one_member_the_others_still_score(small, name, how):
    scorer = scorer_of(small)
    break_member(scorer, name, how)
    (score,) = small_bundle.live(scorer, small_bundle.rows(6, 1), 60)
    assert math.isfinite(score.score)
    assert math.isnan(score.model_scores[name])
    assert all(math.isfinite(score.model_scores[other]) for other in ALL if other != name)
    assert score.contributions.sum() == pytest.approx(1.0)
    assert np.isfinite(score.expected).all()
    assert (scorer.health.level, scorer.health.failures[name]) == (1, 1)
    small_bundle.live(scorer, small_bundle.rows(7, REST_TICKS - 2), 61)
    assert scorer.health.failures[name] == 1, "one that failed is left alone for a while"


def test_a_member_that_works_again_has_its_say_again(small):
    scorer = scorer_of(small)
    path = scorer.models.forecast_path
    break_member(scorer, "lstm", "raises")
    small_bundle.live(scorer, small_bundle.rows(6, 1), 60)
    scorer.models.forecast_path = path
    scores = small_bundle.live(scorer, small_bundle.rows(7, REST_TICKS + 3), 61)
    assert scorer.health.level == 0
    assert math.isfinite(scores[-1].model_scores["lstm"])


def test_without_any_forest_the_forecasters_score_and_the_level_says_so(small):
    scorer = scorer_of(small)
    for name in ("isolation_forest", "random_forest"):
        break_member(scorer, name, "raises")
    (score,) = small_bundle.live(scorer, small_bundle.rows(6, 1), 60)
    assert math.isfinite(score.score)
    assert scorer.health.level == 2


def test_without_any_member_a_robust_z_still_sees_a_fault(small):
    scorer = scorer_of(small, "isolation_forest", "lstm")
    for name in ("isolation_forest", "lstm"):
        break_member(scorer, name, "raises")
    calm, wild = small_bundle.rows(6, 2)
    wild[4] = 100.0
    normal, anomalous = small_bundle.live(scorer, [calm, wild], 60)
    assert scorer.health.level == 3
    assert 0 <= normal.score < 1 <= anomalous.score
    assert int(np.argmax(anomalous.contributions)) == 4


def test_an_alarm_by_the_robust_z_is_none_that_was_outgrown(small):
    """Nobody judges evidence then, so what was outgrown before stays so."""
    scorer = scorer_of(small, "isolation_forest", "lstm")
    for name in ("isolation_forest", "lstm"):
        break_member(scorer, name, "raises")
    scorer._threshold.outgrown.restore([0.5, 0.6, 0.0, 0.0, 1.0, 1.0])
    calm, wild = small_bundle.rows(6, 2)
    wild[4] = 100.0
    normal, anomalous = small_bundle.live(scorer, [calm, wild], 60)
    assert normal.outgrown
    assert anomalous.score >= 1
    assert not anomalous.outgrown


def test_a_member_that_is_dropped_is_not_asked_until_it_is_taken_back(small):
    scorer = scorer_of(small)
    scorer.health.drop("lstm")
    (score,) = small_bundle.live(scorer, small_bundle.rows(6, 1), 60)
    assert math.isnan(score.model_scores["lstm"])
    assert scorer._forecasts is None, "its memory is given back"
    assert scorer.health.level == 1
    assert scorer.health.failures["lstm"] == 0
    scorer.health.take_back("lstm")
    scores = small_bundle.live(scorer, small_bundle.rows(7, 3), 61)
    assert math.isfinite(scores[-1].model_scores["lstm"])


def test_a_scorer_that_is_not_told_to_be_tolerant_raises(small):
    scorer = scorer_of(small)
    scorer.health.tolerant = False
    break_member(scorer, "random_forest", "raises")
    with pytest.raises(RuntimeError, match="broken"):
        small_bundle.live(scorer, small_bundle.rows(6, 1), 60)


def test_what_failed_is_remembered_over_a_restore(small):
    scorer = scorer_of(small)
    scorer.health.failed("lstm")
    assert scorer.restore(scorer.state())
    assert scorer.health.failures["lstm"] == 1


@given(
    st.lists(st.tuples(st.sampled_from(("fail", "drop", "back", "tick")), st.sampled_from(ALL)), max_size=60)
)
def test_the_level_is_that_of_the_members_that_are_asked(events):
    health = MemberHealth(ALL, ALL[:2])
    for what, name in events:
        if what == "fail":
            health.failed(name)
        elif what == "drop":
            health.drop(name)
        elif what == "back":
            health.take_back(name)
        else:
            health.tick()
        working = {name for name in ALL if health.may(name)}
        forests = working & set(ALL[:2])
        expected = 0 if len(working) == len(ALL) else 1 if forests else 2 if working else 3
        assert health.level == expected


def test_a_robust_z_of_nothing_is_unknown():
    score, shares = robust_z(np.full((3, 4), np.nan))
    assert math.isnan(score)
    assert np.isnan(shares).all()


def test_each_members_shares_sum_to_one_and_one_that_is_left_out_has_none(small) -> None:
    scorer = scorer_of(small)
    row = small_bundle.rows(5, 61)[60] * 3.0
    everyone = scorer.step(small_bundle.LIVE + 60 * small_bundle.INTERVAL_S, row)
    assert set(everyone.member_contributions) == set(ALL)
    for shares in everyone.member_contributions.values():
        assert shares.min() >= 0.0
        assert shares.sum() == pytest.approx(1.0)
    scorer.health.drop("lstm")
    rest = scorer.step(small_bundle.LIVE + 61 * small_bundle.INTERVAL_S, row)
    assert set(rest.member_contributions) == set(ALL) - {"lstm"}
