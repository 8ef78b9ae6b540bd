"""When nodes were not themselves: what a real Prometheus tells, and what is said where it tells nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fleet_server import (
    CORDONED,
    CRASHING,
    DB,
    DISK_FULL,
    KUBE,
    LOOKBACK,
    NODES,
    REBOOTED,
    START,
    STEP,
    WEB,
    fleet_history,
    fleet_server,
    server_config,
)
from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import ExclusionConfig
from node_anomaly_trainer.exclusions import ServerHistory, selector
from node_anomaly_trainer.node_names import NodeNames, host_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator:
    with fleet_server(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
def notes():
    return []


@pytest.fixture
def asked(server, notes):
    config = server_config(server)
    return ServerHistory(PrometheusApi(config), fleet_history(), config.matchers, notes.append)


def only(**ranges) -> np.ndarray:
    """A mask of the fleet that is True within the given ticks of db, web and kube."""
    mask = np.zeros((fleet_history().ticks, len(NODES)), dtype=bool)
    for name, node in (("db", DB), ("web", WEB), ("kube", KUBE)):
        if name in ranges:
            mask[ranges[name], NODES.index(node)] = True
    return mask


def seen(ticks: slice) -> slice:
    return slice(ticks.start, ticks.stop + LOOKBACK)


# --- a real server


def test_firing_alerts_mark_the_node_they_name_by_address_or_by_host_name(asked):
    """Pending alerts, those that always fire and those of the score itself mark nothing."""
    found = asked.firing(ExclusionConfig())
    np.testing.assert_array_equal(found.mask, only(db=seen(DISK_FULL), kube=seen(CRASHING)))
    assert list(found.hours) == ["DiskFull", "PodCrashing"]
    assert found.hours["DiskFull"] == pytest.approx(100 * STEP / 3600)


def test_alerts_of_no_node_are_told(asked, notes):
    asked.firing(ExclusionConfig(alert_matchers='alertname!="NodeAnomalous"'))
    (note,) = notes
    assert "TargetDown (gone:9100)" in note
    assert "Watchdog" in note


def test_matchers_choose_the_alerts(asked):
    found = asked.firing(ExclusionConfig(alert_matchers='severity="page"'))
    np.testing.assert_array_equal(found.mask, only(db=seen(DISK_FULL)))


def test_a_reboot_counts_however_long_the_node_was_away_and_a_corrected_clock_does_not(asked, notes):
    np.testing.assert_array_equal(asked.rebooted(600.0).mask, only(web=REBOOTED))
    assert notes == []


def test_cordons_find_the_instance_by_its_host_name(asked, notes):
    np.testing.assert_array_equal(asked.cordoned().mask, only(kube=CORDONED))
    assert notes == ["exclusions: cordoned node of no node in the history: k8s-9"]


def test_a_bad_matcher_is_one_clear_error(asked):
    with pytest.raises(SourceError, match="rejected the query"):
        asked.firing(ExclusionConfig(alert_matchers="severity=page"))


# --- a server that says little


class FakeApi:
    """Answers every query from a list of series, and remembers what it was asked."""

    def __init__(self, **series):
        self.series, self.asked = series, []

    def query_range(self, query, start, end, step):
        self.asked.append((query, start, end, step))
        return next((found for name, found in self.series.items() if name in query), [])


def firing(alertname: str, instance: str, ticks: range) -> dict:
    labels = {"alertname": alertname, "instance": instance}
    return {"metric": labels, "values": [[START + STEP * tick, "1"] for tick in ticks]}


def test_absent_metrics_exclude_nothing_and_are_said_once(notes):
    asked = ServerHistory(FakeApi(), fleet_history(), "", notes.append)
    for found in (asked.firing(ExclusionConfig()), asked.rebooted(600.0), asked.cordoned()):
        assert not found.mask.any()
    assert len(notes) == 3
    for note, metric in zip(notes, ("ALERTS", "node_boot_time_seconds", "kube_node_spec"), strict=True):
        assert metric in note


def test_an_alert_that_always_fires_everywhere_is_told_with_the_setting_that_leaves_it_out(notes):
    api = FakeApi(ALERTS=[firing("TooHot", node, range(0, 1_440, 4)) for node in NODES[:2]])
    ServerHistory(api, fleet_history(), "", notes.append).firing(ExclusionConfig())
    (note,) = notes
    assert "TooHot fired for 67% of all node-hours" in note
    assert "exclusions.alert_matchers" in note


def test_a_long_range_is_asked_for_in_pieces_that_share_no_second(notes):
    api = FakeApi()
    ServerHistory(api, fleet_history(NODES[:1], 100_001), "", notes.append).cordoned()
    pieces = [(start, end, step) for query, start, end, step in api.asked if "unschedulable ==" in query]
    points = [at for start, end, step in pieces for at in range(start, end + 1, step)]
    assert points == list(range(START, START + 100_001 * STEP, 60))
    assert all((end - start) // step < 11_000 for start, end, step in pieces)


def test_an_alert_of_a_host_takes_the_hours_of_all_its_nodes(notes):
    api = FakeApi(ALERTS=[firing("DiskFull", "db-1", range(0, 240, 4))])
    history = fleet_history(("db-1:9100", "db-1:9256", WEB))
    found = ServerHistory(api, history, "", notes.append).firing(ExclusionConfig())
    assert found.mask[:240, :2].all()
    assert found.mask.sum() == 2 * 240
    assert found.hours == {"DiskFull": pytest.approx(2 * 240 * STEP / 3600)}


def test_points_from_before_the_range_mark_nothing_at_its_end(notes):
    """A server that aligns a range to its step answers with some."""
    api = FakeApi(ALERTS=[firing("DiskFull", DB, range(-8, 4, 4))])
    found = ServerHistory(api, fleet_history(), "", notes.append).firing(ExclusionConfig())
    np.testing.assert_array_equal(found.mask, only(db=slice(0, 4)))
    assert found.hours == {"DiskFull": pytest.approx(4 * STEP / 3600)}


def test_of_many_alerts_of_no_node_eight_are_named_and_the_others_are_counted(notes):
    api = FakeApi(ALERTS=[firing(f"Alert{number}", "gone:9100", range(4)) for number in range(11)])
    ServerHistory(api, fleet_history(), "", notes.append).firing(ExclusionConfig())
    told = ", ".join(f"Alert{number} (gone:9100)" for number in range(8))
    assert notes[-1] == f"exclusions: alert of no node in the history: {told} and 3 more"


def test_samples_that_cannot_be_read_are_an_error(notes):
    api = FakeApi(ALERTS=[{"metric": {"instance": DB}, "values": [[None, "1"]]}])
    with pytest.raises(SourceError, match="cannot be read"):
        ServerHistory(api, fleet_history(), "", notes.append).firing(ExclusionConfig())


# --- names


def test_a_name_finds_its_node_with_and_without_the_port_and_by_an_alias():
    names = NodeNames(("db-1:9100", "db-1:9256", "[::1]:9100", "plain"), [("plain", "k8s-7"), ("gone", "x")])
    assert names.find("db-1:9256") == (1,)
    assert names.find("db-1") == names.find("db-1:9117") == (0, 1)
    assert names.find("[::1]") == (2,)
    assert names.find("k8s-7") == (3,)
    assert names.find("x") == names.find("") == ()
    assert NodeNames(("10.0.0.3",), [("10.0.0.3:9100", "k8s-3")]).find("k8s-3") == (0,)
    assert names.find_labels({"node": "x", "instance": "plain"}, ("node", "instance")) == (3,)
    assert host_of("::1") == "::1"


def test_selectors_leave_out_empty_matchers():
    assert selector("up", "", ' job="node", ') == 'up{job="node"}'
    assert selector("up") == "up"
