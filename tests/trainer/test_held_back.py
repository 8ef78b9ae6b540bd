"""Alarms on held-back normal data: on which node, when, for how long, and what was odd there."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_server import START, STEP, fleet_history
from node_anomaly_trainer.held_back import MOST_ALARMS, by_node, held_back_alarms


def scores(ticks, *high):
    """Low, but for (start, stop, level)."""
    made = np.full(ticks, 0.5)
    for start, stop, level in high:
        made[start:stop] = level
    return made


def test_each_alarm_has_its_node_its_time_its_height_and_what_was_furthest_off():
    history = fleet_history(("a", "b"), 1_000)
    compressed = np.full((1_000, 2, 1), 0.1, np.float32)
    compressed[205, 1] = -4.0
    found = held_back_alarms(
        history, [scores(1_000, (700, 710, 1.2)), scores(1_000, (200, 220, 1.1), (205, 206, 1.5))], compressed
    )
    assert [(one.node, one.at, one.seconds, one.peak) for one in found] == [
        ("b", START + 200 * STEP, 20 * STEP, 1.5),
        ("a", START + 700 * STEP, 10 * STEP, 1.2),
    ]
    assert found[0].features == ("memory_available_ratio",)


def test_an_alarm_that_pauses_is_told_once_as_it_is_counted():
    score = scores(1_000, (100, 110, 1.2), (112, 120, 1.3))
    history = fleet_history(("a",), 1_000)
    found = held_back_alarms(history, [score], np.zeros((1_000, 1, 1), np.float32))
    (counted,) = by_node(("a",), [score], STEP)
    assert len(found) == counted.alarms == 1


def test_no_more_than_the_highest_are_told_and_a_silent_node_is_not_counted():
    many = scores(20_000, *((at, at + 5, 1.0 + at / 1e5) for at in range(100, 19_000, 100)))
    history = fleet_history(("a", "gone"), 20_000)
    silent = np.full(20_000, np.nan)
    found = held_back_alarms(history, [many, silent], np.full((20_000, 2, 1), np.nan, np.float32))
    assert len(found) == MOST_ALARMS
    assert min(one.peak for one in found) == pytest.approx(1.09, abs=0.01)
    assert all(one.features == () for one in found)
    (only,) = by_node(("a", "gone"), [many, silent], STEP)
    assert (only.node, only.alarms) == ("a", 189)
    assert only.weeks == pytest.approx(20_000 * STEP / 604_800)
