"""The rules as they ship: generated, valid, each alert seen firing and silent, none without a page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import known_metrics
import rig

RULES = rig.REPOSITORY / "rules"
RUNBOOKS = rig.REPOSITORY / "docs" / "runbooks"
COMMANDS = re.compile(r"\b(anomaly-agent|anomaly-trainer) ((?:--)?[a-z][\w-]+)")
TESTS = sorted((RULES / "tests").glob("*.yml"))


def rules_of(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules_of("alerts.yml")}


CLUSTERS = """
rule_files: [recording.yml, alerts.yml]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: anomaly_score{job="anomaly-agent",instance="node-1",cluster="a"}
        values: 3x20
      - series: >-
          anomaly_feature_value{job="anomaly-agent",instance="node-1",cluster="b",
          feature="filesystem_fullest_ratio"}
        values: 1x20
      - series: anomaly_score{job="anomaly-agent",instance="node-2",cluster="a"}
        values: 3x20
      - series: anomaly_agent_quiet{job="anomaly-agent",instance="node-2",cluster="b"}
        values: 1x20
    alert_rule_test:
      - {eval_time: 4m, alertname: NodeAnomalousWithSymptom, exp_alerts: []}
    promql_expr_test:
      - expr: job:anomaly_nodes_in_alarm:sum
        eval_time: 4m
        exp_samples:
          - {labels: 'job:anomaly_nodes_in_alarm:sum{job="anomaly-agent",cluster="a"}', value: 2}
