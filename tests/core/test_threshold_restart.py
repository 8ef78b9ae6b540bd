"""A node's own threshold goes on after a restart as if there had been none, and under a new bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS, MERGE_TICKS, Tail
from node_anomaly_core.threshold import UPDATE_S, WINDOW_S, RollingThreshold

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = 60.0
DAY = 1_440  # ticks
A_DAY = 7.0  # false alarms per week
TO_UPDATE = round(UPDATE_S / INTERVAL_S)
WINDOW = round(WINDOW_S / INTERVAL_S)


def noise(seed: int, ticks: int) -> Array:
    """Evidence of a normal node: many small values, few large ones."""
    return np.random.default_rng(seed).exponential(size=ticks)


def promise(level: float) -> Tail:
    """An alarm at this level, and ten times as many at three quarters of it."""
    return Tail((min(0.0, level - 1.0), level), (0.0, -4.0), -4.0)


def threshold(promised: float | Tail = 2.0, interval_s: float = INTERVAL_S) -> RollingThreshold:
    tail = promised if isinstance(promised, Tail) else promise(promised)
    return RollingThreshold(tail, A_DAY, interval_s)


def levels(part: RollingThreshold, evidence: Array) -> Array:
    """What each tick was judged against (t,)."""
    return np.array([part.step(float(value)) for value in evidence])


def restarted(part: RollingThreshold) -> RollingThreshold:
    """The same after a restart."""
    fresh = threshold(interval_s=300.0)
    fresh.restore(part.state())
    return fresh


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3 * MERGE_TICKS), max_size=40), st.integers(0, 300))
@example(0, [9] * 40, 60)
@example(0, [1] * 40, 60)
def test_restarts_wherever_they_fall_change_nothing(seed: int, lives: list[int], after: int) -> None:
    ticks = sum(lives) + after
    evidence = noise(seed, ticks)
    evidence[np.random.default_rng(seed).random(ticks) < 0.02] = NAN
    uninterrupted, part = threshold(interval_s=300.0), threshold(interval_s=300.0)
    judged, rest = [], evidence
    for life in lives:
        judged.append(levels(part, rest[:life]))
        part, rest = restarted(part), rest[life:]
    judged.append(levels(part, rest))
    np.testing.assert_array_equal(np.concatenate(judged), levels(uninterrupted, evidence))
    for name, array in part.state().items():
        np.testing.assert_array_equal(array, uninterrupted.state()[name])
    assert (part.reached, part.ratio) == (uninterrupted.reached, uninterrupted.ratio)


def test_a_reload_of_the_same_promise_goes_on_within_the_block() -> None:
    uninterrupted, reloaded = threshold(), threshold()
    levels(uninterrupted, noise(10, WINDOW + 7))
    reloaded.adopt(uninterrupted)
    later = noise(11, DAY)
    np.testing.assert_array_equal(levels(reloaded, later), levels(uninterrupted, later))


def test_a_state_from_before_blocks_were_saved_half_way_begins_the_block_anew() -> None:
    before, after = threshold(), threshold()
    levels(before, noise(10, WINDOW + 7))
    saved = before.state()
    del saved["open"]
    after.restore(saved)
    np.testing.assert_array_equal(after.state()["blocks"], saved["blocks"])
    np.testing.assert_array_equal(after.state()["open"], [0.0, *[-np.inf] * (1 + HOLD_TICKS)])
    levels(after, noise(11, MERGE_TICKS))
    np.testing.assert_array_equal(after.state()["blocks"][:-1], saved["blocks"][1:])


@pytest.mark.parametrize(
    "change",
    [
        {"level": np.array([NAN, 0.0, 0.0, 0.0])},
        {"level": np.array([np.inf, 0.0, 0.0, 0.0])},
        {"level": np.array([0.0, 0.0, 0.0, 0.0])},
        {"level": np.array([-1.0, 0.0, 0.0, 0.0])},
        {"level": np.array([2.0, -1.0, 0.0, 0.0])},
        {"level": np.array([2.0, 1e9, 0.0, 0.0])},
        {"level": np.array([2.0, 0.0, -1.0, 0.0])},
        {"level": np.array([2.0, 0.0, NAN, 0.0])},
        {"level": np.array([2.0, 0.0, np.inf, 0.0])},
        {"level": np.array([2.0, NAN, 0.0, 0.0])},
        {"level": np.array([2.0, 0.0, 0.0, 0.5])},
        {"level": np.array([2.0, 0.0, 0.0, NAN])},
        {"blocks": np.array([1.0, NAN])},
        {"blocks": np.array([np.inf])},
        {"open": np.array([10.0, 1.0, 1.0, 1.0, 1.0])},
        {"open": np.array([-1.0, 1.0, 1.0, 1.0, 1.0])},
        {"open": np.array([0.5, 1.0, 1.0, 1.0, 1.0])},
        {"open": np.array([NAN, 1.0, 1.0, 1.0, 1.0])},
        {"open": np.array([1.0, np.inf, 1.0, 1.0, 1.0])},
        {"open": np.array([1.0, 1.0, 1.0, NAN, 1.0])},
        {"open": np.array([1.0, 1.0, 1.0, 1.0])},
    ],
    ids=str,
)
def test_a_state_that_no_threshold_has_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    part, other = threshold(), threshold()
    levels(other, noise(12, DAY))
    with pytest.raises(ValueError, match="a saved threshold"):
        part.restore(other.state() | change)
    assert part.level == 2.0
    assert len(part.state()["blocks"]) == 0


def test_a_new_bundle_goes_on_from_how_far_the_threshold_had_wandered() -> None:
    """Another bundle's evidence has other units; what counts is the multiple of the promised level."""
    old, new = threshold(2.0), threshold(5.0)
    levels(old, 0.5 * noise(13, 3 * DAY + 1))
    new.adopt(old)
    assert (new.ratio, new.learnt) == (pytest.approx(old.ratio), old.learnt)
    np.testing.assert_allclose(new.state()["blocks"], 2.5 * old.state()["blocks"])
    later = noise(14, DAY)
    np.testing.assert_allclose(
        levels(new, 2.5 * 0.5 * later)[-1] / 5.0, levels(old, 0.5 * later)[-1] / 2.0, rtol=0.15
    )


def test_the_least_level_taken_over_by_a_new_bundle_is_one_that_a_restart_takes() -> None:
    for level in np.linspace(0.06, 5.0, 200):
        old, new = threshold(promise(float(level))), threshold(promise(float(level)))
        old.level = 0.05
        new.adopt(old)
        threshold(promise(float(level))).restore(new.state())
        lower = threshold(promise(float(level) / 1.5))
        lower.adopt(old)
        threshold(promise(float(level))).restore(lower.state())


def test_an_alarm_that_stands_goes_on_over_a_restart_and_a_reload_by_all_of_its_evidence() -> None:
    old, restarted, reloaded = (threshold(2.0) for _ in range(3))
    old.step(3.0)
    restarted.restore(old.state())
    reloaded.adopt(old)
    for part in (restarted, reloaded):
        part.step(1.0, 3.0)
        assert part.reached


def test_a_node_that_is_restarted_more_often_than_it_updates_learns_all_the_same() -> None:
    part = threshold(2.0)
    for restart in range(12):
        before, part = part, threshold(2.0)
        part.restore(before.state())
        levels(part, 0.1 * noise(restart, TO_UPDATE // 3))
    assert part.level < 2.0
