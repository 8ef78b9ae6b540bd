"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.units import format_age, format_fact, format_value
from node_anomaly_core.catalogue import UNITS


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.123456, "ratio", "12.3 %"),
        (0.0, "ratio", "0 %"),
        (0.00001, "ratio", "0.001 %"),
        (1.5, "ratio", "150 %"),
        (4.2e9, "bytes", "3.91 GiB"),
        (1023.0, "bytes", "1023 B"),
        (-2048.0, "bytes_per_second", "-2 KiB/s"),
        (12345.0, "per_second", "12.3 k/s"),
        (7.0, "count", "7"),
        (0.00035, "seconds", "350 µs"),
        (0.0125, "seconds", "12.5 ms"),
        (90.0, "seconds", "90 s"),
        (0.0, "seconds", "0 s"),
        (41.25, "celsius", "41.2 °C"),
        (3.0, "lines", "3 lines"),
        (math.inf, "ratio", "∞ %"),
        (-math.inf, "bytes", "-∞ B"),
    ],
)
def test_values_carry_their_unit(value, unit, text):
    assert format_value(value, unit) == text


@pytest.mark.parametrize("unit", UNITS)
def test_what_is_not_known_is_a_dash(unit):
    assert format_value(math.nan, unit) == "\N{EN DASH}"


@given(st.floats(), st.sampled_from(UNITS))
def test_any_number_can_be_shown(value, unit):
    assert format_value(value, unit)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (45, "45 s"), (150, "2 min"), (7300, "2 h"), (5 * 86400, "5 d"), (math.nan, "\N{EN DASH}")],
    ids=str,
)
def test_ages(seconds, text):
    assert format_age(seconds) == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("source", "synthetic", "synthetic"),
        ("nodes", 12.0, "12"),
        ("from", 1.7e9, "2023-11-14 22:13 UTC"),
        ("to", 1e300, "1e+300"),
        ("share", 0.25, "0.25"),
    ],
    ids=str,
)
def test_facts_about_a_bundle(name, value, text):
    assert format_fact(name, value) == text
