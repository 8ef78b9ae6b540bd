"""bench/long_incidents.py: what is laid over a test is told to its end, and only what is told is counted."""

from __future__ import annotations

import numpy as np
import pytest

from bench_programs import program

INTERVAL_S, DAY = 300.0, 288


@pytest.fixture
def laid(monkeypatch):
    program("ablation_variants", monkeypatch)
    return program("long_incidents", monkeypatch)


def measured(laid):
    """Members of one server that never sees anything: noise over ten days of calibration and ten of test."""
    draws = np.random.default_rng(7)
    calibration = {name: draws.exponential(size=10 * DAY) for name in laid.PRODUCT}
    lived = {
        name: np.concatenate([past, draws.exponential(size=10 * DAY)]) for name, past in calibration.items()
    }
    return laid.Measured(calibration, lived, dict.fromkeys(laid.PRODUCT, 1.0), {})


@pytest.mark.parametrize("per_week", [7.0, 1.0])
def test_an_incident_of_a_day_is_told_to_its_end_and_not_for_long_after_it(laid, per_week):
    found = laid.laid_over(measured(laid), 10 * DAY, INTERVAL_S, per_week, 24)
    assert 6 < found.alarm_hours < 23
    assert found.told_share > 0.95
    assert 0 < found.hours_after < 2


def test_where_nothing_is_laid_over_next_to_nothing_is_told(laid):
    said = laid.told(measured(laid), INTERVAL_S, 7.0)
    assert said.outgrown.mean() < 0.01


def test_what_was_outgrown_belongs_to_an_incident_of_the_day_before_and_to_no_later_one(laid):
    outgrown, label = np.zeros(10 * DAY, dtype=bool), np.zeros(10 * DAY, dtype=np.int8)
    outgrown[[10, 11, 3 * DAY, 6 * DAY]] = True
    label[2 * DAY + 5 : 2 * DAY + 10] = label[3 * DAY] = label[7 * DAY] = 1
    found = laid.usual(laid.Told(outgrown, outgrown), label, INTERVAL_S)
    assert (found.days, found.begun, found.after_incident) == (10.0, 3, 1)
    assert found.normal_share == pytest.approx(3 / (10 * DAY - 7))


def test_a_row_counts_what_was_seen_and_takes_medians_of_that_alone(laid):
    usual = laid.Usual(7.0, 2, 1, 0.015)
    seen, blind = laid.LaidOver(13.0, 1.0, 0.5), laid.LaidOver(0.0, 0.0, 0.0)
    entities = [
        {budget: {"usual": usual, "24 h": one} for budget in laid.BUDGETS} for one in (seen, blind, seen)
    ]
    day, _ = laid.lines_of("set", entities)
    cells = day.strip("| ").split(" | ")
    assert cells[:5] == ["set", "one a day", "2.00", "3 of 6", "1.50 %"]
    assert cells[5:] == ["2 of 3", "13.0 h", "100 %", "30 min", "0 of 0", "-", "-", "-"]
