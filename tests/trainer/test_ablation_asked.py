"""bench/ablation_asked.py: detectors are compared at false alarms that they really raised."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from bench_programs import program
from node_anomaly_trainer.bench.metrics import judge, summarise

DAY_TICKS = 288


@pytest.fixture
def asked(monkeypatch):
    return program("ablation_asked", monkeypatch)


def figures(alarms, found):
    """One entity of four days with four events, of which `found` are found, and so many false alarms."""
    label = np.zeros(4 * DAY_TICKS, dtype=np.int8)
    score = np.zeros(len(label))
    for event in range(4):
        start = event * DAY_TICKS + 100
        label[start : start + 10] = 1
        score[start : start + 10] = 1.0 if event < found else 0.0
    for alarm in range(alarms):
        start = 5 + 25 * alarm + (200 if alarm > 2 else 0)
        score[start : start + 3] = 1.0
    return judge(label, score, 300.0)


def curve(asked, *points):
    """A detector that raised so many false alarms and found so many events, from the largest budget down."""
    return {budget: figures(*point) for budget, point in zip(asked.PER_DAY, points, strict=True)}


@pytest.fixture
def found(asked):
    ours = curve(asked, (4, 4), (3, 3), (2, 3), (1, 2), (0, 1))
    pca = curve(asked, (4, 2), (2, 2), (2, 1), (1, 1), (0, 0))
    return asked.curves([{asked.NODE_ANOMALY: ours, "PCA residual": pca}])


def test_a_detector_that_one_entity_lacks_is_in_no_curve(asked):
    one = curve(asked, *[(1, 1)] * len(asked.PER_DAY))
    assert list(asked.curves([{"a": one, "b": one}, {"b": one}])) == ["b"]


def test_a_row_says_recall_at_the_false_alarms_that_were_raised(asked, found):
    lines = asked.asked_lines(found)
    assert lines[0] == f"| asked for a day | {asked.NODE_ANOMALY} | PCA residual |"
    assert lines[3] == "| 1 | 0.75 at 0.75 | 0.50 at 0.50 |"
    assert len(lines) == 2 + len(asked.PER_DAY)


def test_recall_is_read_between_points_and_never_beyond_them(asked, found):
    ours = found[asked.NODE_ANOMALY]
    assert asked.found_at(ours, 0.375) == pytest.approx(0.625)
    assert math.isnan(asked.found_at(ours, 1.01))
    assert math.isnan(asked.found_at({}, 0.5))


def test_a_rival_is_met_at_its_own_number_of_false_alarms(asked, found):
    (line,) = asked.beside(found)
    assert line == "At the 0.50 a day that PCA residual raises, finding 0.50, node-anomaly finds 0.75."
    shifted = {asked.NODE_ANOMALY: {1.0: summarise([figures(4, 4)])}, "PCA residual": found["PCA residual"]}
    (line,) = asked.beside(shifted)
    assert line.endswith("node-anomaly was not asked for so few or so many.")


def test_the_picture_is_one_panel_a_data_set_on_white(asked, found, tmp_path):
    path = tmp_path / "curve.svg"
    asked.draw_curves({"smd": found, "asd": found}, path)
    text = path.read_text()
    ET.fromstring(text)
    assert "SMD" in text
    assert "ASD" in text
    assert text.count("PCA residual") == 1
    assert "fill: #ffffff" in text
