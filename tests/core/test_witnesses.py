"""What of the combined evidence counts for an alarm: as much as the witnesses bear out, and no less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from node_anomaly_core.log_errors import LOG_ERRORS
from node_anomaly_core.witnesses import Witness, in_words, witnessed, witnessed_one

Array = NDArray[np.float64]

NAN = float("nan")
FORECASTER, FORESTS = Witness(("lstm",), 0.9), Witness(("one", "other"), 0.7)
GROUPS = (FORECASTER, FORESTS)
NAMES = ("lstm", "one", "other", LOG_ERRORS, "kmeans")

said = st.floats(-20, 200) | st.just(NAN)
ticks = st.lists(st.tuples(said, *(said for _ in NAMES)), min_size=1, max_size=20)


def counted(whole: float, *, groups: tuple[Witness, ...] = GROUPS, **evidence: float) -> float:
    return float(witnessed(np.array([whole]), {n: np.array([e]) for n, e in evidence.items()}, groups)[0])


def test_an_alarm_that_its_witnesses_bear_out_counts_in_full() -> None:
    assert counted(3.0, lstm=2.8, one=0.0, other=5.0) == 3.0


def test_what_the_forecaster_does_not_see_counts_for_what_it_does() -> None:
    assert counted(3.0, lstm=0.9, one=9.0, other=9.0) == pytest.approx(1.0)
    assert counted(3.0, lstm=-1.0, one=9.0, other=9.0) < 0.0


def test_one_of_a_group_is_enough_and_the_least_sure_group_decides() -> None:
    assert counted(3.0, lstm=9.0, one=0.0, other=2.2) == 3.0
    assert counted(3.0, lstm=1.8, one=0.0, other=0.7) == pytest.approx(1.0)


def test_a_witness_who_does_not_know_stops_no_alarm() -> None:
    assert counted(3.0, lstm=NAN, one=9.0, other=9.0) == 3.0
    assert counted(3.0, lstm=9.0, one=NAN, other=0.0) == 3.0


def test_errors_in_logs_need_no_other_witness() -> None:
    assert counted(3.0, lstm=0.0, one=0.0, other=0.0, log_errors=12.0) == 3.0
    assert counted(3.0, lstm=0.9, one=9.0, other=9.0, log_errors=NAN) == pytest.approx(1.0)


def test_logs_do_not_stand_in_for_a_forecaster_that_is_left_out() -> None:
    assert counted(3.0, lstm=NAN, one=9.0, other=9.0, log_errors=0.0) == 3.0


def test_without_witnesses_all_of_it_counts() -> None:
    assert counted(3.0, groups=(), lstm=0.0) == 3.0


def test_people_are_told_whose_word_an_alarm_takes_and_how_much_of_it() -> None:
    assert in_words(()) == ""
    assert in_words(GROUPS) == "lstm (90 %) and one of one, other (70 %)"


@given(ticks)
def test_never_more_counts_than_there_is_and_what_is_unknown_stays_so(
    drawn: list[tuple[float, ...]],
) -> None:
    whole, *own = np.array(drawn).T
    counts = witnessed(whole, dict(zip(NAMES, own, strict=True)), GROUPS)
    np.testing.assert_array_equal(np.isnan(counts), np.isnan(whole))
    known = ~np.isnan(whole)
    assert (counts[known] <= whole[known]).all()


@given(ticks)
def test_a_tick_alone_is_witnessed_as_in_a_batch(drawn: list[tuple[float, ...]]) -> None:
    whole, *own = np.array(drawn).T
    batch = witnessed(whole, dict(zip(NAMES, own, strict=True)), GROUPS)
    alone = [witnessed_one(one, dict(zip(NAMES, row, strict=True)), GROUPS) for one, *row in drawn]
    np.testing.assert_array_equal(batch, np.array(alone))
