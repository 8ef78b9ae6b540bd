"""`anomaly-trainer validate`: one line per dependency, and what to do about each problem."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from fleet_server import START, STEP, TICKS, fleet_server
from node_anomaly_trainer.commands import app
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.validate import check_publish, check_tensorflow, validate
from node_anomaly_trainer.validate_server import check_skew


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator:
    with fleet_server(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.fixture
def checked(tmp_path):
    """The checks of a configuration by name, with TensorFlow taken for present."""

    def run(environ=None, **sections) -> dict:
        path = tmp_path / "c.yml"
        path.write_text(yaml.safe_dump({"publish": {"directory": str(tmp_path / "out")}, **sections}))
        found = list(validate(path, environ or {}, lambda: SimpleNamespace(__version__="9.9")))
        assert all(check.fix for check in found if check.status == "problem")
        return {check.name: check for check in found}

    return run


def source(url: str, **settings) -> dict:
    server = {"url": url, "matchers": 'job="node"', "range": "5h", "end": START + STEP * (TICKS - 1)}
    return {"type": "prometheus", "prometheus": server | settings}


# --- a real server


def test_a_server_that_has_everything_passes_line_by_line(checked, server):
    checks = checked(source=source(server.url), features=["memory_available_ratio"])
    assert {name: check.status for name, check in checks.items()} == dict.fromkeys(
        [
            "configuration",
            "memory",
            "prometheus",
            "clock",
            "scrapes",
            "features",
            "retention",
            "exclusions",
            "publish",
            "tensorflow",
            "publish.key_file",
            "mlflow",
        ],
        "ok",
    )
    assert "answers, version " in checks["prometheus"].detail
    assert "1 of 1 have series at 2026-01-05T05:59:45Z, on up to 3 nodes" in checks["features"].detail
    assert checks["exclusions"].detail == (
        "found ALERTS, node_boot_time_seconds, kube_node_spec_unschedulable"
    )
    assert checks["tensorflow"].detail == "9.9"


def test_a_node_that_two_jobs_scrape_is_a_problem_with_what_would_choose_one(checked, server):
    checks = checked(source=source(server.url, matchers='job=~"node.*"'))
    assert checks["duplicates"].status == "problem"
    assert checks["duplicates"].detail == (
        "scraped more than once: db-1:9100: node_memory_MemTotal_bytes of db-1:9100 has 2 series that differ "
        "in job (node, node-copy); sums over devices would count double"
    )
    assert checks["duplicates"].fix.endswith('for example: job=~"node.*",job!="node-copy"')


def test_features_without_series_are_named(checked, server):
    checks = checked(source=source(server.url), features=["memory_available_ratio", "forks_per_second"])
    assert checks["features"].status == "note"
    assert "1 of 2" in checks["features"].detail
    assert "none for forks_per_second" in checks["features"].detail


def test_an_own_feature_whose_query_gives_nothing_is_a_problem_with_its_query(checked, server, tmp_path):
    own = [
        {
            "name": name,
            "unit": "bytes",
            "help": "Memory.",
            "kind": "gauge",
            "floor": 1,
            "promql": f"max by (instance) ({metric})",
            "source": {"exporter": "node_exporter", "metric": metric},
        }
        for name, metric in (("good_bytes", "node_memory_MemTotal_bytes"), ("bad_bytes", "no_such_bytes"))
    ]
    (tmp_path / "own.yml").write_text(yaml.safe_dump({"features": own}))
    checks = checked(
        source=source(server.url),
        own_features=str(tmp_path / "own.yml"),
        features=["memory_available_ratio", "good_bytes", "bad_bytes"],
    )
    assert [name for name, check in checks.items() if check.status == "problem"] == ["own feature bad_bytes"]
    assert "max by (instance) (no_such_bytes)" in checks["own feature bad_bytes"].detail


def test_wrong_matchers_are_a_problem_that_names_the_jobs(checked, server):
    checks = checked(source=source(server.url, matchers='job="nodes"'))
    assert checks["features"].status == "problem"
    assert "it scrapes node;" in checks["features"].fix
    assert "agents" not in checks["features"].detail, "nothing has them"
    assert "retention" not in checks


def test_a_range_that_begins_before_the_data_is_a_problem_with_the_range_that_fits(checked, server):
    check = checked(source=source(server.url, range="10d"), features=["memory_available_ratio"])["retention"]
    assert check.status == "problem"
    assert "the range begins 9." in check.detail
    assert "set source.prometheus.range: " in check.fix


def test_less_history_than_a_run_needs_is_said_before_the_run(checked, server):
    """As on the first day of a Prometheus: a shorter range would not help."""
    half_an_hour = source(server.url, end=START + 1800)
    check = checked(source=half_an_hour, features=["memory_available_ratio"])["retention"]
    assert check.status == "problem"
    assert "a run needs 4.2 h (1000 ticks of 15 s)" in check.detail
    assert "wait until there is as much" in check.fix


def test_an_interval_shorter_than_the_scrapes_is_a_problem_with_one_that_fits(checked, server):
    check = checked(source=source(server.url), interval="5s", features=["memory_available_ratio"])["scrapes"]
    assert check.status == "problem"
    assert check.fix == "set interval: 10s"


def test_a_query_that_the_server_refuses_is_a_problem(checked, server):
    checks = checked(source=source(server.url), exclusions={"alert_matchers": "severity=page"})
    assert "rejected the query" in checks["prometheus"].detail


def test_the_command_exits_with_0_and_1_and_speaks_json(server, tmp_path):
    path = tmp_path / "c.yml"
    settings = {
        "source": source(server.url),
        "models": {"enabled": ["isolation_forest"]},
        "publish": {"directory": str(tmp_path / "out")},
    }
    path.write_text(yaml.safe_dump(settings))
    runner = CliRunner(env={"MLFLOW_TRACKING_URI": "", "PROMETHEUS_URL": ""})
    done = runner.invoke(app, ["validate", "--config", str(path), "--output", "json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["ok"] is True
    assert {"name", "status", "detail", "fix"} == set(report["checks"][0])
    settings["publish"]["directory"] = "/proc/none"
    path.write_text(yaml.safe_dump(settings))
    done = runner.invoke(app, ["validate", "--config", str(path)])
    assert done.exit_code == 1
    assert "problem publish: cannot write to /proc" in done.output
    assert "-> choose a writable directory" in done.output


# --- the rest


def test_a_wrong_configuration_is_the_only_line(checked):
    checks = checked(intervall=3)
    assert list(checks) == ["configuration"]
    assert checks["configuration"].status == "problem"


def test_a_server_that_is_not_there_is_one_problem(checked, free_port):
    checks = checked(source=source(f"http://127.0.0.1:{free_port}", retries=0))
    assert checks["prometheus"].status == "problem"
    assert "cannot be reached" in checks["prometheus"].detail
    assert "features" not in checks


def test_files_are_read(checked, tmp_path):
    (tmp_path / "data.csv").write_text("timestamp\n")
    (tmp_path / "i.yml").write_text("- {from: 1, to: 2}\n")
    (tmp_path / "w.yml").write_text("- {from: 2, to: 1}\n")
    checks = checked(
        source={"type": "file", "file": {"path": str(tmp_path / "data.csv")}},
        labels={"incidents": str(tmp_path / "i.yml")},
        exclusions={"windows": str(tmp_path / "w.yml")},
    )
    assert checks["file"].status == checks["labels.incidents"].status == "ok"
    assert "incident 1 ends before it starts" in checks["exclusions.windows"].detail
    checks = checked(source={"type": "file", "file": {"path": "gone.csv"}})
    assert checks["file"].status == "problem"


def test_publish_tells_where_there_is_no_room_and_leaves_nothing_behind(tmp_path):
    check = check_publish(tmp_path / "a" / "b", 5)
    assert check.status == "ok"
    assert "will be created" in check.detail
    assert list(tmp_path.iterdir()) == []
    assert "are needed" in check_publish(tmp_path, 10**9).detail


def test_tensorflow_is_needed_for_the_lstm_only():
    def broken():
        raise ImportError("No module named 'tensorflow'")

    check = check_tensorflow(parse_config({}), broken)
    assert check.status == "problem"
    assert "pip install '.[trainer]'" in check.fix
    assert (
        check_tensorflow(parse_config({"models": {"enabled": ["isolation_forest"]}}), broken).status == "ok"
    )


@pytest.mark.parametrize(
    ("skew", "status"), [(0.2, "ok"), (-4.9, "ok"), (90.0, "problem"), (-9.0, "problem")]
)
def test_clocks_may_differ_by_a_little(skew, status):
    check = check_skew(skew, 5.0)
    assert check.status == status
    assert ("ahead of" if skew > 0 else "behind") in check.detail
