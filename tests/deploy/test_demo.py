"""The demo of compose.yaml, its programs on one stage: they take their command lines and find each other."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import demo
import mlflow_server
import rig

EXPECTED = {"anomaly-agent": "agent", "node": "node-exporter"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[demo.Demo]:
    """With everything running but Grafana, which is not to be had, and what takes minutes or half a GB."""
    with demo.staged(tmp_path_factory.mktemp("demo")) as staged, contextlib.ExitStack() as running:
        for service, program, more in (
            ("node-exporter", [rig.need(rig.NODE_EXPORTER)], ()),
            # On loopback there is no address that it could tell its peers; in the demo it has one.
            ("alertmanager", [rig.need(rig.ALERTMANAGER)], ("--cluster.listen-address=",)),
            ("prometheus", [rig.need(rig.PROMETHEUS_3)], ()),
            ("agent", demo.AGENT, ()),
        ):
            running.enter_context(staged.running(service, program, *more))
        yield staged


def until(what: str, stage: demo.Demo, found: Callable[[], object], seconds: float = 40.0) -> object:
    """What `found` gives as soon as it gives something; fails with every service's log."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ValueError, LookupError):
            if got := found():
                return got
        time.sleep(0.3)
    logs = "\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in stage.folder.glob("*.log"))
    pytest.fail(f"{what} was not seen within {seconds:.0f} s\n{logs}")


def asked(stage: demo.Demo, promql: str) -> dict[str, float]:
    """Prometheus' answer, by job."""
    url = f"http://prometheus:9090/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
    found = json.loads(stage.get(url))["data"]["result"]
    return {one["metric"].get("job", ""): float(one["value"][1]) for one in found}


def test_prometheus_scrapes_the_agent_and_the_exporter_by_their_names(stage: demo.Demo) -> None:
    up = 'up{instance="demo"} == 1'
    until("both targets", stage, lambda: set(asked(stage, up)) == set(EXPECTED))
    known = asked(stage, 'count by (job) (anomaly_feature_value{job="anomaly-agent",instance="demo"})')
    assert known["anomaly-agent"] > 10  # rates are not known yet
    assert asked(stage, 'node_filesystem_size_bytes{mountpoint="/"}').keys() == {"node"}


def test_prometheus_has_the_shipped_rules_and_tells_alertmanager(stage: demo.Demo) -> None:
    said = until("an answer", stage, lambda: stage.get("http://prometheus:9090/api/v1/rules"))
    rules = [rule["name"] for group in json.loads(str(said))["data"]["groups"] for rule in group["rules"]]
    assert {"NodeAnomalous", "instance:anomaly_alarm:bool"} <= set(rules)
    url = "http://prometheus:9090/api/v1/alertmanagers"
    found = until("Alertmanager", stage, lambda: json.loads(stage.get(url))["data"]["activeAlertmanagers"])
    assert "http://alertmanager:9093/" in str(found)
    status = json.loads(stage.get("http://alertmanager:9093/api/v2/status"))
    assert "owners-of-node-anomaly" in status["config"]["original"]


def test_the_agent_looks_for_bundles_where_the_trainer_publishes(stage: demo.Demo) -> None:
    page = until("the agent", stage, lambda: stage.get("http://agent:9917/metrics"))
    assert 'origin="starter"' in str(page)
    target = yaml.safe_load((rig.REPOSITORY / "compose.yaml").read_text())["services"]["agent"]["command"]
    assert "--bundle.directory=/data/bundles" in target
    assert (stage.folder / "volumes" / "trainer-data").is_dir()


def test_the_mlflow_server_knows_every_option() -> None:
    """From where it declares them: to ask it with --help takes ten seconds of imports."""
    program, verb, *options = demo.COMPOSE["services"]["mlflow"]["command"]
    assert (program, verb) == ("mlflow", "server")
    [package] = mlflow_server.need_mlflow().parents[1].glob("lib/python3*/site-packages/mlflow")
    declared = (package / "cli" / "__init__.py").read_text() + (package / "utils" / "cli_args.py").read_text()
    known = set(re.findall(r"\"(--[a-z-]+)[\"/]", declared))
    assert {"--workers", "--gunicorn-opts"} <= known
    assert {option.partition("=")[0] for option in options} <= known


def test_compose_itself_reads_the_file(repository: Path) -> None:
    """Compose checks what the schema cannot: that networks, volumes and dependencies that are named exist."""
    done = subprocess.run(
        [rig.need(rig.COMPOSE), "--file", repository / "compose.yaml", "config", "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    services = json.loads(done.stdout)["services"]
    assert services.keys() == demo.COMPOSE["services"].keys()
    assert services["agent"]["mem_limit"] == str(256 << 20)
    for one in services.values():
        for volume in one.get("volumes", []):
            assert volume["type"] != "bind" or Path(volume["source"]).exists()
