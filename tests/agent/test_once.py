"""`--once`: verdicts, exit codes, and that it only reads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import agent_bundle
from agent_fakes import FakeClock, FakeLog, FakeReloader, FakeSampler, make_score, make_snapshot
from node_anomaly_agent.config import AgentConfig, load_config
from node_anomaly_agent.daemon import Daemon
from node_anomaly_agent.loop_parts import Parts
from node_anomaly_agent.once import (
    Exit,
    Outcome,
    evaluate,
    render_json,
    render_prom,
    render_table,
    run_once,
)
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.scorer import load_candidate
from node_anomaly_agent.state import STATE_FILE
from node_anomaly_agent.state_keeper import StateKeeper
from node_anomaly_core.errors import AnomalyError
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.witnesses import Witness

QUIET = tuple(np.linspace(1.0, 5.0, len(CATALOGUE)))
LOUD = tuple(np.linspace(100.0, 500.0, len(CATALOGUE)))


class Node:
    """A state directory that a daemon has run in, and what `--once` is given there."""

    def __init__(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "state"
        self.bundles = self.directory / "bundles"
        self.clock = FakeClock()
        self.sampler = FakeSampler(self.clock, QUIET)

    @property
    def config(self) -> AgentConfig:
        return load_config(None, {"state.directory": str(self.directory)}, {})

    def run_daemon(self, ticks: int = 30, loud: int = 0) -> None:
        bundle = self.bundles / "current"
        daemon = Daemon(
            Parts(
                sampler=self.sampler,
                reloader=FakeReloader(self.clock, load_candidate(bundle.resolve(), CATALOGUE, 15.0, "")),
                keeper=StateKeeper(self.directory, self.clock, FakeLog()),  # type: ignore[arg-type]
                fallback=lambda _: None,
                clock=self.clock,
                log=FakeLog(),  # type: ignore[arg-type]
                interval_s=15.0,
                process=ProcessStats,
                trim=lambda: None,
            )
        )
        daemon.start()
        generator = np.random.default_rng(0)
        for _ in range(ticks):
            self.sampler.row = tuple(np.array(QUIET) * generator.normal(1.0, 0.01, len(QUIET)))
            daemon.tick()
            self.clock.advance(15.0)
        for _ in range(loud):
            self.sampler.row = LOUD
            daemon.tick()
            self.clock.advance(15.0)
        daemon.stop()
        self.sampler.row = QUIET
        self.sampler.times.clear()

    def once(self) -> Outcome:
        return evaluate(self.config, self.sampler, self.clock, {})


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path)
    agent_bundle.publish(node.bundles)
    return node


def test_with_a_running_agents_state_one_sample_gives_a_verdict(node):
    node.run_daemon()
    outcome = node.once()
    assert outcome.exit is Exit.NORMAL
    assert outcome.notes == ()
    assert len(node.sampler.times) == 1
    assert node.sampler.restored == {"ticks": 30}


def test_an_anomalous_node_has_its_own_exit_code(node):
    node.run_daemon(loud=4)  # half of a forest's score is its last minute
    node.sampler.row = LOUD
    outcome = node.once()
    assert outcome.exit is Exit.ANOMALOUS
    assert outcome.snapshot.score.score >= 1


def test_nothing_is_written(node):
    node.run_daemon()
    before = {path: path.stat().st_mtime_ns for path in node.directory.rglob("*")}
    node.once()
    assert {path: path.stat().st_mtime_ns for path in node.directory.rglob("*")} == before


def test_without_a_state_it_looks_for_a_while_and_is_not_warm(node):
    outcome = node.once()
    assert outcome.exit is Exit.NOT_WARM
    assert len(node.sampler.times) == 4
    assert node.clock.waits == [1.0, 1.0, 1.0]
    assert "No running agent" in outcome.notes[0]
    assert not (node.directory / STATE_FILE).exists()


def test_a_state_of_an_agent_that_no_longer_runs_is_not_used(node):
    node.run_daemon()
    node.clock.advance(1800)
    outcome = node.once()
    assert outcome.exit is Exit.NOT_WARM
    assert "30 min old" in outcome.notes[0]


def test_a_damaged_state_is_told(node):
    node.run_daemon()
    (node.directory / STATE_FILE).write_bytes(b"x")
    outcome = node.once()
    assert outcome.exit is Exit.NOT_WARM
    assert "not a state file" in outcome.notes[0]


def test_it_scores_with_the_bundle_that_the_running_agent_uses(node):
    node.run_daemon()
    used = (node.bundles / "current").resolve().name
    agent_bundle.publish(node.bundles, trained_at=1_700_000_001.0)
    outcome = node.once()
    assert outcome.snapshot.bundle.version == used
    assert outcome.snapshot.warm


def test_a_state_of_another_bundle_is_told(node):
    node.run_daemon()
    used = (node.bundles / "current").resolve()
    agent_bundle.publish(node.bundles, trained_at=1_700_000_001.0)
    for path in used.iterdir():
        path.unlink()
    used.rmdir()
    outcome = node.once()
    assert outcome.exit is Exit.NOT_WARM
    assert "belongs to bundle" in outcome.notes[-1]


def test_without_any_good_bundle_it_is_an_error(node, monkeypatch, tmp_path):
    monkeypatch.setattr("node_anomaly_agent.once.starter_bundle", lambda: tmp_path / "none")
    (node.bundles / "current" / "forest.safetensors").write_bytes(b"x")
    with pytest.raises(AnomalyError, match="forest"):
        node.once()
    (node.bundles / "current").unlink()
    with pytest.raises(AnomalyError, match="no bundle in"):
        node.once()


def test_a_link_that_leaves_the_directory_falls_back_and_is_told(node, monkeypatch, tmp_path):
    outside = agent_bundle.make_bundle(tmp_path / "outside")
    monkeypatch.setattr("node_anomaly_agent.once.starter_bundle", lambda: outside)
    (node.bundles / "current").unlink()
    (node.bundles / "current").symlink_to(outside)
    outcome = node.once()
    assert outcome.snapshot.bundle.path == str(outside)
    assert any("of no use" in note for note in outcome.notes)


def test_this_very_host_can_be_evaluated(tmp_path, capsys):
    agent_bundle.publish(tmp_path / "bundles")
    clock = FakeClock()
    config = load_config(None, {"state.directory": str(tmp_path)}, {"cpu": True, "memory": True})
    assert run_once(config, "json", "1.2.3", clock, {}) == Exit.NOT_WARM
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == "not_warm"
    assert document["score"] is None
    memory = next(f for f in document["features"] if f["feature"] == "memory_available_ratio")
    assert 0 < memory["observed"] <= 1


WARM = Outcome(make_snapshot(score=make_score(score=1.25)), ("A note.",), Exit.ANOMALOUS)
COLD = Outcome(make_snapshot(score=make_score(warm=False), warmup_done=4), (), Exit.NOT_WARM)


def test_the_table_tells_a_person_what_why_and_what_is_missing():
    text = render_table(WARM, "1.2.3")
    assert text.startswith("ANOMALOUS: anomaly_score 1.25\n  A note.\n")
    assert "Threshold of this node: 1.50 times what training promised (5 % of its window seen)\n" in text
    row = next(line for line in text.splitlines() if "disk_read_bytes_per_second" in line)
    assert row.split()[1:] == ["40", "%", "2", "KiB/s", "1", "KiB/s"]
    assert "missing: temperature_max_celsius" in text
    assert "thermal: no thermal zones" in text
    assert "0123456789abcdef (trained, trained 24 h ago)" in text
    assert "nan" not in text.lower().replace("anomal", "")


def test_the_table_of_a_cold_node_shows_values_and_no_verdict():
    text = render_table(COLD, "1.2.3")
    assert text.startswith("NOT WARM: no score yet, 4 of 20 ticks")
    assert "50 %" in text
    assert "expected" not in text
    assert "Threshold" not in text


def test_the_json_has_null_for_what_is_not_known():
    document = json.loads(render_json(WARM, "1.2.3"))
    assert document["verdict"] == "anomalous"
    assert document["score"] == 1.25
    assert document["threshold_ratio"] == 1.5
    assert document["models"] == {"isolation_forest": 1.25, "lstm": None}
    last = document["features"][-1]
    assert last["feature"] == "temperature_max_celsius"
    assert (last["observed"], last["expected"], last["state"]) == (None, None, "missing")
    assert json.loads(render_json(COLD, "1.2.3"))["score"] is None


def test_that_the_threshold_rose_over_an_alarm_is_said_in_both_forms():
    outgrown = Outcome(make_snapshot(score=make_score(score=0.9, outgrown=True)), exit=Exit.NORMAL)
    assert "  Not recovered: the last alarm is over because" in render_table(outgrown, "1.2.3")
    assert "recovered" not in render_table(WARM, "1.2.3")
    said = [json.loads(render_json(one, "1.2.3"))["outgrown"] for one in (outgrown, WARM, COLD)]
    assert said == [True, False, None]


def test_an_alarm_that_is_held_back_is_said_in_both_forms_with_whose_agreement_is_missing():
    score = make_score(score=0.97, held_back_by=(Witness(("isolation_forest", "lstm"), 0.7),))
    held = Outcome(make_snapshot(score=score), exit=Exit.NORMAL)
    said = "  No alarm: all together reach the threshold, without the agreement of "
    assert f"{said}one of isolation_forest, lstm (70 %)\n" in render_table(held, "1.2.3")
    document = json.loads(render_json(held, "1.2.3"))
    assert document["held_back_by"] == [{"models": ["isolation_forest", "lstm"], "share": 0.7}]
    assert "No alarm" not in render_table(WARM, "1.2.3")
    assert json.loads(render_json(WARM, "1.2.3"))["held_back_by"] == []
    assert json.loads(render_json(COLD, "1.2.3"))["held_back_by"] == []


def test_the_prom_form_is_for_a_textfile_collector(lint_metrics):
    text = render_prom(WARM, "1.2.3")
    assert "anomaly_score 1.25\n" in text
    assert "process_" not in text
    assert lint_metrics(text) == ""


def test_a_score_that_no_model_could_give_is_not_normal():
    snapshot = make_snapshot(score=make_score(score=math.nan))
    assert "NOT WARM" in render_table(Outcome(snapshot), "1.2.3")
