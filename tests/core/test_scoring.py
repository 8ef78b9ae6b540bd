"""One node under one bundle: cold, warm, restarted, reloaded, after silence, and with holes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle import Bundle
from node_anomaly_core.members import Models, judge
from node_anomaly_core.scoring import NodeScorer, Score
from node_anomaly_trainer.replay import replay_forecasts, replay_fresh, replay_residuals, stretches

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = small_bundle.INTERVAL_S
START = 1_800_000_000.0
WIDTH = len(small_bundle.FEATURES)
NAMES = [feature.name for feature in small_bundle.FEATURES]
DISK = NAMES.index("disk_busy_ratio")


def live(scorer: NodeScorer, rows: Iterable[Array], first: int = 0) -> list[Score]:
    return [scorer.step(START + (first + tick) * INTERVAL_S, row) for tick, row in enumerate(rows)]


def numbers(scores: Iterable[Score]) -> Array:
    """Everything a score says, as (n, k)."""
    return np.array([[s.score, *s.model_scores.values(), *s.contributions, *s.expected] for s in scores])


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
    assert list(scores[0].model_scores) == ["isolation_forest", "random_forest", "lstm"]


def test_warm_tells_whether_there_is_a_score(scorer: NodeScorer) -> None:
    for tick, row in enumerate(small_bundle.rows(11, 40)):
        score = scorer.step(START + tick * INTERVAL_S, row)
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
    last = [scorer.step(START + tick * 3_601.0, row) for tick, row in enumerate(small_bundle.rows(16, 21))][
        -1
    ]
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
        warm.step(START + 60 * INTERVAL_S + 7_200.0 + tick * INTERVAL_S, row)
        for tick, row in enumerate(small_bundle.rows(25, 12))
    ]
    assert [score.warm for score in later] == [False] * 9 + [True] * 3
    assert np.isfinite(later[-1].score)
    assert warm.ticks == 72
    np.testing.assert_allclose(later[-1].expected, later[-1].observed, rtol=2.0)


def test_a_short_silence_restarts_nothing(warm: NodeScorer) -> None:
    assert warm.step(START + 60 * INTERVAL_S + 3_000.0, small_bundle.rows(26, 1)[0]).warm


def test_a_silence_while_still_cold_only_delays(scorer: NodeScorer) -> None:
    live(scorer, small_bundle.rows(27, 10))
    later = [
        scorer.step(START + 90_000.0 + t * INTERVAL_S, row) for t, row in enumerate(small_bundle.rows(27, 12))
    ]
    assert np.isfinite(later[-1].score)


def test_a_clock_that_jumps_back_is_harmless(bundle: Bundle) -> None:
    rows = small_bundle.rows(28, 60)
    times = START + INTERVAL_S * np.arange(60)
    jumped = times.copy()
    jumped[45:] -= 86_400.0
    straight, back = NodeScorer(bundle, INTERVAL_S), NodeScorer(bundle, INTERVAL_S)
    expected = [straight.step(t, row).score for t, row in zip(times, rows, strict=True)]
    got = [back.step(t, row).score for t, row in zip(jumped, rows, strict=True)]
    np.testing.assert_array_equal(got, expected)


# ------------------------------------------------------------------------------------------------- restart


def test_a_restarted_scorer_goes_on_as_if_nothing_had_happened(bundle: Bundle) -> None:
    rows = small_bundle.rows(29, 400)
    rows[100, 3] = NAN
    uninterrupted, restarted = NodeScorer(bundle, INTERVAL_S), NodeScorer(bundle, INTERVAL_S)
    live(uninterrupted, rows[:250])
    assert restarted.restore(uninterrupted.state())
    assert restarted.warm
    assert restarted.ticks == 250
    before, after = (numbers(live(scorer, rows[250:], 250)) for scorer in (uninterrupted, restarted))
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=0.02)
    np.testing.assert_allclose(after[:, 4:12], before[:, 4:12], atol=0.05)
    np.testing.assert_allclose(after[:, 12:], before[:, 12:], rtol=1e-2)


def test_a_cold_scorer_and_a_known_one_survive_a_restart_too(bundle: Bundle) -> None:
    for node, ticks in (("", 0), ("", 7), ("alpha", 0), ("alpha", 5), ("alpha", 30)):
        scorer, restarted = NodeScorer(bundle, INTERVAL_S, node), NodeScorer(bundle, INTERVAL_S, node)
        rows = small_bundle.rows(30, ticks + 25)
        live(scorer, rows[:ticks])
        assert restarted.restore(scorer.state())
        before, after = (numbers(live(part, rows[ticks:], ticks)) for part in (scorer, restarted))
        np.testing.assert_allclose(after[:, 0], before[:, 0], atol=0.02)


def test_states_are_plain_arrays_and_copies(warm: NodeScorer) -> None:
    state = warm.state()
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "fi" for array in state.values())
    before = {name: array.copy() for name, array in state.items()}
    live(warm, small_bundle.rows(31, 10), 60)
    for name, array in state.items():
        np.testing.assert_array_equal(array, before[name])


def refuses(scorer: NodeScorer, state: dict[str, Any]) -> None:
    """The scorer says no and is exactly what it was."""
    before = {name: array.copy() for name, array in scorer.state().items()}
    assert not scorer.restore(state)
    after = scorer.state()
    assert set(after) == set(before)
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name])


def changed(array: NDArray[Any], how: str) -> Any:
    return {
        "longer": lambda: np.concatenate([np.atleast_1d(array)] * 2),
        "flatter": lambda: np.ravel(array)[:-1],
        "deeper": lambda: array[None],
        "text": lambda: np.full(array.shape, "x"),
        "objects": lambda: np.full(array.shape, None),
        "imaginary": lambda: array + 1j,
        "nothing": lambda: np.empty(0),
        "a number": lambda: np.array(1.0),
        "a list": lambda: [1.0, [2.0]],
        "infinite": lambda: np.full(array.shape, np.inf),
    }[how]()


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_state_that_is_not_whole_is_refused_and_the_scorer_untouched(
    bundle: Bundle, saved: dict[str, NDArray[Any]], data: st.DataObject
) -> None:
    scorer = NodeScorer(bundle, INTERVAL_S)
    live(scorer, small_bundle.rows(32, 3))
    state: dict[str, Any] = dict(saved)
    name = data.draw(st.sampled_from(sorted(state)))
    how = data.draw(
        st.sampled_from(
            (
                "drop",
                "longer",
                "flatter",
                "deeper",
                "text",
                "objects",
                "imaginary",
                "nothing",
                "a number",
                "a list",
            )
        )
    )
    assume((name, how) != ("thinned", "longer"))  # more rows of the past are a state as well
    if how == "drop":
        del state[name]
    else:
        state[name] = changed(state[name], how)
    refuses(scorer, state)


@pytest.fixture(scope="module")
def saved(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The state of a warm scorer."""
    scorer = NodeScorer(bundle, INTERVAL_S)
    live(scorer, small_bundle.rows(33, 40))
    return scorer.state()


