"""A scorer goes on after a restart and under a new bundle, and takes over nothing that is not whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle import Bundle
from node_anomaly_core.relations import Relations
from node_anomaly_core.scoring import NodeScorer
from small_bundle import INTERVAL_S, live, numbers

NAN = float("nan")
WIDTH = len(small_bundle.FEATURES)
MEMBERS = 4
MOVABLE = ("isolation_forest", "random_forest", "autoregression")


@pytest.fixture
def scorer(bundle: Bundle) -> NodeScorer:
    """For a node that the bundle does not know."""
    return NodeScorer(bundle, INTERVAL_S)


@pytest.fixture
def warm(scorer: NodeScorer) -> NodeScorer:
    """Sixty ordinary ticks later."""
    live(scorer, small_bundle.rows(10, 60))
    return scorer


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
    shares, expected = slice(1 + MEMBERS, 1 + MEMBERS + WIDTH), slice(1 + MEMBERS + WIDTH, None)
    np.testing.assert_allclose(after[:, shares], before[:, shares], atol=0.05)
    np.testing.assert_allclose(after[:, expected], before[:, expected], rtol=1e-2)


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
    assume(name != "threshold_blocks" or how not in ("longer", "flatter", "nothing"))  # so is any past of it
    # and fewer ticks of evidence; some are missing in what older agents saved
    assume("evidence" not in name or how not in ("flatter", "nothing"))
    assume(how != "drop" or name not in ("late", "whole_evidence", "threshold_open", "threshold_outgrown"))
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


@pytest.mark.parametrize(
    "name",
    [
        "times",
        "rows",
        "centre",
        "scale",
        "residual_centre",
        "level_seen",
        "summary_mean",
        "counts",
        "late",
        "threshold_blocks",
        "threshold_level",
        "threshold_open",
        "threshold_outgrown",
    ],
)
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
    refuses(scorer, {**saved, "late": -np.ones((2, WIDTH))})
    refuses(scorer, {**saved, "range": np.full((2, WIDTH), NAN)})
    refuses(scorer, {**saved, "thinned": np.zeros((513, WIDTH))})
    refuses(scorer, {**saved, "threshold_blocks": np.array([1.0, NAN])})
    refuses(scorer, {**saved, "threshold_blocks": np.array([1.0, np.inf])})
    refuses(scorer, {**saved, "threshold_level": np.zeros(4)})
    refuses(scorer, {**saved, "threshold_open": np.full(5, 10.0)})
    refuses(scorer, {**saved, "residual_centre": np.full((16, WIDTH), NAN)})
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
    """All but the LSTM over the features in another order: nothing else knows which feature is which."""
    forests = small_bundle.only(made, *MOVABLE)
    cohort = forests.cohort
    blocks = (
        len(cohort.relations.autoregression) // WIDTH
    )  # of one number per feature; the last is a constant
    past = [block * WIDTH + feature for block in range(blocks) for feature in order] + [blocks * WIDTH]
    moved = replace(
        cohort,
        prior=replace(
            cohort.prior,
            spread=cohort.prior.spread[order],
            relative=cohort.prior.relative[order],
            residual_centre=cohort.prior.residual_centre[:, order],
            residual_scale=cohort.prior.residual_scale[:, order],
        ),
        forecast_scale=cohort.forecast_scale[order],
        relations=Relations(
            cohort.relations.components[:, order],
            cohort.relations.partial[np.ix_(order, order)],
            cohort.relations.autoregression[past][:, order],
        ),
        node_centre=cohort.node_centre[:, order],
        node_scale=cohort.node_scale[:, order],
        node_residual_centre=cohort.node_residual_centre[:, :, order],
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
    before = NodeScorer(small_bundle.only(small, *MOVABLE).bundle(), INTERVAL_S)
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
