"""1.0 is the level that normal operation holds once per budget, and the scale around it never turns back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.calibration import (
    HOLD_TICKS,
    MERGE_TICKS,
    MemberScale,
    Tail,
    combine,
    episode_rate,
    fit_member,
    fit_tail,
    held,
    pareto,
    peaks_over,
)

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = 15.0
TICKS_PER_WEEK = 40_320

series = hnp.arrays(np.float64, st.integers(0, 60), elements=st.floats(-5, 5, width=16) | st.just(NAN))


def noise(seed: int, ticks: int, nodes: int, memory: float = 0.8) -> Array:
    """Normal evidence (ticks, nodes) that remembers its past, as real evidence does."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(ticks, nodes))
    for tick in range(1, ticks):
        values[tick] = memory * values[tick - 1] + np.sqrt(1 - memory**2) * values[tick]
    return values


def columns(values: Array) -> list[Array]:
    return list(values.T)


@pytest.fixture(scope="module")
def tail() -> Tail:
    return fit_tail(columns(noise(0, 6_000, 6)), INTERVAL_S, 1.0)


# ---------------------------------------------------------------------------------------------- the budget


@pytest.mark.parametrize("budget", [1.0, 7.0])
def test_the_budget_is_realised_on_data_that_was_not_fitted(budget: float) -> None:
    """Mean over six calibrations, each judged on twelve node-weeks of fresh noise."""
    realised = []
    for seed in range(6):
        fitted = fit_tail(columns(noise(seed, 12_000, 8)), INTERVAL_S, budget)
        fresh = fitted.score(noise(100 + seed, TICKS_PER_WEEK, 12))
        realised.append(episode_rate([held(score) for score in columns(fresh)], 1.0, INTERVAL_S))
    assert budget / 3 < np.mean(realised) < budget * 3