"""


def run(*command: str | Path) -> str:
    """What the command printed; the test fails with it if the command does."""
    done = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestFiles:
    def test_they_are_what_settings_and_templates_give(self) -> None:
        run(sys.executable, rig.REPOSITORY / "scripts" / "rules.py", "--check")

    def test_promtool_accepts_them(self) -> None:
        run(rig.need(rig.PROMTOOL), "check", "rules", RULES / "recording.yml", RULES / "alerts.yml")

    @pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
    def test_they_do_what_their_tests_say(self, file: Path) -> None:
        run(rig.need(rig.PROMTOOL), "test", "rules", file)

    @pytest.mark.parametrize("part", rig.PROMETHEUSES, ids=lambda part: part.name)
    def test_either_prometheus_loads_them(self, part: rig.Part, tmp_path: Path) -> None:
        shipped = [RULES / "recording.yml", RULES / "alerts.yml"]
        with rig.prometheus(tmp_path, {}, part=part, rules=shipped) as server:
            _, body = rig.fetch(f"{server.url}/api/v1/rules")
        loaded = [rule["name"] for group in json.loads(body)["data"]["groups"] for rule in group["rules"]]
        assert set(loaded) == set(ALERTS) | known_metrics.recorded()

    def test_every_metric_that_they_name_exists(self) -> None:
        known = known_metrics.known()
        for rule in [*rules_of("recording.yml"), *ALERTS.values()]:
            missing = known_metrics.in_expression(rule["expr"]) - known
            assert not missing, f"{rule.get('alert', rule.get('record'))}: {missing}"
        for path in [*RULES.glob("*.yml"), *TESTS]:
            assert not known_metrics.in_text(path.read_text()) - known, path

    def test_recorded_names_have_level_metric_and_operation(self) -> None:
        for name in known_metrics.recorded():
            assert re.fullmatch(
                r"(instance|job|job_group|job_feature|job_resource):anomaly_\w+:[a-z0-9_]+", name
            ), name


@pytest.mark.parametrize("name", ALERTS)
class TestEachAlert:
    def test_it_says_how_bad_what_and_where_to_read_on(self, name: str) -> None:
        rule = ALERTS[name]
        assert rule["labels"] in [{"severity": severity} for severity in ("info", "warning", "critical")]
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f"/{name}.md")
        assert (RUNBOOKS / f"{name}.md").exists()

    def test_one_test_sees_it_fire_with_exact_annotations_and_another_sees_it_silent(self, name: str) -> None:
        expected = [
            case["exp_alerts"]
            for file in TESTS
            for test in yaml.safe_load(file.read_text())["tests"]
            for case in test.get("alert_rule_test", [])
            if case["alertname"] == name
        ]
        assert [] in expected
        fired = [alert for alerts in expected for alert in alerts]
        assert fired
        for alert in fired:
            assert set(alert["exp_annotations"]) == {"summary", "description", "runbook_url"}

    def test_its_page_has_meaning_damage_three_looks_fix_and_silence(self, name: str) -> None:
        page = (RUNBOOKS / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n\n*{ALERTS[name]['labels']['severity']}*. ")
        assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [
            "How bad",
            "What to look at",
            "How to fix",
            "How to silence",
        ]
        looks = page.split("## What to look at")[1].split("## How to fix")[0]
        assert re.findall(r"^\d\. ", looks, re.MULTILINE) == ["1. ", "2. ", "3. "]
        assert f"amtool silence add alertname={name} " in page
        assert looks.strip().startswith("Commands are typed on the machine that it is about")
        assert "[on Kubernetes](../on-call.md)" in looks


def test_only_what_proved_to_foresee_next_to_nothing_is_no_warning() -> None:
    """bench/forecast.py: 2 of 302 events; a message about each forecast would be noise."""
    told = {name for name, rule in ALERTS.items() if rule["labels"]["severity"] == "info"}
    assert told == {"NodeAnomalyForecast"}


class TestPages:
    def test_no_page_is_without_an_alert(self) -> None:
        assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)

    def test_every_metric_setting_and_link_that_they_name_exists(self) -> None:
        known = known_metrics.known()
        settings = yaml.safe_load((RULES / "settings.yml").read_text())
        for path in [*RUNBOOKS.glob("*.md"), rig.REPOSITORY / "docs" / "alerting.md"]:
            text = path.read_text()
            assert not known_metrics.in_text(text) - known, path
            for expression in known_metrics.promql_blocks(text):
                assert not known_metrics.in_expression(expression) - known, f"{path}: {expression}"
            for setting in re.findall(r"`(\w+)`(?:[^.`]*`\w+`)*[^.`]* in rules/settings.yml", text):
                assert setting in settings, f"{path}: {setting}"
            for link in re.findall(r"\]\(([^)#:]+)\)", text):
                assert (path.parent / link).exists(), f"{path}: {link}"

    def test_every_command_of_ours_that_they_name_exists(self) -> None:
        said = {
            program: run(sys.executable, "-m", f"node_{program.replace('-', '_')}", "--help")
            for program in ("anomaly-agent", "anomaly-trainer")
        }
        for path in RUNBOOKS.glob("*.md"):
            for program, word in re.findall(
                r"\b(anomaly-agent|anomaly-trainer) ((?:--)?[a-z][\w-]+)", path.read_text()
            ):
                assert re.search(rf"(?<![\w-]){word}\b", said[program]), f"{path}: {program} {word}"


class TestSettings:
    def test_a_name_that_is_not_set_and_one_that_nothing_uses_are_errors(self, tmp_path: Path) -> None:
        script = tmp_path / "scripts" / "rules.py"
        script.parent.mkdir()
        script.write_bytes((rig.REPOSITORY / "scripts" / "rules.py").read_bytes())
        templates = tmp_path / "rules" / "templates"
        templates.mkdir(parents=True)
        (templates / "recording.yml").write_text("groups: [] # @{here}\n")
        (templates / "alerts.yml").write_text("groups: []\n")
        for settings, said in (("{}", "does not have here"), ("{here: 1, idle: 2}", "no template uses idle")):
            (tmp_path / "rules" / "settings.yml").write_text(settings)
            done = subprocess.run(
                [sys.executable, script], check=False, capture_output=True, text=True, timeout=30
            )
            assert done.returncode == 2
            assert said in done.stderr

    def test_runbooks_are_elsewhere_by_one_setting_and_nothing_else_changes(self, tmp_path: Path) -> None:
        to = ("--set", "runbooks=https://wiki.example.org/runbooks", "--output")
        run(sys.executable, rig.REPOSITORY / "scripts" / "rules.py", *to, tmp_path)
        run(sys.executable, rig.REPOSITORY / "scripts" / "kubernetes_rules.py", *to, tmp_path / "rule.yaml")
        base = yaml.safe_load((RULES / "settings.yml").read_text())["runbooks"]
        for name in ("recording.yml", "alerts.yml"):
            moved = (RULES / name).read_text().replace(base, "https://wiki.example.org/runbooks")
            assert (tmp_path / name).read_text() == moved
        groups = yaml.safe_load((tmp_path / "rule.yaml").read_text())["spec"]["groups"]
        urls = {
            rule["annotations"]["runbook_url"]
            for group in groups
            for rule in group["rules"]
            if "alert" in rule
        }
        assert urls == {f"https://wiki.example.org/runbooks/{name}.md" for name in ALERTS}

    def test_nodes_of_several_clusters_are_told_apart_by_two_settings(self, tmp_path: Path) -> None:
        """What fills up or is quiet in one cluster says nothing of a node of that name in another."""
        several = ("--set", "node_labels=job, instance, cluster", "--set", "fleet_labels=job, cluster")
        run(sys.executable, rig.REPOSITORY / "scripts" / "rules.py", *several, "--output", tmp_path)
        (tmp_path / "clusters.yml").write_text(CLUSTERS)
        run(rig.need(rig.PROMTOOL), "test", "rules", tmp_path / "clusters.yml")

    @pytest.mark.parametrize("alarm", ["0.9", "2"])
    def test_another_alarm_level_is_a_number_in_descriptions_too(self, tmp_path: Path, alarm: str) -> None:
        to = ("--set", f"alarm={alarm}", "--output", tmp_path)
        run(sys.executable, rig.REPOSITORY / "scripts" / "rules.py", *to)
        run(rig.need(rig.PROMTOOL), "check", "rules", tmp_path / "alerts.yml")

    @pytest.mark.parametrize("script", ["rules.py", "kubernetes_rules.py"])
    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ("runbook=x", "does not have runbook: did you mean runbooks?"),
            ("runbooks", "expected NAME=VALUE"),
            ("alarm=abc", "expected a number without a unit"),
            ("fleet_share=20%", "expected a number without a unit"),
            ("evaluate=30", "expected a duration"),
            ("budget=0", "expected more than 0"),
            ("job=a|b", "expected the name of one job"),
            ("group_label=node-role", "expected the name of a label"),
            ("runbooks=https://wiki.example.org/", "without a slash at its end"),
            ("node_labels=instance", "expected names of labels"),
        ],
    )
    def test_a_change_of_no_setting_is_refused(
        self, script: str, change: str, said: str, tmp_path: Path
    ) -> None:
        command = [sys.executable, rig.REPOSITORY / "scripts" / script, "--set", change, "--output", tmp_path]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
        assert done.returncode == 2
        assert said in done.stderr
        assert list(tmp_path.iterdir()) == []
