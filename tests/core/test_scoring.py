"""One node under one bundle: cold, warm, disturbed, with holes, after silence, and as it is replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle import Bundle
from node_anomaly_core.members import Models, judge
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.steady import half_smoothed
from node_anomaly_core.threshold import rolling_scores
from node_anomaly_trainer.replay import replay_forecasts, replay_fresh, replay_residuals, stretches
from small_bundle import INTERVAL_S, LIVE, live, numbers

Array = NDArray[np.float64]

NAN = float("nan")
WIDTH = len(small_bundle.FEATURES)
NAMES = [feature.name for feature in small_bundle.FEATURES]
DISK = NAMES.index("disk_busy_ratio")


@pytest.fixture
def scorer(bundle: Bundle) -> NodeScorer:
    """For a node that the bundle does not know."""
    return NodeScorer(bundle, INTERVAL_S)


@pytest.fixture
def warm(scorer: NodeScorer) -> NodeScorer:
    """Sixty ordinary ticks later."""
    live(scorer, small_bundle.rows(10, 60))
    return scorer


# ------------------------------------------------------------------------------------------- cold and warm


def test_a_fresh_node_is_cold_for_its_warm_up_and_then_has_a_score(scorer: NodeScorer) -> None:
    assert scorer.warmup_ticks == 20
    scores = live(scorer, small_bundle.rows(10, 40))
    assert [score.warm for score in scores] == [False] * 19 + [True] * 21
    cold = numbers(scores[:19])
    assert np.isnan(cold).all()
    assert np.isfinite(numbers(scores[20:])[:, 0]).all()
    assert list(scores[0].model_scores) == ["isolation_forest", "random_forest", "lstm", "autoregression"]


def test_warm_tells_whether_there_is_a_score(scorer: NodeScorer) -> None:
    for tick, row in enumerate(small_bundle.rows(11, 40)):
        score = scorer.step(LIVE + tick * INTERVAL_S, row)
        assert scorer.warm == score.warm
        assert np.isfinite(score.score) == score.warm
        assert scorer.ticks == tick + 1


def test_a_node_the_bundle_knows_is_warm_after_ten_ticks(bundle: Bundle) -> None:
    scorer = NodeScorer(bundle, INTERVAL_S, "beta")
    assert scorer.known
    assert scorer.warmup_ticks == 10
    scores = live(scorer, small_bundle.rows(12, 12))
    assert [score.warm for score in scores] == [False] * 9 + [True] * 3


def test_normal_operation_stays_below_one(scorer: NodeScorer) -> None:
    scores = numbers(live(scorer, small_bundle.rows(13, 400)))[40:, 0]
    held = np.minimum(np.minimum(scores[:-2], scores[1:-1]), scores[2:])
    assert held.max() < 1.0


def test_the_same_history_has_the_same_scores(bundle: Bundle) -> None:
    rows = small_bundle.rows(14, 60)
    once, again = (numbers(live(NodeScorer(bundle, INTERVAL_S), rows)) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_what_comes_in_is_not_changed(scorer: NodeScorer) -> None:
    rows = small_bundle.rows(15, 30)
    rows[25] = NAN
    before = rows.copy()
    live(scorer, rows)
    np.testing.assert_array_equal(rows, before)


def test_short_intervals_warm_up_in_a_minute_and_long_ones_in_twenty_ticks(bundle: Bundle) -> None:
    assert NodeScorer(bundle, 1.0).warmup_ticks == 60
    assert NodeScorer(bundle, 300.0).warmup_ticks == 20


def test_an_interval_beyond_the_longest_silence_still_warms_up(bundle: Bundle) -> None:
    scorer = NodeScorer(bundle, 3_600.0)
    last = [scorer.step(LIVE + tick * 3_601.0, row) for tick, row in enumerate(small_bundle.rows(16, 21))][-1]
    assert last.warm


# ----------------------------------------------------------------------------------------------------- why


@pytest.mark.parametrize("feature", ["cpu_user_ratio", "disk_busy_ratio", "tcp_established_count"])
def test_a_disturbance_scores_above_one_and_is_named(warm: NodeScorer, feature: str) -> None:
    rows = small_bundle.rows(17, 6)
    rows[:, NAMES.index(feature)] *= 4.0
    scores = live(warm, rows, 60)
    last = scores[-1]
    assert last.score > 1.0
    top = np.argsort(-last.contributions)[:3]
    assert feature in [NAMES[index] for index in top]


def test_what_does_not_follow_from_the_past_is_named_by_the_autoregression_alone(
    small: small_bundle.SmallBundle,
) -> None:
    scorer = NodeScorer(small_bundle.only(small, "autoregression").bundle(), INTERVAL_S)
    rows = small_bundle.rows(42, 130)
    rows[126:, DISK] *= 4.0
    scores = live(scorer, rows)
    assert scores[-1].score > max(score.score for score in scores[60:126])
    assert int(np.argmax(scores[-1].contributions)) == DISK
    assert scores[-1].contributions.sum() == pytest.approx(1.0)


def test_a_rise_of_free_memory_is_no_reason_and_a_fall_is(bundle: Bundle) -> None:
    memory, peak = NAMES.index("memory_available_ratio"), []
    for factor in (1.6, 0.2):
        scorer = NodeScorer(bundle, INTERVAL_S)
        live(scorer, small_bundle.rows(10, 60))
        rows = small_bundle.rows(17, 6)
        rows[:, memory] *= factor
        peak.append(max(score.contributions[memory] for score in live(scorer, rows, 60)))
    assert peak[0] < 0.3 < peak[1]


def test_contributions_are_shares(warm: NodeScorer) -> None:
    for score in live(warm, small_bundle.rows(18, 30), 60):
        assert score.contributions.shape == (WIDTH,)
        assert (score.contributions >= 0).all()
        assert score.contributions.sum() == pytest.approx(1.0)


def test_expected_is_in_the_features_own_units(warm: NodeScorer) -> None:
    for score in live(warm, small_bundle.rows(19, 30), 60):
        np.testing.assert_array_less(0.3 * score.observed, score.expected + 1e-9)
        np.testing.assert_array_less(score.expected, 4.0 * score.observed + 1e-9)


def test_the_states_of_features_are_told_apart(scorer: NodeScorer) -> None:
    rows = small_bundle.rows(20, 30)
    rows[:, 0] = NAN
    rows[:, 1] = 0.25
    rows[-1, 2] = NAN
    assert live(scorer, rows)[-1].states == ("missing", "constant", "imputed", *["active"] * (WIDTH - 3))


def test_a_metric_that_was_always_flat_is_loud_when_it_first_moves(scorer: NodeScorer) -> None:
    rows = small_bundle.rows(21, 123)
    rows[:, DISK] = 0.0
    rows[120:, DISK] = 0.8
    last = live(scorer, rows)[-1]
    assert last.score > 1.0
    assert int(np.argmax(last.contributions)) == DISK


# ------------------------------------------------------------------------------------------ missing values


def test_a_tick_without_any_value_has_no_score_and_does_no_harm(bundle: Bundle) -> None:
    rows = small_bundle.rows(22, 80)
    rows[60] = NAN
    scores = live(NodeScorer(bundle, INTERVAL_S), rows)
    assert np.isnan(scores[60].score)
    assert all(np.isnan(value) for value in scores[60].model_scores.values())
    assert np.isnan(scores[60].contributions).all()
    assert np.isfinite([score.score for score in scores[61:]]).all()


def test_a_node_that_shows_nothing_never_has_a_score(scorer: NodeScorer) -> None:
    scores = live(scorer, np.full((50, WIDTH), NAN))
    assert np.isnan([score.score for score in scores]).all()
    assert set(scores[-1].states) == {"missing"}


def test_a_node_without_some_devices_is_scored_by_what_it_has(scorer: NodeScorer) -> None:
    rows = small_bundle.rows(23, 60)
    rows[:, [3, 6]] = NAN
    last = live(scorer, rows)[-1]
    assert np.isfinite(last.score)
    assert last.contributions[[3, 6]].tolist() == [0.0, 0.0]
    assert np.isnan(last.expected[[3, 6]]).all()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 1e300])
def test_what_is_no_measurement_is_missing(bundle: Bundle, value: float) -> None:
    strange, missing = small_bundle.rows(24, 60), small_bundle.rows(24, 60)
    strange[30, 4], missing[30, 4] = value, NAN
    np.testing.assert_array_equal(
        numbers(live(NodeScorer(bundle, INTERVAL_S), strange)),
        numbers(live(NodeScorer(bundle, INTERVAL_S), missing)),
    )


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
def test_holes_anywhere_are_never_an_exception_or_an_invented_zero(
    bundle: Bundle, seed: int, holes: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = small_bundle.rows(seed, 45)
    rows[rng.random(rows.shape) < holes] = NAN
    for row, score in zip(rows, live(NodeScorer(bundle, INTERVAL_S), rows), strict=True):
        np.testing.assert_array_equal(score.observed, row)
        if np.isnan(row).all():
            assert np.isnan(score.score)


# -------------------------------------------------------------------------------------------------- clocks


def test_a_long_silence_restarts_the_windows_and_keeps_what_was_learnt(warm: NodeScorer) -> None:
    later = [
        warm.step(LIVE + 60 * INTERVAL_S + 7_200.0 + tick * INTERVAL_S, row)
        for tick, row in enumerate(small_bundle.rows(25, 12))
    ]
    assert [score.warm for score in later] == [False] * 9 + [True] * 3
    assert np.isfinite(later[-1].score)
    assert warm.ticks == 72
    np.testing.assert_allclose(later[-1].expected, later[-1].observed, rtol=2.0)


def test_a_short_silence_restarts_nothing(warm: NodeScorer) -> None:
    assert warm.step(LIVE + 60 * INTERVAL_S + 3_000.0, small_bundle.rows(26, 1)[0]).warm


def test_a_silence_while_still_cold_only_delays(scorer: NodeScorer) -> None:
    live(scorer, small_bundle.rows(27, 10))
    later = [
        scorer.step(LIVE + 90_000.0 + t * INTERVAL_S, row) for t, row in enumerate(small_bundle.rows(27, 12))
    ]
    assert np.isfinite(later[-1].score)


def test_a_clock_that_jumps_back_is_harmless(bundle: Bundle) -> None:
    rows = small_bundle.rows(28, 60)
    times = LIVE + INTERVAL_S * np.arange(60)
    jumped = times.copy()
    jumped[45:] -= 86_400.0
    straight, back = NodeScorer(bundle, INTERVAL_S), NodeScorer(bundle, INTERVAL_S)
    expected = [straight.step(t, row).score for t, row in zip(times, rows, strict=True)]
    got = [back.step(t, row).score for t, row in zip(jumped, rows, strict=True)]
    np.testing.assert_array_equal(got, expected)


# -------------------------------------------------------------------------------------------------- bounds


def test_the_memory_of_a_scorer_stops_growing(small: small_bundle.SmallBundle) -> None:
    scorer = NodeScorer(small_bundle.only(small, "isolation_forest").bundle(), 60.0)
    rows, sizes = small_bundle.rows(40, 500), []
    for turn in range(6):
        for tick, row in enumerate(rows):
            scorer.step(LIVE + (turn * 500 + tick) * 60.0, row)
        sizes.append(sum(array.nbytes for array in scorer.state().values()))
    assert max(sizes[2:]) <= 400 * 1024
    capacity = 512 * WIDTH * 4
    assert max(sizes[2:]) - min(sizes[2:]) <= capacity
    assert len(scorer._memory._thinned.rows) == 512
    assert len(scorer.state()["rows"]) == 240


# ------------------------------------------------------------------------------------------------ one path


def test_the_trainers_replay_and_the_agents_steps_are_one_path(small: small_bundle.SmallBundle) -> None:
    """What the gate judged over a fleet at once is what each node computes for itself, tick by tick."""
    bundle, ticks = small.bundle(), 200
    values = np.array(small.history.values[:ticks])
    values[50:60, 1, 3] = NAN
    values[150:155, :, DISK] *= 4.0
    history = replace(
        small.history,
        values=values,
        timestamps=small.history.timestamps[:ticks],
        labels=small.history.labels[:ticks],
    )
    models = Models(bundle)
    replayed = replay_residuals(history, models.cohort, lambda *_: None)
    shape = (ticks * 3, replayed.summary.shape[-1])
    raw = models.forest_scores(
        replayed.summary.reshape(shape).astype(float), replayed.normalised.reshape(shape).astype(float)
    )
    path = models.forecast_path(3, INTERVAL_S)
    assert path is not None
    raw["lstm"] = replay_forecasts(path, replayed.compressed, lambda *_: None).ravel()
    raw["autoregression"] = replayed.unpredicted.astype(float).ravel()
    for name in models.forests:  # a node's last minute begins with its first score
        steady = half_smoothed(raw[name].reshape(ticks, 3)[9:], INTERVAL_S)
        raw[name].reshape(ticks, 3)[9:] = steady
    judged = judge(bundle.manifest, {name: scores.reshape(ticks, 3)[9:] for name, scores in raw.items()})
    held, tail = judged.held, bundle.manifest.tail
    for index, node in enumerate(small.history.nodes):
        scorer = NodeScorer(bundle, INTERVAL_S, node)
        scores = [
            scorer.step(float(t), row) for t, row in zip(history.timestamps, values[:, index], strict=True)
        ]
        of_node = np.array([score.score for score in scores])
        assert np.isfinite(of_node[9:]).all()
        fleet = rolling_scores(tail, held[:, index], bundle.manifest.budget_per_week, INTERVAL_S)
        np.testing.assert_allclose(of_node[9:], fleet, atol=1e-4)
        for name, member in judged.members.items():
            own = np.array([score.model_scores[name] for score in scores])
            np.testing.assert_allclose(own[9:], member[:, index], atol=1e-4)


def test_calibration_on_fresh_nodes_measures_what_a_scorer_steps(small: small_bundle.SmallBundle) -> None:
    piece = stretches(small.history, 60, 1, seed=0)[0]
    raw = replay_fresh(small.bundle(), small.history, [piece], lambda *_: None)[0]
    scorer = NodeScorer(small.bundle(), INTERVAL_S)
    scores = [
        scorer.step(float(small.history.timestamps[tick]), small.history.values[tick, piece.node])
        for tick in range(piece.start, piece.stop)
    ]
    held = judge(small.manifest, raw).held
    expected = rolling_scores(small.manifest.tail, held, small.manifest.budget_per_week, INTERVAL_S)
    np.testing.assert_allclose([score.score for score in scores], expected, atol=1e-9)


def test_a_bundle_read_from_disk_scores_as_the_one_in_memory(
    bundle: Bundle, small: small_bundle.SmallBundle, written: Path
) -> None:
    assert bundle.path == written
    rows = small_bundle.rows(41, 40)
    np.testing.assert_array_equal(
        numbers(live(NodeScorer(bundle, INTERVAL_S), rows)),
        numbers(live(NodeScorer(small.bundle(), INTERVAL_S), rows)),
    )