@pytest.mark.parametrize("name", ["times", "rows", "centre", "scale", "level_seen", "summary_mean", "counts"])
def test_a_state_of_impossible_numbers_is_refused(
    scorer: NodeScorer, saved: dict[str, NDArray[Any]], name: str
) -> None:
    refuses(scorer, {**saved, name: changed(saved[name].astype(float), "infinite")})


@pytest.mark.parametrize("name", ["scale", "residual_scale", "level_deviation", "summary_scale"])
def test_a_scale_of_zero_or_unknown_is_refused(
    scorer: NodeScorer, saved: dict[str, NDArray[Any]], name: str
) -> None:
    for value in (0.0, -1.0, NAN):
        refuses(scorer, {**saved, name: np.full(saved[name].shape, value)})


def test_counts_below_zero_and_a_range_of_nothing_are_refused(
    scorer: NodeScorer, saved: dict[str, NDArray[Any]]
) -> None:
    refuses(scorer, {**saved, "counts": -saved["counts"]})
    refuses(scorer, {**saved, "range": np.full((2, WIDTH), NAN)})
    refuses(scorer, {**saved, "thinned": np.zeros((513, WIDTH))})
    refuses(scorer, {**saved, "more": np.zeros(1)})
    refuses(scorer, {})


def test_the_state_of_another_bundle_is_refused(
    scorer: NodeScorer, small: small_bundle.SmallBundle, saved: dict[str, NDArray[Any]]
) -> None:
    narrower = {
        name: array[..., :-1] if array.shape[-1:] == (WIDTH,) else array for name, array in saved.items()
    }
    refuses(scorer, narrower)


