"""What is normal, anomalous, or neither, once everything that is known is put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from fleet_server import (
    CORDONED,
    CRASHING,
    DB,
    DISK_FULL,
    KUBE,
    LOOKBACK,
    REBOOTED,
    START,
    STEP,
    WEB,
    fleet_history,
    fleet_server,
)
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer import labelling
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.labelling import LEAST_NORMAL_TICKS, label
from node_anomaly_trainer.node_names import host_of
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources import fetch

NORMAL, ANOMALOUS, UNKNOWN = 0, 1, -1


@pytest.fixture
def notes():
    return []


@pytest.fixture
def written(tmp_path):
    """Write entries of (first tick, tick after the last, nodes) as an incidents or windows file."""

    def write(name, *entries):
        lines = [
            f"- {{from: {START + STEP * first}, to: {START + STEP * stop}, nodes: {list(nodes)}}}\n"
            for first, stop, *nodes in entries
        ]
        (tmp_path / name).write_text("".join(lines))
        return str(tmp_path / name)

    return write


def config_of(**sections):
    return parse_config({"source": {"type": "file", "file": {"path": "x.csv"}}, **sections})


def column(labelled, node):
    return labelled.history.labels[:, labelled.history.nodes.index(node)]


# --- from a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator:
    with fleet_server(tmp_path_factory.mktemp("fleet")) as running:
        yield running


def on(server, **sections):
    source = {"type": "prometheus", "prometheus": {"url": server.url, "matchers": 'job="node"'}}
    return parse_config({"source": source, **sections})


def test_by_default_alerts_are_incidents_and_reboots_and_cordons_are_left_out(server, notes):
    labelled = label(fleet_history(), on(server, labels={"guard": "0s"}), notes.append)
    db, web, kube = (column(labelled, node) for node in (DB, WEB, KUBE))
    assert (db[DISK_FULL] == ANOMALOUS).all()
    assert (db == ANOMALOUS).sum() == 100
    assert (db != NORMAL).sum() == 100
    np.testing.assert_array_equal(np.flatnonzero(web), np.arange(REBOOTED.start, REBOOTED.stop))
    assert (web[REBOOTED] == UNKNOWN).all()
    assert (kube[CRASHING] == ANOMALOUS).all()
    assert (kube[CORDONED] == UNKNOWN).all()
    assert labelled.events == {"alerts": 2}
    assert labelled.excluded == pytest.approx(
        {"alerts": 140 * STEP / 3600, "reboot": 40 * STEP / 3600, "cordoned": 100 * STEP / 3600}
    )
    assert labelled.lines == (
        (
            "excluded from normal history, of 18.0 node-hours: 0.6 while alerts fired (DiskFull 0.4, "
            "PodCrashing 0.2), 0.2 after a reboot, 0.4 while cordoned"
        ),
        "labels for the Random Forest: 2 events from ALERTS",
    )


def test_a_node_that_goes_by_its_hosts_name_is_known_by_its_exporters_address_too(server, notes):
    """As one whose agent is called by its name and whose node_exporter by its address."""
    labelled = label(fleet_history(("k8s-3",)), on(server, labels={"guard": "0s"}), notes.append)
    named = column(labelled, "k8s-3")
    by_address = label(fleet_history(), on(server, labels={"guard": "0s"}), notes.append)
    np.testing.assert_array_equal(named, column(by_address, KUBE))
    assert (named[CRASHING] == ANOMALOUS).all()


def test_a_history_as_it_was_read_from_the_same_server_is_marked_too(server, notes):
    """Its grid begins elsewhere, and alerts are seen to the minute."""
    span = {"range": "3h", "end": START + STEP * 1_200}
    source = {"url": server.url, "matchers": 'job="node"', **span}
    config = parse_config(
        {
            "source": {"type": "prometheus", "prometheus": source},
            "features": ["memory_available_ratio"],
            "labels": {"guard": "0s"},
        }
    )
    history = fetch(config, ignore_report, notes.append)
    labels = label(history, config, notes.append).history.labels
    at = {host_of(node): number for number, node in enumerate(history.nodes)}
    first = round((history.timestamps[0] - START) / STEP)
    np.testing.assert_array_equal(np.flatnonzero(labels[:, at["db-1"]] == ANOMALOUS) + first, range(481, 501))
    assert (labels[CORDONED.start - first + 4 : CORDONED.stop - first - 4, at["10.0.0.3"]] == UNKNOWN).all()


def test_what_a_person_wrote_down_outranks_what_the_server_tells(server, notes, written):
    """An incident while cordoned is one; an alert in an excluded window is none."""
    config = on(
        server,
        labels={"guard": "0s", "incidents": written("i.yml", (CORDONED.start, CORDONED.start + 10, "k8s-3"))},
        exclusions={"windows": written("w.yml", (DISK_FULL.start, DISK_FULL.stop + LOOKBACK, "db-1"))},
    )
    labelled = label(fleet_history(), config, notes.append)
    assert (column(labelled, KUBE)[CORDONED][:10] == ANOMALOUS).all()
    assert (column(labelled, KUBE)[CORDONED][10:] == UNKNOWN).all()
    assert not (column(labelled, DB) == ANOMALOUS).any()
    assert labelled.events == {"alerts": 1, "incidents": 1}
    assert "labels: alerts fired for 0.4 node-hours of reboots, cordons or windows: excluded" in notes


def test_alerts_can_be_left_out_without_being_incidents_or_ignored_altogether(server, notes):
    config = on(server, labels={"guard": "0s", "alerts": False})
    labelled = label(fleet_history(), config, notes.append)
    assert (column(labelled, DB)[DISK_FULL] == UNKNOWN).all()
    assert labelled.events == {}
    off = {"alerts": False, "cordoned": False, "after_reboot": 0}
    labelled = label(fleet_history(), on(server, exclusions=off), notes.append)
    assert (labelled.history.labels == NORMAL).all()
    assert labelled.lines[0] == "excluded from normal history: nothing"


class LongLives:
    """Answers any query with one alert that fired on web-1 for so many ticks, and remembers the queries."""

    def __init__(self, ticks: int) -> None:
        self.ticks, self.asked = ticks, []

    def query_range(self, query, start, end, step):
        self.asked.append(query)
        times = range(max(start, START + 400 * STEP), min(end, START + (399 + self.ticks) * STEP) + 1, step)
        labels = {"alertname": "Slow", "instance": WEB}
        return [{"metric": labels, "values": [[at, "1"] for at in times]}] if "ALERTS" in query else []


@pytest.mark.parametrize(("hours", "events"), [(23, {"alerts": 1}), (25, {})], ids=str)
def test_an_alert_teaches_what_an_incident_is_unless_it_fired_for_more_than_a_day(
    hours, events, notes, monkeypatch
):
    monkeypatch.setattr(labelling, "PrometheusApi", lambda _config: LongLives(hours * 240))
    source = {"type": "prometheus", "prometheus": {"url": "http://127.0.0.1:9"}}
    labelled = label(fleet_history(ticks=9_600), parse_config({"source": source}), notes.append)
    assert labelled.events == events
    assert (column(labelled, WEB)[400 : 400 + hours * 240] == (ANOMALOUS if events else UNKNOWN)).all()
    assert labelled.excluded["alerts"] == pytest.approx(hours)


def test_a_server_is_not_asked_for_reboots_that_nobody_wants_to_leave_out(notes, monkeypatch):
    api = LongLives(100)
    monkeypatch.setattr(labelling, "PrometheusApi", lambda _config: api)
    source = {"type": "prometheus", "prometheus": {"url": "http://127.0.0.1:9"}}
    config = parse_config({"source": source, "exclusions": {"after_reboot": 0}})
    label(fleet_history(), config, notes.append)
    assert any("ALERTS" in query for query in api.asked)
    assert not any("boot" in line for line in (*api.asked, *notes))


def test_what_a_person_cleared_is_not_counted_as_excluded(server, notes, tmp_path):
    start, stop = (START + STEP * tick for tick in (DISK_FULL.start, DISK_FULL.start + 40))
    feedback = tmp_path / "labels.yml"
    feedback.write_text(f"- {{from: {start}, to: {stop}, node: db-1, verdict: false-alarm}}\n")
    config = on(server, labels={"guard": "0s", "feedback": str(feedback)})
    labelled = label(fleet_history(), config, notes.append)
    assert (column(labelled, DB)[DISK_FULL][:40] == NORMAL).all()
    assert labelled.excluded["alerts"] == pytest.approx((140 - 40) * STEP / 3600)


def test_an_incident_in_an_excluded_window_is_not_told_again_as_the_alert_that_fired_at_it(
    server, notes, written
):
    where = (DISK_FULL.start, DISK_FULL.stop + LOOKBACK, "db-1")
    config = on(
        server,
        labels={"incidents": written("i.yml", where)},
        exclusions={"windows": written("w.yml", where)},
    )
    label(fleet_history(), config, notes.append)
    assert "labels: 0.4 node-hours are in an incident and in an excluded window: excluded" in notes
    assert not any("of reboots, cordons or windows" in note for note in notes)


# --- from files


def test_an_incident_that_somebody_wrote_down_stands_where_another_called_it_a_false_alarm(
    notes, written, tmp_path
):
    feedback = tmp_path / "labels.yml"
    start, stop = START + STEP * 100, START + STEP * 120
    feedback.write_text(f"- {{from: {start}, to: {stop}, node: db-1, verdict: false-alarm}}\n")
    files = {"incidents": written("i.yml", (110, 130, "db-1")), "feedback": str(feedback)}
    db = column(label(fleet_history(), config_of(labels={"guard": "60s", **files}), notes.append), DB)
    assert (db[100:110] == NORMAL).all()
    assert (db[110:130] == ANOMALOUS).all()


def test_a_history_that_nobody_labelled_is_normal(notes):
    labelled = label(fleet_history(), config_of(), notes.append)
    assert (labelled.history.labels == NORMAL).all()
    assert labelled.lines[1] == "labels for the Random Forest: no event known, so injected faults"


def test_where_somebody_called_ticks_normal_the_unknown_ones_stay_out(notes):
    labels = np.full((1_440, 3), NORMAL, dtype=np.int8)
    labels[100:140, 0] = UNKNOWN
    labels[200:220, 1] = ANOMALOUS
    history = replace(fleet_history(), labels=labels)
    labelled = label(history, config_of(labels={"guard": "0s"}), notes.append)
    np.testing.assert_array_equal(labelled.history.labels, labels)
    assert labelled.excluded == pytest.approx({"labels": 60 * STEP / 3600})
    assert labelled.events == {"labels": 1}


def test_where_only_incidents_were_labelled_the_rest_is_normal(notes):
    labels = np.full((1_440, 3), UNKNOWN, dtype=np.int8)
    labels[200:220, 1] = ANOMALOUS
    labelled = label(replace(fleet_history(), labels=labels), config_of(labels={"guard": "0s"}), notes.append)
    np.testing.assert_array_equal(labelled.history.labels, np.where(labels == UNKNOWN, NORMAL, labels))


def test_overlaps_of_files_are_told_and_windows_win(notes, written):
    config = config_of(
        labels={"guard": "150s", "incidents": written("i.yml", (100, 200, "web-1"))},
        exclusions={"windows": written("w.yml", (150, 300))},
    )
    labelled = label(fleet_history(), config, notes.append)
    web = column(labelled, WEB)
    assert (web[100:150] == ANOMALOUS).all()
    assert (web[150:300] == UNKNOWN).all()
    assert (web[90:100] == UNKNOWN).all()
    assert (column(labelled, DB)[150:300] == UNKNOWN).all()
    assert notes == ["labels: 0.2 node-hours are in an incident and in an excluded window: excluded"]
    assert labelled.excluded["guard"] == pytest.approx(10 * STEP / 3600)


def test_only_hours_with_samples_count(notes, written):
    history = fleet_history()
    values = np.array(history.values)
    values[:120] = np.nan
    config = config_of(exclusions={"windows": written("w.yml", (0, 240, "db-1"))})
    labelled = label(replace(history, values=values), config, notes.append)
    assert labelled.excluded == {"windows": 0.5}


def test_an_alert_that_stands_for_more_than_a_day_is_left_out_but_teaches_nothing(notes):
    from node_anomaly_trainer.labelling import _short

    history = fleet_history(("a",), 10_000)
    mask = np.zeros((10_000, 1), dtype=bool)
    mask[10:20] = mask[1_000:8_000] = True
    np.testing.assert_array_equal(np.flatnonzero(_short(mask, history)), np.arange(10, 20))


def test_a_node_of_which_too_little_is_left_is_dropped_and_named(notes, written):
    config = config_of(exclusions={"windows": written("w.yml", (LEAST_NORMAL_TICKS - 1, 1_440, "db-1"))})
    labelled = label(fleet_history(), config, notes.append)
    assert labelled.history.nodes == (KUBE, WEB)
    assert notes == [f"exclusions: fewer than 240 normal ticks to fit on, left out: {DB}"]


@pytest.mark.parametrize(
    ("there", "case"),
    [(slice(1_200, 1_440), "new"), (slice(0, 10), "gone"), (slice(0, 0), "never there")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_that_is_hardly_in_the_part_that_is_fitted_is_not_known_to_the_bundle(there, case, notes):
    """A baseline of ten ticks would make a known node of it, all of whose life is odd."""
    history = fleet_history()
    values = history.values.copy()
    values[:, 1] = np.nan
    values[there, 1] = 0.5
    labelled = label(replace(history, values=values), config_of(), notes.append)
    assert labelled.history.nodes == (KUBE, WEB)
    (said,) = notes
    assert said.startswith("fewer than 240 ticks with a sample in the part that is fitted on, left out")
    assert said.endswith(f"their agents score as nodes that the bundle does not know): {DB}")


def test_a_fleet_that_is_new_in_its_range_is_told_so(notes):
    history = fleet_history()
    values = np.where((np.arange(1_440) < 1_000)[:, None, None], np.nan, history.values)
    with pytest.raises(TrainingError, match="none of 3 nodes has 240 ticks with a sample until 2026-01-05"):
        label(replace(history, values=values), config_of(), notes.append)


def test_if_nothing_normal_is_left_the_error_says_where_to_look(written, notes):
    config = config_of(exclusions={"windows": written("w.yml", (0, 1_440))})
    with pytest.raises(TrainingError, match="leave none of 3 nodes") as caught:
        label(fleet_history(), config, notes.append)
    assert "exclusions.alert_matchers" in caught.value.hint


def test_a_node_that_is_normal_only_after_the_part_to_fit_on_is_dropped(notes, written):
    config = config_of(exclusions={"windows": written("w.yml", (100, 1_100, "db-1"))})
    assert label(fleet_history(), config, notes.append).history.nodes == (KUBE, WEB)
