"""Suppressors: deviations that are too small or in the wrong direction do not count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent_bundle
from node_anomaly_agent.cli import main
from node_anomaly_agent.config import load_config
from node_anomaly_agent.config_suppressors import Suppressor
from node_anomaly_agent.scorer import AgentScorer, load_candidate
from node_anomaly_agent.suppression import Suppression
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.features import CATALOGUE

NAMES = [feature.name for feature in CATALOGUE]
NUMBERS = st.floats(allow_infinity=False)
MINIMA = st.floats(0, 1e9)


def load(tmp_path, text):
    path = tmp_path / "agent.yml"
    path.write_text(text)
    return load_config(path, {}, {})


def scored(value, expected, **limits):
    suppression = Suppression([Suppressor("a", **limits)], ["a"])
    return float(suppression.apply(np.array([value]), np.array([expected]))[0])


@given(NUMBERS, NUMBERS, st.sampled_from(["up", "down", "both"]), MINIMA, MINIMA)
def test_a_suppressed_value_is_never_further_from_the_expectation_than_the_real_one(
    value, expected, direction, absolute, relative
):
    result = scored(value, expected, direction=direction, min_absolute=absolute, min_relative=relative)
    if np.isnan(value) or np.isnan(expected):
        assert result == value or (np.isnan(result) and np.isnan(value))
    else:
        with np.errstate(over="ignore"):
            assert np.abs(np.float64(result) - expected) <= np.abs(np.float64(value) - expected)


def test_the_direction_and_both_minima_decide():
    assert scored(8.0, 10.0, direction="up") == 10.0
    assert scored(12.0, 10.0, direction="up") == 12.0
    assert scored(12.0, 10.0, direction="down") == 10.0
    assert scored(12.0, 10.0, min_absolute=2.0) == 12.0
    assert scored(11.9, 10.0, min_absolute=2.0) == 10.0
    assert scored(12.0, 10.0, min_absolute=1.0, min_relative=0.3) == 10.0


def test_a_name_wins_over_patterns_and_the_first_pattern_over_later_ones():
    suppression = Suppression(
        [Suppressor("a*", "up"), Suppressor("*", "down"), Suppressor("ab", min_absolute=9.0)],
        ["aa", "ab", "b"],
    )
    values = suppression.apply(np.full(3, 5.0), np.zeros(3))
    assert values.tolist() == [5.0, 0.0, 0.0]
    assert suppression.counts() == {"aa": 0, "ab": 1, "b": 1}


@pytest.mark.parametrize("suppressors", [(), (Suppressor("*", "up"),)], ids=["none", "all"])
def test_only_suppressors_change_the_score_and_never_what_was_observed(tmp_path, suppressors):
    path = agent_bundle.make_bundle(tmp_path)
    plain, other = (load_candidate(path, CATALOGUE, 15.0, "") for _ in range(2))
    suppression = Suppression(suppressors, NAMES)
    before, after = AgentScorer(plain), AgentScorer(other, suppression)
    generator = np.random.default_rng(0)
    differ = False
    for tick in range(60):
        values = generator.normal(10, 1, len(CATALOGUE)) - (5 if tick > 50 else 0)
        one, two = (scorer.step(1.7e9 + 15 * tick, values) for scorer in (before, after))
        np.testing.assert_array_equal(two.observed, one.observed)
        differ = differ or (one.warm and one.score != two.score)
    assert one.warm
    assert differ == bool(suppressors)
    assert (sum(after.suppressed().values()) > 0) == bool(suppressors)
    if suppressors:
        assert two.score < one.score, "a fall everywhere does not count where only a rise does"


def test_the_file_gives_them_by_name_and_pattern(tmp_path):
    config = load(tmp_path, 'suppressors: {cpu_busy_ratio: {direction: up}, "memory_*": {min-relative: 0.1}}')
    assert config.suppressors == (
        Suppressor("cpu_busy_ratio", "up"),
        Suppressor("memory_*", min_relative=0.1),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{cpu_bussy_ratio: {direction: up}}", "suppressors.cpu_bussy_ratio: .*mean cpu_busy_ratio"),
        ('{"zzz*": {direction: up}}', r"suppressors.zzz\*: matches no feature"),
        ("{cpu_busy_ratio: {min-absolute: -1}}", "cpu_busy_ratio.min-absolute: must be at least 0"),
        (
            f"{{cpu_busy_ratio: {{min-absolute: 1{'0' * 400}}}}}",
            "min-absolute: must be at least 0 and finite",
        ),
        ("{cpu_busy_ratio: {min-relative: .nan}}", "min-relative: must be at least 0"),
        ("{cpu_busy_ratio: {min-relative: x}}", "min-relative: expected a number"),
        ("{cpu_busy_ratio: {min-abs: 1, direction: up}}", "min-abs: unknown key .*min-absolute"),
        ("{cpu_busy_ratio: {direction: left}}", "direction: must be one of"),
        ("{cpu_busy_ratio: {}}", "suppresses nothing"),
        ("{cpu_busy_ratio: 1}", "expected some of direction"),
        ("[cpu_busy_ratio]", "suppressors: expected a mapping"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_path(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, f"suppressors: {text}")


def test_check_config_shows_them(tmp_path, capsys):
    path = tmp_path / "agent.yml"
    path.write_text("suppressors: {cpu_busy_ratio: {direction: up, min-absolute: 0.05}}")
    assert main(["check-config", "--config.file", str(path)]) == 0
    assert "counts: up, from 0.05 and 0 of" in capsys.readouterr().out
