"""What a node's window holds of each block of ticks, and the level that is set from it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS, MERGE_TICKS, Tail
from node_anomaly_core.threshold import (
    LONG_WINDOW_S,
    OPEN_S,
    UPDATE_S,
    WINDOW_S,
    RollingThreshold,
    rolling_scores,
    tight,
)

Array = NDArray[np.float64]

INTERVAL_S = 60.0
BLOCK_S = MERGE_TICKS * INTERVAL_S
WINDOW, LONG_WINDOW, OPEN = (round(seconds / BLOCK_S) for seconds in (WINDOW_S, LONG_WINDOW_S, OPEN_S))
TO_UPDATE = round(UPDATE_S / BLOCK_S)
A_DAY, A_WEEK, MANY = 7.0, 1.0, 3.5 * 30.4
INF = float("inf")
CLOSED = np.array([INF, -INF, 0.0, 0.0, 0.0, 0.0])


def promise(level: float) -> Tail:
    """An alarm at this level, and ten times as many at three quarters of it."""
    return Tail((min(0.0, level - 1.0), level), (0.0, -4.0), -4.0)


def lived(
    blocks: Array,
    level: float,
    budget: float = A_DAY,
    *,
    since: int = 0,
    going_on: int = 0,
    outgrown: Array = CLOSED,
) -> RollingThreshold:
    """A threshold that was promised 2.0, with this window behind it."""
    part = RollingThreshold(promise(2.0), budget, INTERVAL_S)
    told = np.array([level, since, going_on, 0.0])
    part.restore({"blocks": blocks, "level": told, "outgrown": outgrown})
    return part


def block(part: RollingThreshold, evidence: float, blocks: int = 1) -> None:
    for _ in range(blocks * MERGE_TICKS):
        part.step(evidence)


def test_one_alarm_in_two_days_is_not_a_tight_budget_and_less_is() -> None:
    assert not tight(3.5)
    assert tight(3.49)


@pytest.mark.parametrize(
    ("budget", "window", "above"), [(A_DAY, WINDOW, 1.6), (A_WEEK, LONG_WINDOW, 0.3), (MANY, WINDOW, 30.0)]
)
def test_the_level_is_the_one_that_a_little_fewer_episodes_than_allowed_lie_above(
    budget: float, window: int, above: float
) -> None:
    """Every other block is an episode, each of another height."""
    blocks = np.zeros(window)
    blocks[::2] = 0.1 + np.random.default_rng(0).permutation(window // 2) / (window // 2)
    part = lived(blocks, 5.0, budget, since=TO_UPDATE - 1)
    block(part, 0.0)
    highest = -np.sort(-blocks[1:])
    assert part.level == pytest.approx(np.interp(above, range(len(highest)), highest))


def test_two_episodes_that_only_a_low_start_takes_for_one_are_two() -> None:
    """As many are found from lower starts, which find a small one instead of the second."""
    blocks = np.zeros(WINDOW)
    blocks[2:5], blocks[10] = (10.0, 6.0, 9.0), 5.0
    blocks[50:54], blocks[54:61], blocks[61:200] = 8.0, 7.0, 1.0
    part = lived(blocks, 20.0, since=TO_UPDATE - 1)
    block(part, 0.0)
    assert part.level == pytest.approx(np.interp(1.6, range(3), (10.0, 9.0, 8.0)))


@pytest.mark.parametrize(("budget", "most"), [(A_DAY, 1.3), (A_WEEK, 1.1)])
def test_an_episode_counts_as_little_more_than_it_crossed_for_six_hours_and_then_in_full(
    budget: float, most: float
) -> None:
    part = lived(np.empty(0), 3.0, budget)
    block(part, 20.0, OPEN)
    assert part.state()["blocks"] == pytest.approx([most * 3.0] * OPEN)
    assert part.level == 3.0
    assert not part.state()["outgrown"][4]
    block(part, 20.0)
    assert part.state()["blocks"][-1] == 20.0
    block(part, 20.0, TO_UPDATE)
    assert part.level > 3.0
    assert part.state()["outgrown"][4]


def test_a_block_just_at_the_level_is_of_an_episode() -> None:
    part = lived(np.empty(0), 3.0)
    block(part, 3.0)
    assert part.state()["level"][2] == 1.0


def test_an_episode_longer_than_what_is_known_of_the_past_sets_no_level() -> None:
    part = lived(np.ones(2), 2.0, since=TO_UPDATE - 1, going_on=4)
    block(part, 3.0)
    assert part.level == 2.0


def test_an_alarm_began_at_the_level_that_its_block_was_judged_by() -> None:
    part = lived(np.ones(WINDOW), 2.0, since=TO_UPDATE - 1)
    block(part, 2.5)
    assert part.level < 1.1
    assert part.state()["outgrown"][0] == 2.0


def test_what_is_shown_and_not_what_counts_says_whether_an_outgrown_alarm_has_gone_away() -> None:
    part = lived(np.ones(WINDOW), 6.0, outgrown=np.array([2.0, -INF, 0.0, 0.0, 1.0, 0.0]))
    part.step(0.0, 3.0)
    assert part.outgrown.now


def test_where_next_to_nothing_was_promised_a_part_of_a_window_makes_a_level_all_the_same() -> None:
    part = RollingThreshold(promise(0.0), A_DAY, INTERVAL_S)
    block(part, 0.04, TO_UPDATE)
    assert part.level == 0.05


def test_the_shortest_window_has_three_blocks() -> None:
    part = RollingThreshold(promise(2.0), A_DAY, INTERVAL_S, window_s=1.0)
    block(part, 1.0, 9)
    assert len(part.state()["blocks"]) == 3


def test_after_a_gap_neither_an_alarm_nor_the_ticks_before_it_go_on() -> None:
    part = lived(np.empty(0), 2.0)
    for _ in range(2):
        part.step(3.0)
    part.restart()
    assert part.state()["open"].tolist() == [2.0, *[-INF] * (1 + HOLD_TICKS)]
    part.step(1.0, 3.0)
    assert not part.reached


def test_an_alarm_of_a_history_stands_for_as_long_as_all_of_its_evidence_does() -> None:
    counted, whole = np.array([0.0, 3.0, 0.0, 0.0]), np.array([3.0, 3.0, 3.0, 1.0])
    scores = rolling_scores(promise(2.0), counted, A_DAY, INTERVAL_S, whole=whole)
    assert (scores >= 1.0).tolist() == [False, True, True, False]


# --------------------------------------------------------------------------------------- under a new bundle


def test_a_new_bundle_goes_on_within_the_block_and_the_episode_in_its_own_units() -> None:
    old, new = lived(np.ones(9), 4.0, going_on=5), RollingThreshold(promise(5.0), A_DAY, INTERVAL_S)
    for evidence in (3.0, 3.0, 3.0, 1.0):
        old.step(evidence)
    for _ in range(2):  # what is there is replaced
        new.adopt(old)
        assert new.state()["open"].tolist() == [4.0, 7.5, 7.5, 7.5, 2.5]
        assert new.state()["blocks"].tolist() == [2.5] * 9
        assert new.state()["level"].tolist() == [10.0, 0.0, 5.0, 0.0]
    old.restore(new.state())
    assert old.state()["blocks"].tolist() == [2.5] * 9


def test_one_that_never_looks_hands_on_to_one_that_does_what_a_restart_takes() -> None:
    never = RollingThreshold(promise(2.0), A_DAY, INTERVAL_S, update_s=INF)
    block(never, 1.0, 2 * TO_UPDATE)
    assert never.level == 2.0
    new, restarted = (RollingThreshold(promise(2.0), A_DAY, INTERVAL_S) for _ in range(2))
    new.adopt(never)
    restarted.restore(new.state())
    assert restarted.state()["level"][1] == TO_UPDATE
    block(restarted, 1.0)
    assert restarted.level < 2.0
