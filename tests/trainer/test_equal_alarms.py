"""Detectors are compared where they raise equally many false alarms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from node_anomaly_trainer.equal_alarms import alarms_at, alarms_in, equalised, level_for
from node_anomaly_trainer.production import at_equal_alarms

TICKS = 6_000


def smooth(seed, width):
    """Positive noise with memory: alarms that hold."""
    noise = np.random.default_rng(seed).normal(size=(TICKS, 2)) ** 2
    window = np.ones(width) / width
    return np.stack([np.convolve(column, window, "same") for column in noise.T], axis=1)


def test_detectors_of_different_scale_and_memory_raise_equally_many():
    clean = {"one": smooth(1, 5), "other": 100.0 * smooth(2, 9)}
    normal = np.ones((TICKS, 2), dtype=bool)
    scaled, faulted = equalised(clean, {name: 2 * scores for name, scores in clean.items()}, normal, 12)
    counts = [alarms_at(scores, 1.0) for scores in scaled.values()]
    assert all(10 <= count <= 12 for count in counts)
    np.testing.assert_allclose(faulted["other"], 2 * scaled["other"])


def test_one_that_seldom_holds_any_level_sets_the_number_for_all():
    rare = np.full((TICKS, 2), 0.01)
    rare[100:110, 0] = rare[3_000:3_010, 1] = 5.0
    scaled, _ = equalised({"rare": rare, "one": smooth(1, 5)}, {}, np.ones((TICKS, 2), dtype=bool), 12)
    assert alarms_at(scaled["rare"], 1.0) == 2
    assert 1 <= alarms_at(scaled["one"], 1.0) <= 2


def test_one_that_raises_no_alarm_at_any_level_does_not_silence_the_others():
    """It holds nothing for three ticks: there is no number that all could be held to."""
    never = np.zeros((TICKS, 2))
    never[::50] = 1.0
    scaled, _ = equalised({"never": never, "one": smooth(1, 5)}, {}, np.ones((TICKS, 2), dtype=bool), 12)
    assert alarms_at(scaled["never"], 1.0) == 0
    assert 10 <= alarms_at(scaled["one"], 1.0) <= 12


def test_on_a_short_history_one_alarm_is_allowed():
    assert alarms_in(1.0, np.ones((100, 1), dtype=bool), 60.0) == 1


@pytest.mark.parametrize("scores", [np.full((50, 2), np.nan), np.zeros((50, 2))])
def test_where_nothing_is_known_or_moves_the_threshold_stays(scores):
    assert level_for(scores, 5) == (1.0, 0)


def test_what_is_not_normal_is_not_counted():
    scores = smooth(3, 5)
    scores[1_000:1_050] = 1e6
    normal = np.ones((TICKS, 2), dtype=bool)
    normal[990:1_060] = False
    scaled, _ = equalised({"one": scores}, {}, normal, 10)
    assert scaled["one"][1_000, 0] > 1e4
    assert 8 <= alarms_at(np.where(normal, scaled["one"], np.nan), 1.0) <= 10


def test_a_bundle_that_knows_half_of_the_nodes_may_not_spend_the_alarms_of_all_on_them():
    """Two detectors alike: on the nodes that both are asked about they raise equally many."""
    ours, theirs = (np.concatenate([smooth(seed, 5), smooth(seed + 1, 5)], axis=1) for seed in (1, 5))
    theirs[:, 2:] = np.nan
    nodes = ("a", "b", "c", "d")
    old = SimpleNamespace(clean=theirs, faulted=theirs, nodes=nodes[:2])
    parts = SimpleNamespace(clean=SimpleNamespace(nodes=nodes, interval_s=60.0))
    normal = np.ones((TICKS, 4), dtype=bool)
    shown, clean, faulted = at_equal_alarms(old, parts, (ours, ours), normal, 20.0)
    wanted = alarms_in(20.0, normal[:, :2], 60.0)
    assert wanted == 24
    assert all(0.8 * wanted <= alarms_at(one[:, :2], 1.0) <= wanted for one in (shown, clean))
    np.testing.assert_array_equal(clean, faulted)