def test_time_nobody_judged_buys_no_false_alarms() -> None:
    """Half of every history is masked as not normal: the threshold hardly moves."""
    values = noise(5, 40_000, 6)
    masked = values.copy()
    masked[(np.arange(len(values)) // 500) % 2 == 1] = NAN
    fresh = noise(6, TICKS_PER_WEEK, 12)
    rates = [
        episode_rate(
            [held(s) for s in columns(fit_tail(columns(v), INTERVAL_S, 7.0).score(fresh))], 1.0, 15.0
        )
        for v in (values, masked)
    ]
    assert rates[1] < 1.6 * rates[0]


def test_a_looser_budget_means_a_lower_threshold() -> None:
    evidence = columns(noise(1, 12_000, 4))
    strict, loose = (fit_tail(evidence, INTERVAL_S, budget) for budget in (1.0, 50.0))
    assert strict.alarm_log10p < loose.alarm_log10p
    assert loose.score(np.array([4.0]))[0] > strict.score(np.array([4.0]))[0]


def test_a_budget_beyond_every_episode_still_gives_a_threshold() -> None:
    fitted = fit_tail(columns(noise(2, 500, 2)), INTERVAL_S, 1e6)
    assert np.isfinite(fitted.alarm_log10p)
    assert fitted.alarm_log10p <= -1.0


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (np.zeros(199), "at least 200"),
        (np.full(5_000, NAN), "at least 200"),
        (np.where(np.arange(3_000) % 3 == 0, NAN, 1.0), "in a row"),
    ],
)
def test_too_little_normal_data_is_said_not_guessed(evidence: Array, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_tail([evidence], INTERVAL_S, 1.0)


def test_whoever_accepts_less_gets_a_tail_of_as_few_ticks_as_have_a_body() -> None:
    """Twenty ticks say where usual ends; what lies beyond is still rarer the further out it is."""
    few = np.random.default_rng(3).normal(size=20)
    fitted = fit_tail([few], 3600.0, 7.0, least=1)
    scores = fitted.score(np.array([0.0, 3.0, 30.0]))
    assert (np.diff(scores) > 0).all()
    assert fitted.score(few).max() < 1.5
    with pytest.raises(ValueError, match="at least 20 normal ticks, got 19"):
        fit_tail([few[:19]], 3600.0, 7.0, least=1)


def test_evidence_that_never_varies_can_be_calibrated() -> None:
    fitted = fit_tail([np.zeros(1_000)], INTERVAL_S, 1.0)
    assert np.isfinite(fitted.score(np.array([0.0, 1.0, 100.0]))).all()
    assert fitted.score(np.array([100.0]))[0] > 1.0


# ------------------------------------------------------------------------------------------------ the scale


@given(st.floats(-50, 500), st.floats(-50, 500))
def test_more_evidence_never_scores_less(tail: Tail, one: float, two: float) -> None:
    low, high = sorted((one, two))
    scores = tail.score(np.array([low, high]))
    assert 0.0 <= scores[0] <= scores[1] + 1e-12


@given(st.lists(st.floats(-50, 500) | st.just(NAN), min_size=2, max_size=9), st.integers(0, 30))
def test_a_tick_alone_scores_as_in_a_batch(tail: Tail, evidence: list[float], knot: int) -> None:
    batch = np.array([*evidence, tail.knots[knot % len(tail.knots)]])
    alone = np.concatenate([tail.score(batch[at : at + 1]) for at in range(len(batch))])
    np.testing.assert_allclose(alone, tail.score(batch), rtol=1e-12, atol=1e-12)


def test_the_score_is_one_at_the_alarm_level_and_grows_without_end(tail: Tail) -> None:
    level = float(np.interp(-tail.alarm_log10p, -np.array(tail.log10p), tail.knots))
    assert tail.score(np.array([level]))[0] == pytest.approx(1.0)
    far = tail.score(np.array([tail.knots[-1], tail.knots[-1] + 10, tail.knots[-1] + 20]))
    assert far[0] < far[1] < far[2]
    assert far[2] - far[1] == pytest.approx(far[1] - far[0])


@pytest.mark.parametrize("alarm", [-0.5, -1.0, -2.5, -4.0, -7.0])
def test_the_alarm_level_is_the_evidence_that_scores_one(alarm: float) -> None:
    """Between the knots and beyond the last of them."""
    part = Tail((-1.0, 0.0, 2.0, 3.0), (0.0, -1.0, -2.0, -4.0), alarm)
    assert part.score(np.array(part.alarm_level())) == pytest.approx(1.0)


def test_the_score_is_the_log_of_the_share_of_normal_ticks(tail: Tail) -> None:
    normal = noise(9, 200_000, 1)[:, 0]
    for share in (0.1, 0.01, 0.001):
        level = np.quantile(normal, 1 - share)
        assert tail.score(np.array([level]))[0] == pytest.approx(
            np.log10(share) / tail.alarm_log10p, rel=0.15
        )


def test_unknown_evidence_has_an_unknown_score(tail: Tail) -> None:
    scores = tail.score(np.array([[NAN, 0.0], [3.0, NAN]]))
    assert np.isnan(scores).tolist() == [[True, False], [False, True]]


def test_knots_rise_and_probabilities_fall(tail: Tail) -> None:
    assert all(b > a for a, b in itertools.pairwise(tail.knots))
    assert all(b <= a for a, b in itertools.pairwise(tail.log10p))


def test_evidence_with_many_equal_values_gives_knots_that_rise() -> None:
    """A Random Forest says the same number for most normal ticks."""
    values = np.where(np.random.default_rng(0).random(8_000) < 0.97, 0.0, noise(4, 8_000, 1)[:, 0])
    fitted = fit_tail([values], INTERVAL_S, 1.0)
    assert all(b > a for a, b in itertools.pairwise(fitted.knots))
    assert fitted.score(np.array([0.0]))[0] < 0.5


# ---------------------------------------------------------------------------------------------- its parts


@given(series, st.integers(1, 5))
def test_held_is_the_least_of_the_latest_ticks(evidence: Array, ticks: int) -> None:
    result = held(evidence, ticks)
    for tick in range(len(evidence)):
        window = evidence[tick + 1 - ticks : tick + 1] if tick + 1 >= ticks else np.array([NAN])
        assert result[tick] == (window.min() if np.isfinite(window).all() else -np.inf)


@given(series, st.floats(-5, 5, width=16))
def test_peaks_are_one_per_separate_episode(levels: Array, threshold: float) -> None:
    episodes: list[list[float]] = []
    last = -(10**9)
    for tick, level in enumerate(levels):
        if level >= threshold:
            if tick - last > MERGE_TICKS:
                episodes.append([])
            episodes[-1].append(float(level))
            last = tick
    assert peaks_over(levels, threshold).tolist() == [max(episode) for episode in episodes]


def test_episodes_are_counted_per_known_week() -> None:
    levels = np.zeros(TICKS_PER_WEEK)
    levels[[100, 105, 5_000]] = 2.0
    assert episode_rate([levels], 1.0, INTERVAL_S) == 2.0
    assert episode_rate([levels, np.full(TICKS_PER_WEEK, NAN)], 1.0, INTERVAL_S) == 2.0
    assert episode_rate([levels, np.zeros(TICKS_PER_WEEK)], 1.0, INTERVAL_S) == 1.0
    assert np.isnan(episode_rate([np.full(10, NAN)], 1.0, INTERVAL_S))


@pytest.mark.parametrize(("shape", "scale"), [(0.0, 1.0), (0.2, 2.0), (0.35, 0.5)])
def test_pareto_finds_the_distribution_its_samples_came_from(shape: float, scale: float) -> None:
    share = np.random.default_rng(1).random(20_000)
    samples = -scale * np.log(share) if shape == 0.0 else scale / shape * (share**-shape - 1)
    assert pareto(samples) == pytest.approx((shape, scale), abs=0.06)


def test_a_bounded_tail_is_not_believed() -> None:
    assert pareto(np.random.default_rng(2).random(5_000))[0] == 0.0


@pytest.mark.parametrize("excesses", [[], [0.5], [0.0, 0.0, 0.0]])
def test_hardly_any_excess_still_gives_a_scale(excesses: list[float]) -> None:
    shape, scale = pareto(np.array(excesses))
    assert shape == 0.0
    assert scale > 0.0


def test_a_member_is_read_against_its_own_median_and_high() -> None:
    scores = np.append(np.linspace(0.0, 100.0, 10_001), NAN)
    scale = fit_member(scores)
    assert scale.evidence(np.array([50.0, 95.0])) == pytest.approx([0.0, 1.0])


def test_a_member_that_hardly_ever_moves_cannot_outshout_the_others() -> None:
    """A Random Forest that says -12 on normal data, always or nearly, still is one voice of several."""
    always = fit_member(np.full(1_000, -12.0))
    nearly = fit_member(np.append(np.full(1_000, -12.0), [3.0, -11.0]))
    for scale in (always, nearly):
        normal, loud = scale.evidence(np.array([-12.0, 12.0]))
        assert normal == 0.0
        assert 1.0 < loud < 200.0


def test_members_that_know_nothing_are_left_out_of_the_mean() -> None:
    combined = combine([np.array([1.0, NAN, NAN]), np.array([3.0, 5.0, NAN])], [1.0, 3.0])
    np.testing.assert_array_equal(combined, [2.5, 5.0, NAN])


def test_members_are_combined_node_by_node_over_any_shape() -> None:
    rng = np.random.default_rng(0)
    members = [rng.normal(size=(4, 3)) for _ in range(3)]
    members[1][2, 0] = NAN
    joint = combine(members, [1.0, 2.0, 0.5])
    for tick, node in itertools.product(range(4), range(3)):
        alone = combine([member[tick : tick + 1, node] for member in members], [1.0, 2.0, 0.5])
        assert joint[tick, node] == alone[0]


def test_evidence_is_not_changed_by_being_held_or_scored(tail: Tail) -> None:
    evidence = np.array([1.0, NAN, 3.0, 4.0])
    before = evidence.copy()
    held(evidence, HOLD_TICKS)
    tail.score(evidence)
    MemberScale(0.0, 1.0).evidence(evidence)
    np.testing.assert_array_equal(evidence, before)


def test_a_member_that_is_flat_but_for_rare_jumps_is_read_in_hundredths_of_the_highest() -> None:
    """Its 95 % quantile is its median; what it says on the other ticks is all that there is of a scale."""
    scale = fit_member(np.append(np.full(1_000, -12.0), [3.0, -11.0]))
    assert scale.evidence(np.array([-12.0, 3.0])) == pytest.approx([0.0, 100.0])


def test_rounding_of_large_scores_is_no_movement() -> None:
    scale = fit_member(1e9 + np.linspace(0.0, 100.0, 1_001))
    assert scale.high - scale.median == 1.0


def test_a_member_that_is_mostly_silent_has_a_scale_of_at_least_so_much() -> None:
    scores = np.linspace(0.0, 1.0, 1_001)
    quiet, loud = fit_member(scores, 3.0), fit_member(10.0 * scores, 3.0)
    assert (quiet.median, quiet.high) == pytest.approx((0.5, 3.5))
    assert (loud.median, loud.high) == pytest.approx((5.0, 9.5))


def test_a_score_without_end_does_not_set_the_scale() -> None:
    scores = np.linspace(0.0, 100.0, 1_001)
    assert fit_member(np.append(scores, [np.inf, -np.inf])) == fit_member(scores)


def test_the_body_ends_where_ten_ticks_lie_beyond_and_the_rest_is_extrapolated() -> None:
    fitted = fit_tail([noise(7, 200, 1)[:, 0]], INTERVAL_S, 1.0)
    assert np.log10(0.05) in fitted.log10p, "of 200"
    assert not {float(np.log10(share)) for share in (0.03, 0.02, 0.01)} & set(fitted.log10p)
