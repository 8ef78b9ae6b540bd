"""Errors in logs, heard by themselves: what lasts counts, a burst does not, and nothing is deafening."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.log_errors import COMPLAINTS, MOST, SustainedErrors, complaint_columns
from node_anomaly_core.residuals import BLOCKS

Array = NDArray[np.float64]

NAN = float("nan")
COLUMNS = (1, 2, 4)
FEATURES = 6
INTERVAL_S = 15.0


def told(*heard: float, nodes: int = 1) -> Array:
    """Residuals of a tick in which the complaints are as given, and everything else is far off."""
    scaled = np.full((nodes, len(BLOCKS), FEATURES), 50.0)
    scaled[:, BLOCKS.index("level_day"), list(COLUMNS)] = heard
    return scaled


def scores(*ticks: tuple[float, ...], interval_s: float = INTERVAL_S) -> list[float]:
    part = SustainedErrors(1, COLUMNS, FEATURES, interval_s)
    return [float(part.step(told(*heard))[0][0]) for heard in ticks]


QUIET, LOUD = (0.0, 0.0, 0.0), (8.0, 6.0, 0.0)


def test_what_it_hears_are_features_that_the_catalogue_has() -> None:
    columns = complaint_columns(CATALOGUE)
    assert {CATALOGUE[at].name for at in columns} == set(COMPLAINTS)
    assert {CATALOGUE[at].direction for at in columns} == {"high"}


def test_errors_that_last_are_heard_at_the_third_tick_by_the_two_loudest() -> None:
    assert scores(*[QUIET] * 6, *[LOUD] * 4) == [*[0.0] * 8, 7.0, 7.0]


def test_a_burst_of_two_ticks_is_not_an_incident() -> None:
    assert max(scores(*[QUIET] * 6, LOUD, LOUD, *[QUIET] * 6)) == 0.0


def test_one_tick_without_errors_does_not_end_an_incident() -> None:
    assert scores(*[LOUD] * 5, QUIET, LOUD)[-2:] == [7.0, 7.0]


def test_where_ticks_are_seconds_it_is_most_of_a_minute_that_must_be_loud() -> None:
    heard = scores(*[LOUD] * 30, *[QUIET] * 5, interval_s=1.0)
    assert heard[29] == 0.0
    assert scores(*[LOUD] * 31, interval_s=1.0)[-1] == 7.0


def test_unknown_complaints_weigh_nothing_and_all_unknown_is_unknown() -> None:
    assert scores(*[(8.0, NAN, NAN)] * 3)[-1] == 8.0
    assert np.isnan(scores(*[LOUD] * 5, (NAN, NAN, NAN))[-1])


def test_the_rest_of_the_node_has_no_say() -> None:
    assert scores(*[QUIET] * 9) == [0.0] * 9


def test_shares_name_the_complaints_of_the_last_minute() -> None:
    part = SustainedErrors(1, COLUMNS, FEATURES, INTERVAL_S)
    for _ in range(3):
        part.step(told(*QUIET))
    _, share = part.step(told(6.0, 3.0, 0.0))
    assert share[0].tolist() == [0.0, 6 / 9, 3 / 9, 0.0, 0.0, 0.0]
    assert part.step(told(*QUIET))[1].sum() == 1.0


def test_nobody_complains_and_nobody_is_to_blame() -> None:
    part = SustainedErrors(1, COLUMNS, FEATURES, INTERVAL_S)
    assert part.step(told(*QUIET))[1].tolist() == [[0.0] * FEATURES]


def test_without_log_features_it_knows_nothing() -> None:
    part = SustainedErrors(2, (), FEATURES, INTERVAL_S)
    score, share = part.step(told(*LOUD, nodes=2))
    assert np.isnan(score).all()
    assert share.tolist() == [[0.0] * FEATURES] * 2


def lives() -> st.SearchStrategy[Array]:
    heard = st.floats(0.0, 1e6) | st.just(NAN) | st.just(float("inf"))
    return hnp.arrays(
        np.float64, st.tuples(st.integers(1, 20), st.integers(1, 3), st.just(3)), elements=heard
    )


@given(lives())
def test_a_batch_is_as_many_single_nodes_and_no_score_leaves_its_range(life: Array) -> None:
    nodes = life.shape[1]
    together = SustainedErrors(nodes, COLUMNS, FEATURES, INTERVAL_S)
    alone = [SustainedErrors(1, COLUMNS, FEATURES, INTERVAL_S) for _ in range(nodes)]
    for heard in life:
        scaled = np.zeros((nodes, len(BLOCKS), FEATURES))
        scaled[:, BLOCKS.index("level_day"), list(COLUMNS)] = heard
        score, share = together.step(scaled)
        each = [one.step(scaled[at : at + 1]) for at, one in enumerate(alone)]
        np.testing.assert_array_equal(score, np.concatenate([own for own, _ in each]))
        np.testing.assert_array_equal(share, np.concatenate([own for _, own in each]))
        known = np.isfinite(score)
        assert ((score[known] >= 0) & (score[known] <= MOST)).all()
        np.testing.assert_array_equal(known, ~np.isnan(heard).all(axis=1))


@given(lives())
def test_what_is_relived_leaves_the_same_past(life: Array) -> None:
    lived, relived = (SustainedErrors(life.shape[1], COLUMNS, FEATURES, INTERVAL_S) for _ in range(2))
    for heard in life:
        scaled = np.zeros((life.shape[1], len(BLOCKS), FEATURES))
        scaled[:, BLOCKS.index("level_day"), list(COLUMNS)] = heard
        lived.step(scaled)
        relived.push(scaled)
    last = np.zeros((life.shape[1], len(BLOCKS), FEATURES))
    np.testing.assert_array_equal(lived.step(last)[0], relived.step(last)[0])