# ---------------------------------------------------------------------------------------------- hot reload


def test_a_new_bundles_scorer_is_warm_at_once(bundle: Bundle, warm: NodeScorer) -> None:
    fresh = NodeScorer(bundle, INTERVAL_S)
    fresh.replay(warm)
    assert fresh.warm
    assert fresh.ticks == warm.ticks
    row = small_bundle.rows(34, 1)
    before, after = live(warm, row, 60)[0], live(fresh, row, 60)[0]
    assert after.warm
    assert after.score == pytest.approx(before.score, abs=0.3)
    assert after.states == before.states


def test_a_reload_of_the_same_bundle_changes_hardly_anything(bundle: Bundle) -> None:
    """At a moment at which the scorer before has just learnt, its successor has learnt the same."""
    rows = small_bundle.rows(35, 100)
    before, after = NodeScorer(bundle, INTERVAL_S), NodeScorer(bundle, INTERVAL_S)
    live(before, rows[:80])
    after.replay(before)
    np.testing.assert_allclose(
        numbers(live(after, rows[80:], 80))[:, 0], numbers(live(before, rows[80:], 80))[:, 0], atol=0.02
    )


def test_a_reload_while_cold_stays_cold_and_loses_no_tick(bundle: Bundle, scorer: NodeScorer) -> None:
    rows = small_bundle.rows(36, 30)
    live(scorer, rows[:8])
    fresh = NodeScorer(bundle, INTERVAL_S)
    fresh.replay(scorer)
    assert not fresh.warm
    assert [score.warm for score in live(fresh, rows[8:], 8)] == [False] * 11 + [True] * 11


def test_a_reload_makes_a_known_node_warm_with_its_own_baseline(bundle: Bundle, warm: NodeScorer) -> None:
    known = NodeScorer(bundle, INTERVAL_S, "gamma")
    known.replay(warm)
    assert known.warm
    assert np.isfinite(live(known, small_bundle.rows(37, 1), 60)[0].score)


def test_a_reload_before_the_first_tick_is_nothing_special(bundle: Bundle, scorer: NodeScorer) -> None:
    for node in ("", "alpha"):
        fresh = NodeScorer(bundle, INTERVAL_S, node)
        fresh.replay(scorer)
        assert not fresh.warm
        assert fresh.ticks == 0


def permuted(made: small_bundle.SmallBundle, order: list[int]) -> Bundle:
    """The same forests over the features in another order: forests do not know which feature is which."""
    forests = small_bundle.only(made, "isolation_forest", "random_forest")
    cohort = forests.cohort
    moved = replace(
        cohort,
        prior=replace(
            cohort.prior,
            spread=cohort.prior.spread[order],
            relative=cohort.prior.relative[order],
            residual_scale=cohort.prior.residual_scale[:, order],
        ),
        forecast_scale=cohort.forecast_scale[order],
        components=cohort.components[:, order],
        node_centre=cohort.node_centre[:, order],
        node_scale=cohort.node_scale[:, order],
        node_residual=cohort.node_residual[:, :, order],
    )
    return small_bundle.with_cohort(
        replace(
            forests,
            manifest=replace(forests.manifest, features=tuple(forests.manifest.features[i] for i in order)),
        ),
        moved,
    ).bundle()


