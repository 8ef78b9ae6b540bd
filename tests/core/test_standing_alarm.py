"""What raises an alarm and what lets it stand: witnesses for the one, all of the evidence for the other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from node_anomaly_core.calibration import Tail, fit_tail
from node_anomaly_core.threshold import OPEN_S, RollingThreshold, rolling_scores

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = 60.0
DAY = 1_440  # ticks
A_DAY = 7.0


def noise(seed: int, ticks: int) -> Array:
    """Evidence of a normal node: many small values, few large ones."""
    return np.random.default_rng(seed).exponential(size=ticks)


@pytest.fixture(scope="module")
def tail() -> Tail:
    return fit_tail([noise(1_000 + node, 30 * DAY) for node in range(6)], INTERVAL_S, A_DAY)


def test_what_does_not_count_for_an_alarm_is_shown_below_one(tail: Tail) -> None:
    whole = 1.5 * noise(17, 6 * DAY)
    scores = rolling_scores(tail, np.full(len(whole), -1.0), A_DAY, INTERVAL_S, whole=whole)
    loud = tail.score(whole) > 2.0
    assert loud.any()
    assert (scores[loud] < 1.0).all()
    assert (scores[loud] > 0.9).all()


def test_an_alarm_stands_for_as_long_as_the_whole_evidence_does_whatever_counted_for_it() -> None:
    part = RollingThreshold(Tail((0.0, 2.0), (0.0, -4.0), -4.0), A_DAY, INTERVAL_S)
    steps = [
        (1.0, 5.0, False),  # nobody bears it out
        (2.0, 5.0, True),
        (0.0, 5.0, True),
        (0.0, 2.0, True),
        (1.9, 1.9, False),
        (0.0, 5.0, False),  # and it takes witnesses to begin anew
        (2.5, 5.0, True),
        (NAN, NAN, False),
        (0.0, 5.0, False),
    ]
    for counted, whole, reached in steps:
        part.step(counted, whole)
        assert part.reached is reached, (counted, whole)


def test_an_alarm_that_nobody_bears_out_any_more_is_the_new_normal_after_hours_too() -> None:
    """Counted in full once it is six hours old, as any other that stands."""
    part = RollingThreshold(Tail((0.0, 2.0), (0.0, -4.0), -4.0), A_DAY, INTERVAL_S)
    part.step(3.0, 3.0)
    ticks = 0
    while part.reached:
        part.step(0.0, 3.0 - 1e-6 * ticks)
        ticks += 1
        assert ticks < 3 * DAY
    assert ticks > OPEN_S / INTERVAL_S
