"""What catches a fault, what is part of an alarm, and who wins a duel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from node_anomaly_trainer.evaluate import Duel, caught, duel, false_alarm_rate, known_weeks, raised, standing
from node_anomaly_trainer.faults import Fault

FAULT = Fault("a", 50, 60, "spike", ("cpu_user_ratio",), 5.0)


def raised_at(tick: int, ticks: int = 100) -> np.ndarray:
    """Scores (t,) with one alarm, which is raised at its third tick."""
    score = np.zeros(ticks)
    score[tick - 2 : tick + 1] = 1.0
    return score


@pytest.mark.parametrize(
    ("tick", "hit"), [(39, False), (40, True), (50, True), (59, True), (60, False)], ids=str
)
def test_a_fault_is_caught_by_an_alarm_raised_in_it_or_up_to_ten_ticks_before(tick, hit):
    scores = {"a": raised_at(tick), "b": np.zeros(100)}
    assert caught(scores, [FAULT]) == [hit]
    assert caught({"a": scores["b"], "b": scores["a"]}, [FAULT]) == [False], "an alarm of another node"
    later = {name: score[30:] for name, score in scores.items()}
    assert caught(later, [FAULT], first=30) == [hit]


def test_alarms_ten_ticks_apart_are_raised_once_and_eleven_apart_twice():
    def alarms(second: int) -> list[int]:
        score = np.zeros(40)
        score[0:3] = score[second : second + 3] = 1.0
        return raised(score).tolist()

    assert alarms(12) == [2]
    assert alarms(13) == [2, 15]


def test_all_ticks_of_an_alarm_are_part_of_it_and_two_high_ones_are_none():
    score = np.zeros(30)
    score[5:7] = score[10:13] = score[20:25] = 1.0
    score[22] = np.nan
    np.testing.assert_array_equal(np.flatnonzero(standing(score)), [10, 11, 12])


def test_a_duel_is_decided_by_what_only_one_of_both_found():
    assert duel([True, True, False, True, False], [True, False, True, False, False]) == Duel(2, 1, 5)


def test_only_time_in_which_something_was_known_counts_for_a_rate():
    score = raised_at(20)
    score[50:] = np.nan
    weeks = known_weeks([score], 60.0)
    assert weeks == pytest.approx(50 / 10_080)
    assert false_alarm_rate([score], 60.0) == pytest.approx(1 / weeks)
    assert math.isnan(false_alarm_rate([np.full(9, np.nan)], 60.0))
