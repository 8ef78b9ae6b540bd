"""The example configuration of Alertmanager: accepted, routed, and inhibiting as it says."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rig

CONFIG = rig.REPOSITORY / "rules" / "alertmanager.example.yml"


def amtool(*arguments: str | Path) -> str:
    command = [str(rig.need(rig.AMTOOL)), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_accepts_it() -> None:
    assert "SUCCESS" in amtool("check-config", CONFIG)


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=NodeAnomalousWithSymptom", "severity=critical"), "on-call"),
        (("alertname=FleetAnomalousWithSymptoms", "severity=critical"), "on-call"),
        (("alertname=NodeAnomalous", "severity=warning"), "operators"),
        (("alertname=NodeAnomalyOutgrown", "severity=warning"), "operators"),
        (("alertname=FleetAnomalous", "severity=warning"), "operators"),
        (("alertname=AnomalySpike", "severity=warning"), "operators"),
        (("alertname=NodeSaturationForecast", "severity=warning"), "operators"),
        (("alertname=NodeAnomalyForecast", "severity=info"), "nobody"),
        (("alertname=AnomalyAgentDown", "severity=warning"), "owners-of-node-anomaly"),
        (("alertname=SomethingElse", "severity=critical"), "operators"),
    ],
    ids=lambda value: value[0].split("=")[1] if isinstance(value, tuple) else value,
)
def test_an_alert_reaches_the_receiver(labels: tuple[str, ...], receiver: str) -> None:
    amtool("config", "routes", "test", f"--config.file={CONFIG}", f"--verify.receivers={receiver}", *labels)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Service]:
    with rig.alertmanager(tmp_path_factory.mktemp("alertmanager"), CONFIG) as running:
        yield running


def inhibited(server: rig.Service, job: str, *alerts: dict[str, str]) -> set[str]:
    """Of these alerts, all of one job, which ones Alertmanager holds back: alertname and instance."""
    body = json.dumps([{"labels": {"job": job, **labels}} for labels in alerts]).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/api/v2/alerts", body, headers), timeout=5)
    before: set[str] | None = None
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        _, text = rig.fetch(f"{server.url}/api/v2/alerts?filter=job%3D%22{job}%22")
        seen: list[dict[str, Any]] = json.loads(text)
        now = {
            " ".join((alert["labels"]["alertname"], alert["labels"].get("instance", ""))).strip()
            for alert in seen
            if alert["status"]["inhibitedBy"]
        }
        if len(seen) == len(alerts) and now == before:
            return now
        before = now
        time.sleep(0.2)
    pytest.fail(f"Alertmanager did not settle: {before}")


def test_the_fleet_stands_for_its_nodes_but_not_for_one_that_suffers(alertmanager: rig.Service) -> None:
    held = inhibited(
        alertmanager,
        "fleet",
        {"alertname": "FleetAnomalous", "severity": "warning"},
        {"alertname": "NodeAnomalous", "severity": "warning", "instance": "a"},
        {"alertname": "NodeAnomalyOutgrown", "severity": "warning", "instance": "d"},
        {"alertname": "NodeGroupAnomalous", "severity": "warning", "group": "web"},
        {"alertname": "NodeAnomalousWithSymptom", "severity": "critical", "instance": "b"},
        {"alertname": "AnomalySpike", "severity": "warning"},
        {"alertname": "AnomalyAgentDown", "severity": "warning", "instance": "c"},
    )
    assert held == {"NodeAnomalous a", "NodeAnomalyOutgrown d", "NodeGroupAnomalous", "AnomalySpike"}


def test_a_suffering_fleet_is_one_page(alertmanager: rig.Service) -> None:
    held = inhibited(
        alertmanager,
        "outage",
        {"alertname": "FleetAnomalousWithSymptoms", "severity": "critical"},
        {"alertname": "FleetAnomalous", "severity": "warning"},
        {"alertname": "NodeAnomalous", "severity": "warning", "instance": "a"},
        {"alertname": "NodeAnomalyOutgrown", "severity": "warning", "instance": "b"},
        {"alertname": "NodeAnomalousWithSymptom", "severity": "critical", "instance": "a"},
    )
    assert held == {
        "FleetAnomalous",
        "NodeAnomalous a",
        "NodeAnomalyOutgrown b",
        "NodeAnomalousWithSymptom a",
    }


def test_a_group_stands_for_its_own_nodes_only(alertmanager: rig.Service) -> None:
    held = inhibited(
        alertmanager,
        "groups",
        {"alertname": "NodeGroupAnomalous", "severity": "warning", "group": "web"},
        {"alertname": "NodeAnomalous", "severity": "warning", "instance": "web-1", "group": "web"},
        {"alertname": "NodeAnomalyOutgrown", "severity": "warning", "instance": "web-2", "group": "web"},
        {"alertname": "NodeAnomalous", "severity": "warning", "instance": "db-1", "group": "db"},
        {"alertname": "NodeAnomalous", "severity": "warning", "instance": "lone"},
    )
    assert held == {"NodeAnomalous web-1", "NodeAnomalyOutgrown web-2"}


def test_another_fleet_and_another_node_are_not_held_back(alertmanager: rig.Service) -> None:
    held = inhibited(
        alertmanager,
        "apart",
        {"alertname": "NodeAnomalousWithSymptom", "severity": "critical", "instance": "a"},
        {"alertname": "NodeAnomalous", "severity": "warning", "instance": "a"},
        {"alertname": "NodeAnomalous", "severity": "warning", "instance": "b"},
        {"alertname": "AnomalyAgentNotEvaluating", "severity": "warning", "instance": "c"},
        {"alertname": "AnomalyPipelineErrors", "severity": "warning", "instance": "c"},
        {"alertname": "AnomalyPipelineErrors", "severity": "warning", "instance": "d"},
    )
    assert held == {"NodeAnomalous a", "AnomalyPipelineErrors c"}


def test_the_fleet_of_one_cluster_holds_nothing_back_in_another(alertmanager: rig.Service) -> None:
    suffers = {"alertname": "NodeAnomalousWithSymptom", "severity": "critical"}
    held = inhibited(
        alertmanager,
        "clusters",
        {"alertname": "FleetAnomalousWithSymptoms", "severity": "critical", "cluster": "a"},
        suffers | {"instance": "db-1", "cluster": "a"},
        suffers | {"instance": "db-2", "cluster": "b"},
    )
    assert held == {"NodeAnomalousWithSymptom db-1"}
