"""Figures on real incidents: what counts as an alarm, as an incident, and as a tick that was judged."""

from __future__ import annotations

import math

import numpy as np
import pytest

from node_anomaly_trainer.incident_figures import IncidentFigures, incident_figures

NORMAL, ANOMALOUS, UNKNOWN = 0, 1, -1
TICKS, INCIDENT = 200, slice(100, 110)


def lived(*, alarm: slice = INCIDENT, unknown: slice = slice(0, 0)):
    """Scores and labels (t,) of a node with one incident, in alarm within the given ticks."""
    score, label = np.full(TICKS, 0.2), np.full(TICKS, NORMAL, dtype=np.int8)
    score[alarm] = 1.5
    label[INCIDENT], label[unknown] = ANOMALOUS, UNKNOWN
    return score, label


def figures(*nodes) -> IncidentFigures:
    found = incident_figures([score for score, _ in nodes], [label for _, label in nodes], 15.0)
    assert found is not None
    return found


def test_an_alarm_that_stands_for_exactly_the_incident_makes_every_tick_right():
    assert figures(lived()) == IncidentFigures(incidents=1, alarms=1, accuracy=1.0, precision=1.0, recall=1.0)


def test_an_alarm_where_nobody_knows_what_was_the_case_is_neither_right_nor_false():
    score, label = lived(unknown=slice(20, 60))
    score[30:50] = 2.0
    assert figures((score, label)) == figures(lived())


def test_a_tick_without_a_score_is_not_counted_as_silence():
    score, label = lived()
    score[105:110] = np.nan
    assert figures((score, label)).accuracy == 1.0


def test_the_incident_of_a_node_without_any_score_is_not_a_missed_one():
    _, label = lived()
    assert figures(lived(), (np.full(TICKS, np.nan), label)) == figures(lived())


def test_without_an_alarm_precision_is_unknown_and_the_f1_score_is_zero():
    silent = figures(lived(alarm=slice(0, 0)))
    assert (silent.recall, silent.f1_score) == (0.0, 0.0)
    assert math.isnan(silent.precision)
    assert silent.accuracy == pytest.approx(1.0 - 10 / TICKS)


def test_without_an_incident_there_are_no_figures():
    score, label = lived()
    assert incident_figures([score], [np.zeros_like(label)], 15.0) is None
