"""The dashboards as they ship: generated, well formed, and every query answered by a real Prometheus."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

import agent_bundle
import known_metrics
import rig
from bundle_server import BundleServer
from moving_host import moving_host
from node_anomaly_agent.distribution_status import DistributionStatus, ShadowStatus, distribution_families
from node_anomaly_agent.families import TEXT, render
from node_anomaly_agent.selftest_status import SelfTestStatus, selftest_families

pytestmark = pytest.mark.timeout(900)  # the first test waits for a quiet time and an alarm

FOLDER = rig.REPOSITORY / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))
PAGES: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}
VALUES = {
    "$__rate_interval": "10s",
    "$__range": "30s",
    "$job": ".+",
    "$instance": ".+",
    "$feature": "cpu_busy_ratio",
}
TICK_S = 0.5
SETTLED_TICKS = 90
"""A node of this bundle is learnt anew at 10, 20, 40, 80 and 160 ticks: a disturbance just before one of
them would soon be taken for its life, while the panels and the alert ask for a node that is in alarm."""

BUNDLE_CHANGED = "changes(anomaly_model_trained_timestamp_seconds[2m]) > 0"
ALARM = 'ALERTS{alertname="NodeAnomalousWithSymptom",alertstate="firing"}'


def panels(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Those with queries."""
    return [panel for panel in page["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Asked:
    """One query: where it stands, what it asks, and whether for the last value only."""

    place: str
    expr: str
    instant: bool


def queries() -> list[Asked]:
    """Of every panel and annotation."""
    found = []
    for name, page in PAGES.items():
        for panel in panels(page):
            for target in panel["targets"]:
                place = f"{name}: {panel['title']} {target['refId']}"
                found.append(Asked(place, filled(target["expr"]), bool(target.get("instant"))))
    marks = PAGES["overview"]["annotations"]["list"]
    return found + [
        Asked(f"annotation: {mark['name']}", filled(mark["expr"]), instant=False) for mark in marks
    ]


def filled(expr: str) -> str:
    """The expression with its variables replaced."""
    for variable, value in VALUES.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr, expr
    return expr


class TestFiles:
    def test_they_are_what_the_code_builds(self) -> None:
        command = [sys.executable, "-m", "dashboards.build", "--check"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=rig.REPOSITORY, timeout=60
        )
        assert done.returncode == 0, done.stderr

    def test_the_four_have_their_own_names_and_lead_to_each_other_and_to_runbooks(self) -> None:
        uids = {page["uid"] for page in PAGES.values()}
        assert uids == {f"node-anomaly-{name}" for name in PAGES}
        assert len(uids) == 4
        runbooks = yaml.safe_load((rig.REPOSITORY / "rules" / "settings.yml").read_text())["runbooks"]
        for page in PAGES.values():
            there = {link["url"] for link in page["links"]}
            assert there == {f"/d/{uid}" for uid in uids - {page["uid"]}} | {runbooks}

    def test_every_link_on_data_leads_to_a_dashboard_or_a_runbook(self) -> None:
        uids = {page["uid"] for page in PAGES.values()}
        urls = re.findall(r'"url": "([^"]+)"', "".join(path.read_text() for path in FILES))
        for url in urls:
            assert url.startswith("https://runbooks.") or re.match(r"/d/([\w-]+)", url)[1] in uids  # type: ignore[index]

    @pytest.mark.parametrize("name", PAGES)
    def test_each_has_variables_for_source_job_and_node_and_marks_episodes_and_bundles(
        self, name: str
    ) -> None:
        page = PAGES[name]
        variables = {variable["name"]: variable for variable in page["templating"]["list"]}
        assert {"datasource", "job", "instance"} <= variables.keys()
        assert variables["datasource"]["type"] == "datasource"
        assert "allValue" not in variables["job"], "every process that Prometheus scrapes would be an agent"
        assert {mark["name"] for mark in page["annotations"]["list"]} == {"Episodes", "Bundle changes"}

    @pytest.mark.parametrize("name", PAGES)
    def test_each_panel_has_an_id_a_place_a_unit_a_description_and_the_variable_source(
        self, name: str
    ) -> None:
        page = PAGES[name]
        ids = [panel["id"] for panel in page["panels"]]
        assert len(set(ids)) == len(ids)
        taken: collections.Counter[tuple[int, int]] = collections.Counter()
        for panel in page["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            taken.update(
                (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
            )
        assert max(taken.values()) == 1, "panels overlap"
        titles = [panel["title"] for panel in panels(page)]
        assert len(set(titles)) >= len(titles) - 1, titles  # a number and a graph may share one
        for panel in panels(page):
            assert panel["description"].endswith("."), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            for target in panel["targets"]:
                assert target["datasource"]["uid"] == "${datasource}"
            if panel["type"] != "table":
                assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]

    def test_every_metric_that_they_name_exists(self) -> None:
        known = known_metrics.known()
        for asked in queries():
            assert not known_metrics.in_expression(asked.expr) - known, asked
        for path in FILES:
            assert not known_metrics.in_text(path.read_text()) - known, path


class Invented(BaseHTTPRequestHandler):
    """Optional parts, with invented figures that the product's own code exposes.

    What a Pushgateway would hold after a run of the trainer, an agent's candidate and its self-test. A real
    candidate may take 0.1 % of a core, and is put away at once where an agent ticks twice a second; a real
    self-test comes ten minutes after the agent is warm.
    """

    def do_GET(self) -> None:
        registries = known_metrics.trainer_registries(time.time() - 60, drifted=5)
        shadow = DistributionStatus((), ShadowStatus("0" * 16, score=0.5))
        families = [*distribution_families(shadow), *selftest_families(SelfTestStatus(1.0, time.time()))]
        candidate = render(families, TEXT)
        body = b"".join(generate_latest(registry) for registry in registries) + candidate.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def hurried_rules(folder: Path) -> list[Path]:
    """The shipped rules, evaluated every second; alerts wait for one, and three held ticks are three."""
    folder.mkdir()
    for name in ("recording.yml", "alerts.yml"):
        text = (rig.REPOSITORY / "rules" / name).read_text()
        text = re.sub(r"^(\s+interval|\s+for): .*$", r"\1: 1s", text, flags=re.MULTILINE)
        (folder / name).write_text(text.replace("[45s]", "[3s]"))
    return [folder / "recording.yml", folder / "alerts.yml"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Service]:
    """A Prometheus that has scraped a real agent, quiet and then in alarm, and the figures of a trainer."""
    folder = tmp_path_factory.mktemp("dashboards")
    tree = BundleServer().start()
    begun = time.time()
    bundles = folder / "state" / "bundles"
    alike: dict[str, Any] = {"interval_s": TICK_S, "nodes": ["db-1"], "alarm_log10p": -2.0}
    agent_bundle.publish(bundles, trained_at=begun - 3.0, **alike)
    better = agent_bundle.make_bundle(folder / "better", trained_at=begun - 1.0, **alike)
    tree.publish(agent_bundle.make_bundle(folder / "first", trained_at=begun - 3.0, **alike), begun - 3.0)
    trainer = ThreadingHTTPServer(("127.0.0.1", 0), Invented)
    Thread(target=trainer.serve_forever, daemon=True).start()
    log = folder / "app.log"
    log.write_text("")
    port = rig.free_port()
    with moving_host(folder / "host") as host:
        command: list[str | Path] = [
            *(sys.executable, "-m", "node_anomaly_agent"),
            f"--interval={TICK_S}s",
            "--node.name=db-1",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--path.procfs={host.root / 'proc'}",
            f"--path.sysfs={host.root / 'sys'}",
            f"--state.directory={folder / 'state'}",
            f"--bundle.url={tree.url}",
            "--bundle.fetch-interval=10s",
            f"--collector.logs.files={log}",
            "--no-collector.logs.journald",
        ]
        jobs = {"anomaly-agent": [port], "anomaly-trainer": [trainer.server_address[1]]}
        rules = hurried_rules(folder / "rules")
        with (
            rig.service("agent", command, port, "/-/healthy", folder) as agent,
            rig.prometheus(folder / "prometheus", jobs, "500ms", rules=rules) as prometheus,
        ):
            try:
                rig.wait_for_query(prometheus, "anomaly_model_trained_timestamp_seconds", 180.0)
                tree.publish(better, begun - 1.0)  # only now is there a change that Prometheus can see
                rig.wait_for_query(prometheus, BUNDLE_CHANGED, 180.0)
                settled = f"anomaly_agent_evaluations_total >= {SETTLED_TICKS}"
                rig.wait_for_query(prometheus, f"anomaly_score < 1 and {settled}", 180.0)
                assert rig.query(prometheus, ALARM) == []
                host.disturb()
                with log.open("a") as file:
                    file.write("something new was said\n")
                rig.wait_for_query(prometheus, ALARM, 180.0)
                rig.wait_for_query(prometheus, "job_feature:anomaly_contribution_in_alarm:avg", 180.0)
            except TimeoutError as error:
                pytest.fail(f"{error}; the agent printed:\n{agent.output()[-4000:]}")
            yield prometheus
    trainer.shutdown()
    trainer.server_close()
    tree.stop()


def ask(server: rig.Service, asked: Asked) -> list[Any]:
    """Its series: now, or over the last two minutes."""
    now = time.time()
    path, parameters = "query", {"query": asked.expr}
    if not asked.instant:
        path = "query_range"
        parameters |= {"start": f"{now - 120:.3f}", "end": f"{now:.3f}", "step": "1"}
    status, body = rig.fetch(f"{server.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
    answer = json.loads(body)
    assert status == 200, answer
    assert answer["status"] == "success", answer
    assert not answer.get("warnings"), answer
    result: list[Any] = answer["data"]["result"]
    return result


@pytest.mark.parametrize("asked", queries(), ids=lambda asked: asked.place)
def test_the_query_has_an_answer(server: rig.Service, asked: Asked) -> None:
    assert ask(server, asked), asked.expr


@pytest.mark.parametrize("name", PAGES)
def test_the_variables_have_values(server: rig.Service, name: str) -> None:
    for variable in PAGES[name]["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert found
            parameters = urllib.parse.urlencode({"match[]": filled(found[1])})
            _, body = rig.fetch(f"{server.url}/api/v1/label/{found[2]}/values?{parameters}")
            assert json.loads(body)["data"], variable


def test_no_rule_failed(server: rig.Service) -> None:
    """With the series of a real agent: a join that finds two of a kind is an error only then."""
    _, body = rig.fetch(f"{server.url}/api/v1/rules")
    rules = [rule for group in json.loads(body)["data"]["groups"] for rule in group["rules"]]
    assert len(rules) > 50
    assert {rule.get("lastError", "") for rule in rules} == {""}
    assert {rule["health"] for rule in rules} == {"ok"}


def test_the_alarm_that_was_seen_names_the_disturbed_features(server: rig.Service) -> None:
    """The shipped rule, evaluated by a real Prometheus, asks it for the reasons."""
    _, body = rig.fetch(f"{server.url}/api/v1/alerts")
    (alert,) = [
        alert
        for alert in json.loads(body)["data"]["alerts"]
        if alert["labels"]["alertname"] == "NodeAnomalousWithSymptom"
    ]
    said = alert["annotations"]["description"]
    assert "processes killed for memory" in said
    assert re.search(r"Reasons: \w+ [\d.]+%, is \S+, expected \S+; \w+ [\d.]+%", said), said
