"""Incidents as labels: what is inside, what is near, what does not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import CATALOGUE
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.labels import Incident, count_events, guard_band, read_incidents, struck
from node_anomaly_trainer.node_names import NodeNames


@pytest.fixture
def history():
    return History(
        features=CATALOGUE[:1],
        interval_s=10.0,
        nodes=("a", "b"),
        timestamps=1000.0 + 10.0 * np.arange(50),
        values=np.zeros((50, 2, 1)),
        labels=np.full((50, 2), -1, dtype=np.int8),
    )


@pytest.fixture
def names(history):
    return NodeNames(history.nodes)


def test_inside_is_struck_and_nothing_else(history, names):
    mask = struck(history, [Incident(1100.0, 1150.0, ("a",))], names, print)
    np.testing.assert_array_equal(np.argwhere(mask), [[tick, 0] for tick in range(10, 15)])


def test_an_incident_without_nodes_concerns_all_of_them(history, names):
    mask = struck(history, [Incident(1100.0, 1150.0)], names, print)
    assert mask[10:15].all()
    assert mask.sum() == 10


def test_incidents_that_do_not_fit_are_reported(history, names):
    notes = []
    incidents = [
        Incident(1100.0, 1150.0, ("a", "ghost"), "disk died"),
        Incident(1140.0, 1200.0, ("a",), "again"),
        Incident(9000.0, 9100.0, (), "later"),
    ]
    struck(history, incidents, names, notes.append)
    assert notes == [
        "disk died: no history of ghost",
        "again: overlaps another incident",
        "later: outside the history's time range",
    ]


def test_what_begins_on_several_nodes_at_about_the_same_time_is_one_event():
    anomalous = np.zeros((100, 3), dtype=bool)
    anomalous[10:20, 0] = anomalous[12:30, 1] = True  # one thing on two nodes
    anomalous[50:60, 0] = anomalous[90:, 2] = True
    assert count_events(anomalous, 5) == 3
    assert count_events(anomalous, 2) == 3, "as far apart as that is still together"
    assert count_events(anomalous, 1) == count_events(anomalous, 0) == 4
    assert count_events(np.zeros((9, 2), dtype=bool), 5) == 0


@given(st.lists(st.sampled_from([0, 1, -1]), min_size=1, max_size=60), st.integers(0, 70))
def test_a_guard_band_hides_exactly_the_normal_ticks_near_anomalies(column, ticks):
    labels = np.array(column, dtype=np.int8)[:, None]
    guarded = guard_band(labels, ticks)
    for at, label in enumerate(column):
        near = 1 in column[max(0, at - ticks) : at + ticks + 1]
        assert guarded[at, 0] == (-1 if label == 0 and near else label)


def test_yaml_and_csv_files_say_the_same(tmp_path):
    as_yaml, as_csv = tmp_path / "i.yml", tmp_path / "i.csv"
    as_yaml.write_text(
        "- {from: 2026-05-01T12:00:00Z, to: 2026-05-01T13:00:00Z, nodes: [a, b], note: disk}\n"
        "- {from: 1777636800, to: 1777640400}\n"
    )
    as_csv.write_text(
        "from,to,nodes,note\n2026-05-01T12:00:00Z,2026-05-01T13:00:00Z,a;b,disk\n1777636800,1777640400,,\n"
    )
    assert read_incidents(as_yaml) == read_incidents(as_csv)
    as_csv.write_text(as_csv.read_text(), encoding="utf-8-sig")  # as a spreadsheet writes it
    assert read_incidents(as_yaml) == read_incidents(as_csv)
    as_csv.write_text(as_csv.read_text(encoding="utf-8-sig").replace("a;b", " a ; b "))
    assert read_incidents(as_yaml) == read_incidents(as_csv)
    first, second = read_incidents(as_csv)
    assert replace(second, nodes=first.nodes, note=first.note) == first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("from: 1", "expected a list of incidents"),
        ("- 3", "incident 1 is not a mapping"),
        ("- {from: 1, to: 2, node: a}", "incident 1: unknown key node"),
        ("- {from: 1, to: soon}", "incident 1: to is no time"),
        ("- {from: 5, to: 2}", "incident 1 ends before it starts"),
        ("- {from: 1, to: 2, nodes: 3}", "incident 1: nodes is no list"),
        ("- [", "not YAML"),
    ],
)
def test_a_bad_incidents_file_names_the_entry(tmp_path, text, said):
    path = tmp_path / "incidents.yml"
    path.write_text(text)
    with pytest.raises(SourceError, match=said):
        read_incidents(path)
    with pytest.raises(SourceError, match="No such file"):
        read_incidents(tmp_path / "gone.yml")
