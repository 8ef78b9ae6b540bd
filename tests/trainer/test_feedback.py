"""Verdicts on alarms: the file for git, what they make of history, and the test a candidate must pass."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import small_bundle
from node_anomaly_core.errors import SourceError
from node_anomaly_core.residuals import longest_window
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer import feedback, regression
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.evaluate import raised
from node_anomaly_trainer.feedback import (
    FALSE_ALARM,
    HEADER,
    INCIDENT,
    Verdict,
    add_verdict,
    as_incidents,
    parse_verdict,
    read_feedback,
)
from node_anomaly_trainer.labelling import label
from node_anomaly_trainer.labels import Incident
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.regression import LEAD_IN_TICKS, replay_false_alarms

VERDICT = Verdict(1_700_000_000.0, 1_700_000_600.0, "db-1", FALSE_ALARM, "backup")


def test_a_verdict_that_is_written_is_read_again(tmp_path):
    path = tmp_path / "ops" / "labels.yml"
    assert add_verdict(path, VERDICT) == (VERDICT,)
    assert read_feedback(path) == (VERDICT,)
    assert "from: '2023-11-14T22:13:20Z'" in path.read_text()


def test_the_file_is_sorted_and_a_verdict_is_not_doubled(tmp_path):
    path = tmp_path / "labels.yml"
    later = replace(VERDICT, start=VERDICT.start + 9_000, stop=VERDICT.stop + 9_000)
    for verdict in (later, VERDICT, later):
        add_verdict(path, verdict)
    assert read_feedback(path) == (VERDICT, later)
    assert [row["from"] for row in yaml.safe_load(path.read_text())] == sorted(
        row["from"] for row in yaml.safe_load(path.read_text())
    )


@given(
    st.floats(0, 4e9).map(lambda value: round(value, 3)),
    st.floats(1, 6e5).map(lambda value: round(value, 3)),
    st.text(min_size=1, max_size=30).filter(lambda text: text.strip()),
    st.sampled_from((FALSE_ALARM, INCIDENT)),
    st.text(max_size=60),
)
def test_whatever_node_and_note_a_person_writes_comes_back(
    tmp_path_factory, start, length, node, verdict, note
):
    path = tmp_path_factory.mktemp("labels") / "labels.yml"
    if not (node + note).isprintable():
        return  # a terminal cannot type it
    given_verdict = parse_verdict(str(start), str(start + length), node, verdict, note)
    add_verdict(path, given_verdict)
    (read,) = read_feedback(path)
    assert (read.node, read.verdict, read.note) == (node.strip(), verdict, " ".join(note.split()))
    assert read.start == pytest.approx(start, abs=0.001)


def test_a_file_that_a_person_opens_says_what_it_is_and_has_notes_as_they_were_typed(tmp_path):
    add_verdict(tmp_path / "labels.yml", replace(VERDICT, note="Lüfter"))
    text = (tmp_path / "labels.yml").read_text(encoding="utf-8")
    assert text.startswith(HEADER)
    assert "note: Lüfter\n" in text


def test_a_file_of_which_only_the_comment_is_left_holds_no_verdict(tmp_path):
    (tmp_path / "labels.yml").write_text(HEADER)
    assert read_feedback(tmp_path / "labels.yml") == ()


def test_as_many_verdicts_as_there_may_be_are_read_and_one_more_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback, "MOST", 2)
    path = tmp_path / "labels.yml"
    for node in ("a", "b"):
        add_verdict(path, replace(VERDICT, node=node))
    assert len(read_feedback(path)) == 2
    path.write_text(path.read_text() + "- {from: 1, to: 2, node: c, verdict: incident}\n")
    with pytest.raises(SourceError, match="3 verdicts, 2 are the most"):
        read_feedback(path)


def test_a_file_that_cannot_be_read_or_written_is_an_error_with_its_path(tmp_path):
    with pytest.raises(SourceError, match=r"labels\.yml: No such file"):
        read_feedback(tmp_path / "labels.yml")
    (tmp_path / "labels.yml").write_bytes(b"- note: \xff\n")
    with pytest.raises(SourceError, match=r"labels\.yml: not YAML"):
        read_feedback(tmp_path / "labels.yml")
    with pytest.raises(SourceError, match=r"below\.yml: Not a directory"):
        add_verdict(tmp_path / "labels.yml" / "deep" / "below.yml", VERDICT)


def test_a_verdict_is_one_line_of_a_report_and_its_note_is_the_incidents():
    line = "false-alarm on db-1, 2023-11-14T22:13:20Z to 2023-11-14T22:23:20Z"
    assert str(VERDICT) == f"{line} (backup)"
    assert str(replace(VERDICT, note="")) == line
    other = replace(VERDICT, verdict=INCIDENT)
    (incident,) = as_incidents([VERDICT, other], FALSE_ALARM)
    assert incident == Incident(VERDICT.start, VERDICT.stop, ("db-1",), "backup")


def test_a_note_of_several_lines_is_kept_as_one():
    assert parse_verdict("1", "61", "db-1", INCIDENT, "  disk\n  full \t again ").note == "disk full again"


def test_a_verdict_may_last_for_a_whole_week():
    week = 7 * 86_400
    assert parse_verdict("0", str(week), "db-1", INCIDENT, "").stop == week
    with pytest.raises(SourceError, match="7 are the most"):
        parse_verdict("0", str(week + 1), "db-1", INCIDENT, "")


def test_two_who_label_at_once_lose_nothing(tmp_path):
    path = tmp_path / "labels.yml"
    verdicts = [replace(VERDICT, node=f"db-{number}") for number in range(12)]
    writers = [threading.Thread(target=add_verdict, args=(path, verdict)) for verdict in verdicts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(read_feedback(path)) == set(verdicts)


def test_a_contradiction_is_refused_and_the_file_stays(tmp_path):
    path = tmp_path / "labels.yml"
    add_verdict(path, VERDICT)
    before = path.read_bytes()
    with pytest.raises(SourceError) as caught:
        add_verdict(path, replace(VERDICT, verdict=INCIDENT, start=VERDICT.start + 60))
    assert "contradiction" in caught.value.message
    assert path.read_bytes() == before


def test_a_contradiction_is_found_behind_another_verdict_too(tmp_path):
    """A short false alarm lies between the long one and the incident."""
    path = tmp_path / "labels.yml"
    long, short = replace(VERDICT, stop=VERDICT.start + 7_200), replace(VERDICT, start=VERDICT.start + 60)
    for verdict in (long, short):
        add_verdict(path, verdict)
    with pytest.raises(SourceError, match="contradiction"):
        add_verdict(
            path, replace(VERDICT, verdict=INCIDENT, start=VERDICT.start + 3_600, stop=VERDICT.start + 4_000)
        )
    beside = replace(VERDICT, verdict=INCIDENT, node="db-2")
    assert beside in add_verdict(path, beside)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {from: 1750000000000, to: 1750000060000, node: a, verdict: incident}", "no time between 1970"),
        ("- {from: .nan, to: 1, node: a, verdict: incident}", "no time between 1970"),
        ("- {from: 1, to: .inf, node: a, verdict: incident}", "no time between 1970"),
        (
            "- {from: 1, to: 2, node: a, verdict: false_alarm}",
            "verdict 'false_alarm'; did you mean false-alarm?",
        ),
        ("- {from: 1, to: 2, nodes: a, verdict: incident}", "unknown key nodes; did you mean node?"),
        ("- {from: 1, to: 2, verdict: incident}", "no node"),
        ("- {from: 2, to: 1, node: a, verdict: incident}", "ends before it starts"),
        ("- {from: soon, to: 1, node: a, verdict: incident}", "from is no time"),
        ("- {from: 1, to: 9000000, node: a, verdict: incident}", "lasts 104 days, 7 are the most"),
        ("- [1, 2]", "verdict 1 is not a mapping"),
        ("from: 1", "expected a list"),
        ("- {from: 1", "not YAML"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, text, said):
    (tmp_path / "labels.yml").write_text(text)
    with pytest.raises(SourceError) as caught:
        read_feedback(tmp_path / "labels.yml")
    assert said in caught.value.message
    assert caught.value.hint


def labelled(tmp_path, history, *verdicts):
    path = tmp_path / "labels.yml"
    for verdict in verdicts:
        add_verdict(path, verdict)
    config = parse_config(
        {
            "source": {"type": "file", "file": {"path": "x.csv"}},
            "labels": {"feedback": str(path), "guard": "60s"},
        }
    )
    return label(history, config, lambda _line: None)


def at(history, first, stop, node, verdict):
    return Verdict(float(history.timestamps[first]), float(history.timestamps[stop]), node, verdict)


def test_false_alarms_are_normal_and_incidents_are_labels(tmp_path):
    history = small_bundle.history()
    found = labelled(
        tmp_path, history, at(history, 50, 60, "alpha", FALSE_ALARM), at(history, 60, 70, "alpha", INCIDENT)
    )
    alpha = found.history.labels[:, 0]
    assert (alpha[50:60] == 0).all(), "even within the guard of an incident"
    assert (alpha[60:70] == 1).all()
    assert alpha[70] == -1
    assert (found.history.labels[:, 1] == 0).all()
    assert [one.node for one in found.false_alarms] == ["alpha"]
    assert found.events == {"incidents": 1}


def test_a_candidate_that_alarms_where_there_was_nothing_is_found_out():
    made = small_bundle.build()
    values = np.array(made.history.values)
    values[300:320, 0] *= 4.0
    history = replace(made.history, values=values)
    loud, quiet = (at(history, start, start + 20, "alpha", FALSE_ALARM) for start in (300, 200))
    gone = Verdict(1.0, 2.0, "alpha", FALSE_ALARM)
    other = at(history, 10, 20, "nobody", FALSE_ALARM)
    found = replay_false_alarms(made.bundle(), history, [gone, quiet, loud, other], ignore_report)
    assert found.tested == 2
    assert found.untested == 2
    assert found.alarmed == (str(loud),)


def test_of_too_many_false_alarms_the_latest_are_lived_through(monkeypatch):
    monkeypatch.setattr(regression, "MOST_REPLAYED", 1)
    made = small_bundle.build()
    values = np.array(made.history.values)
    values[300:320, 0] *= 4.0
    history = replace(made.history, values=values)
    quiet, loud = (at(history, start, start + 20, "alpha", FALSE_ALARM) for start in (200, 300))
    found = replay_false_alarms(made.bundle(), history, [quiet, loud], ignore_report)
    assert (found.tested, found.alarmed, found.untested) == (1, (str(loud),), 1)


def test_an_alarm_at_a_real_incident_is_not_held_against_a_candidate():
    made = small_bundle.build()
    values, labels = np.array(made.history.values), np.array(made.history.labels)
    values[300:320, 0] *= 4.0
    verdict = at(made.history, 290, 330, "alpha", FALSE_ALARM)
    alarmed = {}
    for label_there in (0, 1):
        labels[300:330, 0] = label_there
        history = replace(made.history, values=values, labels=labels)
        alarmed[label_there] = replay_false_alarms(made.bundle(), history, [verdict], ignore_report).alarmed
    assert alarmed == {0: (str(verdict),), 1: ()}


@pytest.mark.parametrize("before", [0.0, 0.4], ids=["calm before", "restless before"])
def test_a_false_alarm_is_judged_by_the_trained_threshold_whatever_came_before(before):
    """Hours of lead-in would move the node's own: the verdict is that of a scorer whose threshold stands."""
    made = small_bundle.build()
    past, verdicts = small_bundle.history(2_400), {}
    first = 1500 - longest_window(past.interval_s) - LEAD_IN_TICKS
    for spike in (0.06, 0.08, 0.1, 0.2, 0.4):
        values = np.array(past.values)
        values[1500:1530, 1, 4] += spike
        for tick in range(520, 1480, 60):
            values[tick : tick + 6, 1, 4] += before
        history = replace(past, values=values)
        verdict = at(history, 1500, 1530, history.nodes[1], FALSE_ALARM)
        found = replay_false_alarms(made.bundle(), history, [verdict], ignore_report)
        scorer = NodeScorer(made.bundle(), history.interval_s, history.nodes[1], threshold_update_s=math.inf)
        times = history.timestamps[first:1530].tolist()
        scores = [
            scorer.step(time, row).score for time, row in zip(times, values[first:1530, 1], strict=True)
        ]
        verdicts[spike] = (bool(found.alarmed), bool((raised(np.array(scores)) >= 1500 - first).any()))
    assert all(ours == trained for ours, trained in verdicts.values()), verdicts
    assert {ours for ours, _ in verdicts.values()} == {True, False}, "some are forgiven, some are not"


def test_a_verdict_with_parts_of_a_millisecond_is_the_same_when_it_is_read_back(tmp_path):
    path = tmp_path / "labels.yml"
    verdict = parse_verdict("1750000000.12345", "1750000060.98765", "db-1", "incident", "")
    assert add_verdict(path, verdict) == add_verdict(path, verdict) == read_feedback(path) == (verdict,)
    with pytest.raises(SourceError, match="ends before it starts"):
        parse_verdict("1750000000.0001", "1750000000.0002", "db-1", "incident", "")
