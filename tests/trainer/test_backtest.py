"""A backtest: the scores of a bundle, the shipped rules as Prometheus evaluates them, and what is known."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import rig
from node_anomaly_core.bundle import starter_bundle, verify_bundle
from node_anomaly_core.calibration import held
from node_anomaly_core.errors import ConfigError, TrainingError
from node_anomaly_trainer.backtest import outcome, promtool, run
from node_anomaly_trainer.backtest.promtool import (
    Firing,
    Line,
    find_promtool,
    fired,
    merged,
    notation,
    parsed,
)
from node_anomaly_trainer.backtest.replay import Lived, replay
from node_anomaly_trainer.backtest.report import page
from node_anomaly_trainer.backtest.rules import find_rules, read_rules
from node_anomaly_trainer.backtest.run import backtest
from node_anomaly_trainer.commands import app
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, UNKNOWN, History
from node_anomaly_trainer.predict import Reason
from node_anomaly_trainer.progress import SilentProgress
from node_anomaly_trainer.sources import fetch

NAN = float("nan")
TICK_S = 15.0


@pytest.fixture(scope="module")
def shipped():
    return read_rules(find_rules(None))


@pytest.fixture(scope="module")
def tool():
    rig.need(rig.PROMTOOL)
    return find_promtool(str(rig.find(rig.PROMTOOL)))


# ---------------------------------------------------------------------------------------------------- rules


def test_of_the_shipped_rules_those_are_asked_that_follow_from_scores(shipped):
    assert {"NodeAnomalous", "NodeAnomalousWithSymptom", "FleetAnomalous"} <= set(shipped.alerts)
    assert "AnomalyAgentDown" not in shipped.alerts
    assert "NodeSaturationForecast" not in shipped.alerts, "a line through a resource knows no bundle"
    assert "NodeAnomalyForecast" not in shipped.alerts, "nothing here could raise it"
    assert "anomaly_forecast_score" not in shipped.unknown
    assert "pressure_memory_stalled_ratio" in shipped.features, "a symptom asks for it"
    assert shipped.job == "anomaly-agent"


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("a unless anomaly_score", False),
        ("a unless on (job) (b and anomaly_score) unless c", False),
        ("(a unless on (job) b) and anomaly_score", True),
        ("a unless b or anomaly_score", True),
        ('a unless b{c=~"x or (y"} == anomaly_score', False),
        ("anomaly_score unless on (job) quiet == 1", True),
    ],
)
def test_an_alert_that_the_score_only_silences_is_not_asked(tmp_path, expression, asked):
    (tmp_path / "recording.yml").write_text("groups: []")
    always = "{alert: Always, expr: anomaly_score >= 1}"
    (tmp_path / "alerts.yml").write_text(
        f"groups: [{{name: a, rules: [{always}, {{alert: X, expr: '{expression}'}}]}}]"
    )
    assert ("X" in read_rules(tmp_path).alerts) == asked


@pytest.mark.parametrize(
    ("alerts", "said"),
    [
        ("groups: [{name: a, rules: [{alert: X, expr: up == 0}]}]", "no alert there asks for anomaly_score"),
        ("groups: 3", "not a file of Prometheus rules"),
        ("[", "not a file of Prometheus rules"),
    ],
)
def test_a_directory_without_such_rules_is_refused(tmp_path, alerts, said):
    (tmp_path / "recording.yml").write_text("groups: []")
    (tmp_path / "alerts.yml").write_text(alerts)
    with pytest.raises(ConfigError, match=said):
        read_rules(tmp_path)


def test_a_directory_without_rules_and_a_missing_promtool_say_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"no recording\.yml and alerts\.yml"):
        find_rules(tmp_path)
    with pytest.raises(ConfigError, match="not found") as caught:
        find_promtool("no-such-promtool")
    assert "Prometheus" in caught.value.hint


# ------------------------------------------------------------------------------------------------- promtool


def test_prometheus_fires_where_three_ticks_were_high_and_not_for_two(tool, shipped):
    """promtool itself decides; the name of a node may hold what YAML and PromQL quote."""
    scores = np.full(240, 0.2)
    scores[40:42] = 1.5
    scores[100:140] = 1.5
    node = 'odd"node\\1'
    line = Line("anomaly_score", {"job": "anomaly-agent", "instance": node}, scores)
    (firing,) = merged(fired(tool, shipped, [line], TICK_S, len(scores), 0))
    assert firing.alert == "NodeAnomalous"
    assert firing.instance == node
    assert firing.start == pytest.approx(100 * TICK_S + 30, abs=60)
    assert firing.stop == pytest.approx(140 * TICK_S + 300, abs=90), "keep_firing_for is five minutes"


def test_without_a_high_score_nothing_fires(tool, shipped):
    line = Line("anomaly_score", {"job": "anomaly-agent", "instance": "a"}, np.full(100, 0.9))
    assert fired(tool, shipped, [line], TICK_S, 100, 0) == []


@pytest.mark.parametrize("program", ["/bin/true", "/bin/false", "/bin/echo"])
def test_another_program_does_not_know_that_nothing_fired(program, shipped):
    line = Line("anomaly_score", {"job": "anomaly-agent", "instance": "a"}, np.full(100, 2.0))
    with pytest.raises(TrainingError, match="could not evaluate the rules"):
        fired(program, shipped, [line], TICK_S, 100, 0)


def test_rules_that_promtool_refuses_end_the_backtest(tool, shipped):
    broken = replace(shipped, groups=({"name": "a", "rules": [{"alert": "X", "expr": "anomaly_score >=>"}]},))
    line = Line("anomaly_score", {"instance": "a"}, np.ones(20))
    with pytest.raises(TrainingError, match="could not evaluate the rules"):
        fired(tool, broken, [line], TICK_S, 20, 0)


def test_the_answer_of_promtool_is_read_with_its_time():
    output = (
        'FAILED:\n    expr: "ALERTS", time: 1h1m30s,\n        exp: nil\n'
        '        got: {__name__="ALERTS", alertname="A", alertstate="firing", instance="x, \\"y\\""} 1E+00\n'
    )
    assert parsed(output) == [(3690.0, "A", (("instance", 'x, "y"'),))]
    assert parsed("SUCCESS") == []


def test_a_series_that_ends_is_stale_and_one_that_was_never_there_is_not():
    assert notation(np.array([NAN, 1.0, NAN, NAN, 0.25])) == "_ 1 stale _ 0.25"


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60))
def test_minutes_that_follow_one_another_are_one_firing(minutes):
    found = merged([(60.0 * minute, "A", ()) for minute in minutes])
    covered = {m for one in found for m in range(int(one.start) // 60, int(one.stop) // 60)}
    assert covered == set(minutes)
    assert all(later.start - earlier.stop >= 60 for earlier, later in itertools.pairwise(found))


# -------------------------------------------------------------------------------------------------- outcome


def history(labels, interval_s=60.0):
    count = len(labels)
    config = parse_config({"source": {"type": "synthetic", "synthetic": {"nodes": 2, "range": "1h"}}})
    features = fetch(config, lambda *_: None, lambda _: None).features[:2]
    return History(
        features=features,
        interval_s=interval_s,
        nodes=("a", "b"),
        timestamps=1e9 + interval_s * np.arange(count),
        values=np.ones((count, 2, 2)),
        labels=np.stack([np.asarray(labels, np.int8), np.zeros(count, np.int8)], axis=1),
    )


def lived(node, scores, reasons=None):
    return Lived(node, np.asarray(scores, float), reasons or {}, np.ones(len(scores)), known=True)


def test_an_alert_is_right_at_an_incident_or_shortly_before_and_an_incident_may_be_missed():
    labels = np.full(600, NORMAL)
    labels[100:130] = ANOMALOUS
    labels[400:410] = ANOMALOUS
    labels[500:520] = UNKNOWN
    past = history(labels)
    why = (Reason("cpu", 0.7, 1.0, 0.1),)
    scores = np.full(600, 0.1)
    scores[95:110] = 1.7
    both = [lived("a", scores, {95: why}), lived("b", np.full(600, 0.1))]
    firings = [
        Firing("Node", (("instance", "a"),), 96 * 60.0, 111 * 60.0),
        Firing("Node", (("instance", "a"),), 200 * 60.0, 206 * 60.0),
        Firing("Node", (("instance", "a"),), 505 * 60.0, 510 * 60.0),
        Firing("Node", (("instance", "b"),), 100 * 60.0, 110 * 60.0),
    ]
    alerts = outcome.alerts_of(firings, past, both, {"Node": "warning"})
    assert [(one.incident, one.judged) for one in alerts] == [
        (True, True), (False, True), (False, False), (False, True),
    ]  # fmt: skip
    assert alerts[0].peak == 1.7
    assert alerts[0].reasons == why
    first, second = outcome.incidents_of(past, alerts)
    assert (first.node, first.first_alert, first.after_s) == ("a", "Node", -240.0)
    assert second.first_alert == ""
    assert math.isnan(second.after_s)
    (rate, other) = outcome.rates_of(alerts, {"Node": "warning", "Fleet": ""}, 2.0)
    assert (rate.alerts, rate.per_node_week, rate.false, rate.nodes) == (4, 2.0, 2, 2)
    assert (other.alerts, other.per_node_week) == (0, 0.0)
    assert outcome.by_node(alerts, ("a", "b")) == {"a": 3, "b": 1}
    assert outcome.by_feature(alerts) == {"cpu": 0.7}
    assert sum(outcome.by_hour(alerts)) == 4


def test_an_alert_about_several_nodes_may_be_the_first_at_an_incident_and_has_no_rate_per_node():
    labels = np.full(200, NORMAL)
    labels[100:130] = ANOMALOUS
    past = history(labels)
    both = [lived(node, np.full(200, 0.1)) for node in "ab"]
    firings = [
        Firing("Fleet", (), 105 * 60.0, 190 * 60.0),
        Firing("Node", (("instance", "a"),), 110 * 60.0, 120 * 60.0),
    ]
    alerts = outcome.alerts_of(firings, past, both, {"Fleet": "", "Node": ""})
    assert [one.incident for one in alerts] == [True, True]
    (incident,) = outcome.incidents_of(past, alerts)
    assert (incident.first_alert, incident.after_s) == ("Fleet", 300.0)
    assert incident.stop - incident.start == 30 * 60
    fleet, node = outcome.rates_of(alerts, {"Fleet": "", "Node": ""}, 2.0)
    assert math.isnan(fleet.per_node_week)
    assert (fleet.nodes, node.nodes, node.per_node_week) == (0, 1, 0.5)


# ------------------------------------------------------------------------------------------------ the whole


@pytest.fixture(scope="module")
def fleet():
    """Two simulated nodes for five hours with incidents."""
    synthetic = {"nodes": 2, "range": "5h", "incidents_per_node_day": 24.0}
    config = parse_config({"interval": "60s", "source": {"type": "synthetic", "synthetic": synthetic}})
    return fetch(config, lambda *_: None, lambda _: None)


def test_the_replay_is_what_an_agent_says_with_one_process_and_with_two(fleet):
    alone = replay(starter_bundle(), fleet, 1, lambda *_: None)
    together = replay(starter_bundle(), fleet, 2, lambda *_: None)
    assert [one.node for one in alone] == list(fleet.nodes)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.reasons == other.reasons
        assert not one.known
        assert np.isfinite(one.scores[-10:]).all()


@pytest.fixture(scope="module")
def with_a_gap(fleet):
    """The same, and nothing of the first node for forty minutes."""
    values = np.array(fleet.values)
    values[200:240, 0] = NAN
    return replace(fleet, values=values)


def test_while_nothing_was_sampled_there_was_no_agent_that_could_say_anything(with_a_gap):
    one, other = replay(starter_bundle(), with_a_gap, 1, lambda *_: None)
    for said in (one.scores, one.threshold_ratio):
        np.testing.assert_array_equal(np.isnan(said[190:250]), [False] * 10 + [True] * 40 + [False] * 10)
    assert np.isfinite(other.threshold_ratio[190:250]).all()


def test_rules_see_a_node_as_up_only_while_something_of_it_was_sampled(with_a_gap, shipped, monkeypatch):
    given = []
    monkeypatch.setattr(promtool, "fired", lambda _tool, _rules, lines, *_: given.extend(lines) or [])
    backtest(verify_bundle(starter_bundle()), with_a_gap, shipped, "promtool", 1, SilentProgress())
    up, other = (line.values for line in given if line.metric == "up")
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(up)), np.arange(200, 240))
    assert (other == 1.0).all()


def test_an_alert_over_the_seams_of_pieces_is_one_and_keeps_its_times(shipped, monkeypatch):
    scores = np.full(600, 0.1)
    scores[90:110] = scores[299:301] = scores[350:550] = 2.0  # a piece has 100 ticks

    def says(_tool, _rules, lines, interval_s, ticks, lead_in):
        (line,) = (one for one in lines if (one.metric, one.labels["instance"]) == ("anomaly_score", "a"))
        assert len(line.values) == ticks
        high = (at for at in range(lead_in, ticks) if line.values[at] > 1)
        return [(interval_s * at, "High", (("instance", "a"),)) for at in high]

    monkeypatch.setattr(run, "PIECE_S", 6_000.0)
    monkeypatch.setattr(run, "replay", lambda *_: [lived("a", scores, {}), lived("b", np.full(600, 0.1), {})])
    monkeypatch.setattr(promtool, "fired", says)
    past = history(np.full(600, NORMAL))
    result, _ = backtest(verify_bundle(starter_bundle()), past, shipped, "promtool", 1, SilentProgress())
    begin = past.timestamps[0]
    assert [((one.start - begin) / 60, (one.stop - begin) / 60) for one in result.alerts] == [
        (90, 110), (299, 301), (350, 550),
    ]  # fmt: skip


def test_what_fires_is_where_scores_were_held_and_the_page_names_every_alert(fleet, shipped, tool):
    result, nodes = backtest(verify_bundle(starter_bundle()), fleet, shipped, tool, 2, SilentProgress())
    ours = [one for one in result.alerts if one.name == "NodeAnomalous"]
    assert ours
    scores = {one.node: one.scores for one in nodes}
    for one in ours:
        first = int((one.start - result.start) // 60) - 3
        last = int((one.stop - result.start) // 60) + 1
        assert np.nanmax(held(scores[one.node], 1)[max(0, first) : last]) >= 1.0
    standing = {node for node, score in scores.items() if (held(score, 2) >= 1.0).any()}
    assert standing <= {one.node for one in ours}
    assert result.incidents
    text = page(result, nodes, fleet)
    assert "<script" not in text
    assert "http://www.w3.org" in text
    assert text.count("NodeAnomalous") >= len(ours)
    assert all(incident.node in text for incident in result.incidents)


def test_the_command_writes_a_report_records_it_and_says_the_same_as_json(tmp_path, tool, monkeypatch):
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.chdir(tmp_path)  # where the store keeps artifacts
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    config = tmp_path / "trainer.yml"
    config.write_text("interval: 60s\nsource: {type: synthetic, synthetic: {nodes: 1}}\n")
    arguments = [
        "backtest", "--config", str(config), "--since", "2h", "--bundle", str(starter_bundle()),
        "--promtool", tool, "--report", str(tmp_path / "out"), "--jobs", "1", "--output", "json",
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout[done.stdout.index("{") :])
    written = json.loads((Path(told.pop("report")).parent / "backtest.json").read_text())
    assert written == told
    assert told["rates"][0]["name"] == "NodeAnomalous"
    from mlflow import MlflowClient  # seconds, which every worker would wait while collecting

    client = MlflowClient(tracking_uri=store)
    (run,) = client.search_runs([client.get_experiment_by_name("node-anomaly").experiment_id])
    assert run.data.tags["bundle_version"] == told["bundle"]
    assert run.data.metrics["backtest_node_weeks"] == pytest.approx(told["node_weeks"])
    assert {one.path for one in client.list_artifacts(run.info.run_id, "report")} == {
        "report/backtest.html", "report/backtest.json",
    }  # fmt: skip


def test_since_cuts_a_file_too(tmp_path, tool, fleet):
    """Five hours in the file, the last three are asked for."""
    names = list(fleet.feature_names[:6])
    times = pd.to_datetime(fleet.timestamps, unit="s", utc=True)
    frame = pd.DataFrame(fleet.values[:, 0, :6], columns=names).assign(timestamp=times, node="a")
    frame.to_parquet(tmp_path / "history.parquet")
    config = tmp_path / "trainer.yml"
    config.write_text("interval: 60s\n")
    arguments = [
        "backtest", "--config", str(config), "--data", str(tmp_path / "history.parquet"), "--since", "3h",
        "--bundle", str(starter_bundle()), "--promtool", tool, "--report", str(tmp_path / "out"),
        "--jobs", "1", "--output", "json",
    ]  # fmt: skip
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout[done.stdout.index("{") :])
    assert told["stop"] - told["start"] == 3 * 3600 - 60


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--since", "soon"), "--since soon"),
        (("--since", "0s"), "--since 0s: expected 60 seconds to 3660 days"),
        (("--promtool", "none"), "not found"),
        (("--rules", "."), "no recording.yml"),
    ],
)
def test_what_is_wrong_with_the_call_is_said_before_any_history_is_read(tmp_path, monkeypatch, option, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(promtool.shutil, "which", lambda name: None if name == "none" else "/bin/true")
    done = CliRunner().invoke(app, ["backtest", *option])
    assert done.exit_code == 2
    assert said in done.output
