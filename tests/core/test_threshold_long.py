"""What an incident of many hours does to a node's own threshold, as docs/score.md and ADR 0026 have it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from node_anomaly_core.calibration import fit_tail
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import RollingThreshold

Array = NDArray[np.float64]

INTERVAL_S, HOUR, DAY = 60.0, 60, 1_440  # ticks
A_DAY, A_WEEK = 7.0, 1.0
BEGIN = 6 * DAY  # of the incident: the window is full by then
HEIGHT = 20.0  # of evidence, whose usual size is 1


def noise(seed: int, ticks: int) -> Array:
    return np.random.default_rng(seed).exponential(size=ticks)


def lived(budget: float, hours: int) -> tuple[float, Array]:
    """Hours of alarm, and levels (t,) as multiples of the one before, from the end of the incident on."""
    tail = fit_tail([peak_held(noise(1_000 + node, 30 * DAY)) for node in range(6)], INTERVAL_S, budget)
    evidence, end = noise(5, 14 * DAY), BEGIN + hours * HOUR
    evidence[BEGIN:end] += HEIGHT
    evidence = peak_held(evidence)
    threshold = RollingThreshold(tail, budget, INTERVAL_S)
    levels = np.array([threshold.step(value) for value in evidence.tolist()])
    alarmed = float((evidence[BEGIN:end] >= levels[BEGIN:end]).sum()) / HOUR
    return alarmed, levels[end:] / levels[BEGIN]


@pytest.mark.parametrize("budget", [A_DAY, A_WEEK])
def test_five_hours_are_an_alarm_to_their_end_and_leave_next_to_nothing(budget):
    alarmed, after = lived(budget, 5)
    assert alarmed == 5.0
    assert after.max() < 1.1


@pytest.mark.parametrize(
    ("budget", "hours", "alarm"), [(A_WEEK, 12, 9.0), (A_WEEK, 24, 11.0), (A_DAY, 24, 13.0)]
)
def test_what_lasts_stops_being_an_alarm_before_it_ends(budget, hours, alarm):
    alarmed, _ = lived(budget, hours)
    assert alarmed == pytest.approx(alarm, abs=0.5)


@pytest.mark.parametrize(("budget", "hours", "days"), [(A_WEEK, 7, 3.5), (A_DAY, 24, 1.7)])
def test_for_as_long_as_the_window_remembers_it_a_smaller_one_is_missed(budget, hours, days):
    _, after = lived(budget, hours)
    assert (after[: round((days - 0.1) * DAY)] > 2.0).all()
    assert (after[round((days + 0.1) * DAY) :] < 1.1).all()