def test_features_are_matched_by_name_when_a_bundle_is_replaced(small: small_bundle.SmallBundle) -> None:
    order = [3, 1, 4, 0, 5, 2, 7, 6]
    rows = small_bundle.rows(38, 90)
    before = NodeScorer(small_bundle.only(small, "isolation_forest", "random_forest").bundle(), INTERVAL_S)
    live(before, rows[:80])
    after = NodeScorer(permuted(small, order), INTERVAL_S)
    after.replay(before)
    np.testing.assert_allclose(
        [score.score for score in live(after, rows[80:, order], 80)],
        [score.score for score in live(before, rows[80:], 80)],
        atol=0.02,
    )


def test_a_feature_the_old_bundle_did_not_have_is_missing_in_the_past(
    small: small_bundle.SmallBundle, warm: NodeScorer
) -> None:
    features = list(small.manifest.features)
    features[2] = replace(features[2], name="brand_new_ratio")
    renamed = replace(small, manifest=replace(small.manifest, features=tuple(features)))
    fresh = NodeScorer(renamed.bundle(), INTERVAL_S)
    fresh.replay(warm)
    score = live(fresh, small_bundle.rows(39, 1), 60)[0]
    assert np.isfinite(score.score)
    assert np.isnan(score.expected[2])
    assert score.states[2] == "constant"


# -------------------------------------------------------------------------------------------------- bounds


def test_the_memory_of_a_scorer_stops_growing(small: small_bundle.SmallBundle) -> None:
    scorer = NodeScorer(small_bundle.only(small, "isolation_forest").bundle(), 60.0)
    rows, sizes = small_bundle.rows(40, 500), []
    for turn in range(6):
        for tick, row in enumerate(rows):
            scorer.step(START + (turn * 500 + tick) * 60.0, row)
        sizes.append(sum(array.nbytes for array in scorer.state().values()))
    assert max(sizes[2:]) <= 400 * 1024
    capacity = 512 * WIDTH * 4
    assert max(sizes[2:]) - min(sizes[2:]) <= capacity
    assert len(scorer._thinned.rows) == 512
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
    combined, members, _ = judge(bundle.manifest, raw)
    for index, node in enumerate(small.history.nodes):
        scorer = NodeScorer(bundle, INTERVAL_S, node)
        scores = [
            scorer.step(float(t), row) for t, row in zip(history.timestamps, values[:, index], strict=True)
        ]
        of_node = np.array([score.score for score in scores])
        assert np.isfinite(of_node[9:]).all()
        np.testing.assert_allclose(of_node[9:], combined.reshape(ticks, 3)[9:, index], atol=1e-4)
        for name, member in members.items():
            own = np.array([score.model_scores[name] for score in scores])
            np.testing.assert_allclose(own[9:], member.reshape(ticks, 3)[9:, index], atol=1e-4)


def test_calibration_on_fresh_nodes_measures_what_a_scorer_steps(small: small_bundle.SmallBundle) -> None:
    piece = stretches(small.history, 60, 1, seed=0)[0]
    raw = replay_fresh(small.bundle(), small.history, [piece], lambda *_: None)[0]
    scorer = NodeScorer(small.bundle(), INTERVAL_S)
    scores = [
        scorer.step(float(small.history.timestamps[tick]), small.history.values[tick, piece.node])
        for tick in range(piece.start, piece.stop)
    ]
    combined, _, _ = judge(small.manifest, raw)
    np.testing.assert_allclose([score.score for score in scores], combined, atol=1e-9)


def test_a_bundle_read_from_disk_scores_as_the_one_in_memory(
    bundle: Bundle, small: small_bundle.SmallBundle, written: Path
) -> None:
    assert bundle.path == written
    rows = small_bundle.rows(41, 40)
    np.testing.assert_array_equal(
        numbers(live(NodeScorer(bundle, INTERVAL_S), rows)),
        numbers(live(NodeScorer(small.bundle(), INTERVAL_S), rows)),
    )
