"""The command line: in this process for what it prints, in another for what it does when signalled."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import agent_bundle
import rig
from node_anomaly_agent.assembly import build_sampler, collector_switches
from node_anomaly_agent.cli import build_parser, main
from node_anomaly_agent.config import KEYS, load_config
from node_anomaly_agent.episode import Cause, Episode, encode
from node_anomaly_agent.episode_store import write_episode
from node_anomaly_agent.scorer import AgentScorer, load_candidate
from node_anomaly_agent.state import AgentState, encode_state, save_state
from node_anomaly_core.bundle import starter_bundle
from node_anomaly_core.features import CATALOGUE


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run arguments that must fail with exit code 1; what they say on stderr."""
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    assert code == 1
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_check_config_without_a_file_shows_the_defaults(capsys, tmp_path):
    assert main(["check-config"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ok: no config file")
    assert f"{'state.directory':<25}  {tmp_path}/state" in out
    assert not (tmp_path / "state").exists(), "checking creates nothing"


def test_check_config_reads_the_file_and_the_flags(capsys, tmp_path):
    file = tmp_path / "agent.yml"
    file.write_text("interval: 5s\ncollector: {thermal: false}\n")
    assert main(["check-config", "--config.file", str(file), "--interval=30s", "--no-collector.timex"]) == 0
    out = capsys.readouterr().out
    assert f"ok: {file}" in out
    assert "30s" in out
    assert "thermal, timex" in out


def test_flags_may_stand_before_the_command(capsys):
    assert main(["--interval", "7s", "check-config"]) == 0
    assert "7s" in capsys.readouterr().out


def test_a_config_error_is_one_line_and_a_hint(capsys, tmp_path):
    file = tmp_path / "agent.yml"
    file.write_text("web: {listen-adress: ':1'}\n")
    error = refused(["check-config", "--config.file", str(file)], capsys)
    assert error.splitlines()[0] == (
        "error: web.listen-adress: unknown key (did you mean web.listen-address?)"
    )
    assert error.splitlines()[1].startswith("try: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--intervall=5s"], "unknown flag --intervall (did you mean --interval?)"),
        (["--intervall", "5s"], "unknown flag --intervall (did you mean --interval?)"),
        (["explain", "--tpo", "3"], "unknown flag --tpo (did you mean --top?)"),
        (["--interval", "soon"], "interval: expected a duration"),
        (["--once", "--output", "xml"], "invalid choice"),
        (["--collector.nope"], "unknown flag --collector.nope"),
        (["bundle"], "required: ACTION"),
        (["--config.file", "/nonexistent.yml"], "does not exist"),
        (["--state.directory", "/dev/null/state"], "state.directory: /dev/null/state cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_fails_with_1_because_2_means_anomalous(capsys, arguments, message):
    assert message in refused(arguments, capsys)


def test_every_setting_is_a_flag_and_in_the_help(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    text = capsys.readouterr().out
    assert all(f"--{setting.path}" in text for setting in KEYS)


def test_the_example_config_is_valid_and_names_every_setting(capsys, repository):
    example = repository / "agent" / "anomaly-agent.example.yml"
    assert main(["check-config", "--config.file", str(example)]) == 0
    text = example.read_text()
    assert all(f"{setting.path.rpartition('.')[2]}:" in text for setting in KEYS)


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("anomaly-agent 0.")


def test_features_as_json_lists_the_catalogue_with_its_state_here(capsys):
    assert main(["features", "--output", "json", "--promql.matchers", 'job="node"']) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found] == [feature.name for feature in CATALOGUE]
    assert {one["state"] for one in found} <= {"active", "constant", "missing"}
    memory = next(one for one in found if one["name"] == "memory_available_ratio")
    assert 0 < memory["value"] <= 1
    assert 'job="node"' in memory["promql"]
    assert set(memory) == {
        "name", "unit", "group", "kind", "direction", "help", "promql", "state", "value",
    }  # fmt: skip


def test_features_says_why_a_collector_has_nothing(capsys, tmp_path):
    (tmp_path / "stat").write_text("no cpu here\n")
    roots = ["--path.procfs", str(tmp_path), "--path.sysfs", str(tmp_path)]
    assert main(["features", *roots]) == 0
    table, _ = capsys.readouterr()
    assert "collector cpu failed: ValueError: no 'cpu' line" in table
    assert f"collector thermal has nothing to read: {tmp_path}/class/thermal: no such directory" in table
    assert main(["features", "--output", "json", *roots]) == 0
    document, said = capsys.readouterr()
    assert {one["state"] for one in json.loads(document) if one["group"] == "cpu"} == {"missing"}
    assert said.splitlines() == ["collector cpu failed: ValueError: no 'cpu' line of numbers in /proc/stat"]


def test_features_as_a_table_ends_with_a_count(capsys, tmp_path):
    """An empty procfs: what is not there is missing, not 0."""
    assert main(["features", "--path.procfs", str(tmp_path), "--path.sysfs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("memory_available_ratio"))
    assert row.split()[1] == "missing"
    assert out.splitlines()[-1].startswith(f"{len(CATALOGUE)} features: ")


def test_bundle_verify_accepts_a_bundle_and_a_directory_of_bundles(capsys, tmp_path):
    version = agent_bundle.publish(tmp_path)
    for path in (tmp_path, tmp_path / version):
        assert main(["bundle", "verify", str(path)]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"ok: bundle {version} (trained): isolation_forest")
        assert out.count("\n") == 1


def test_bundle_show_prints_what_it_says_of_itself(capsys, tmp_path):
    version = agent_bundle.publish(tmp_path)
    assert main(["bundle", "show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert version in out
    assert "2023-11-14 22:13 UTC" in out
    assert "a test" in out
    assert "forest.safetensors" in out


def test_bundle_show_says_who_must_agree(capsys):
    assert main(["bundle", "show", str(starter_bundle())]) == 0
    assert (
        "lstm (90 %) and one of isolation_forest, isolation_forest_absolute (70 %)" in capsys.readouterr().out
    )


@pytest.mark.parametrize("action", ["verify", "show"])
@pytest.mark.parametrize("damage", ["absent", "flipped", "truncated"])
def test_a_bad_bundle_is_refused_with_one_clear_line(capsys, tmp_path, action, damage):
    agent_bundle.publish(tmp_path)
    forest = tmp_path / "current" / "forest.safetensors"
    content = forest.read_bytes()
    if damage == "absent":
        forest.unlink()
    elif damage == "flipped":
        forest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        forest.write_bytes(content[:10])
    error = refused(["bundle", action, str(tmp_path)], capsys)
    assert error.startswith("error: ")
    assert "forest.safetensors" in error.splitlines()[0]


def test_once_on_this_host_is_not_warm_without_a_daemon(capsys, tmp_path):
    agent_bundle.publish(tmp_path / "bundles")
    assert main(["--once", "--bundle.directory", str(tmp_path / "bundles")]) == 3
    assert capsys.readouterr().out.startswith("NOT WARM")


def test_what_the_terminal_has_no_letters_for_is_no_traceback(tmp_path, monkeypatch):
    """The episodes' arrows in a locale of one byte a letter."""
    cause = Cause("cpu_busy_ratio", "ratio", 0.5, "above", 0.9, 0.1)
    episode = Episode("20260101T000000Z", 1.0, 2.0, 3.0, 2.0, (cause,), (cause,), "v", 1.0)
    write_episode(tmp_path / "episodes", episode.id, encode(episode))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    assert main(["episodes", f"--state.directory={tmp_path}"]) == 0
    sys.stdout.flush()
    assert b"cpu_busy_ratio\\u2191 50 %" in written.getvalue()


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    command = f"{sys.executable} -m node_anomaly_agent features --output json | head -c 10"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert found.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["check-config"], ["--once"]], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error_with_a_remedy(monkeypatch, arguments, unbuffered):
    """/dev/full is a disk without room; Python tells of it at once or only when it ends."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "node_anomaly_agent", *arguments]
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.splitlines() == [
        "error: standard output: No space left on device",
        "try: free space where it is sent to, or send it elsewhere",
    ]


@pytest.mark.parametrize("arguments", ["--version", "check-config"])
def test_without_standard_output_it_does_what_it_is_told(arguments):
    command = f"{sys.executable} -m node_anomaly_agent {arguments} >&-"
    found = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert found.returncode == 0
    assert "error" not in found.stderr


class RunningAgent:
    """A real daemon process on a free port."""

    def __init__(self, tmp_path: Path, *flags: str) -> None:
        self.port = rig.free_port()
        self.bundles = tmp_path / "bundles"
        self.log = tmp_path / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "node_anomaly_agent", "--interval=0.5s", "--log.format=json",
                    f"--web.listen-address=127.0.0.1:{self.port}", f"--bundle.directory={self.bundles}",
                    *flags,
                ],
                stderr=log, stdout=log,
            )  # fmt: skip

    def get(self, path: str) -> tuple[int, str]:
        try:
            return rig.fetch(f"http://127.0.0.1:{self.port}{path}")
        except OSError:
            return 0, ""

    def wait_until(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def metric(self, name: str) -> float:
        _, text = self.get("/metrics")
        values = [line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(name)]
        return float(values[0]) if values else float("nan")

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Seconds until it has ended."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(10)
        return time.monotonic() - started


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    agent_bundle.publish(tmp_path / "bundles")
    running = RunningAgent(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_stops_the_daemon_within_a_second(agent, tmp_path, number):
    agent.wait_until(lambda: agent.get("/-/ready")[0] == 200)
    assert agent.stop(number) < 1.0
    assert agent.process.returncode == 0
    assert (tmp_path / "state" / "agent.state").is_file()
    assert "Traceback" not in agent.log.read_text()


def test_sighup_loads_what_is_there(agent):
    agent.wait_until(lambda: agent.get("/-/ready")[0] == 200)
    agent.process.send_signal(signal.SIGHUP)
    agent.wait_until(lambda: agent.metric("anomaly_agent_bundle_reloads_total") == 1)


def test_a_published_bundle_is_picked_up_and_a_bad_one_is_not(agent):
    agent.wait_until(lambda: agent.get("/-/ready")[0] == 200)
    version = agent_bundle.publish(agent.bundles, trained_at=1_700_000_001.0)
    agent.wait_until(lambda: f'version="{version}"' in agent.get("/metrics")[1])
    bad = agent_bundle.publish(agent.bundles, trained_at=1_700_000_002.0)
    (agent.bundles / bad / "manifest.json").write_text("{}")
    agent.wait_until(lambda: agent.metric('anomaly_agent_bundle_reload_failures_total{reason="digest"}') >= 1)
    ticks = agent.metric("anomaly_agent_evaluations_total")
    agent.wait_until(lambda: agent.metric("anomaly_agent_evaluations_total") > ticks)
    assert agent.metric('anomaly_agent_evaluation_skipped_total{reason="overrun"}') == 0


def save_warm_state(directory: Path, bundle: Path, interval_s: float) -> None:
    """What an agent that has run for a while on this host would have saved a moment ago."""
    config = load_config(None, {"interval": interval_s}, collector_switches())
    sampler = build_sampler(config)
    scorer = AgentScorer(load_candidate(bundle, CATALOGUE, interval_s, ""))
    values = sampler.sample(time.time() - 1).values
    for _ in range(2):
        time.sleep(interval_s)
        values = sampler.sample(time.time()).values
    generator = np.random.default_rng(0)
    now = time.time()
    while scorer.warmup_done < scorer.warmup_ticks:
        scorer.step(now, values * generator.normal(1.0, 0.05, len(values)))
    state = AgentState(now, interval_s, bundle.name, sampler.state(), scorer.export())
    save_state(directory, encode_state(state))
    sampler.close()


def test_a_restart_is_warm_at_once_and_once_uses_the_same_history(tmp_path, capsys):
    version = agent_bundle.publish(tmp_path / "bundles")
    save_warm_state(tmp_path / "state", tmp_path / "bundles" / version, 0.5)
    agent = RunningAgent(tmp_path)
    agent.wait_until(lambda: agent.metric("anomaly_agent_warm") == 1)
    assert agent.metric("anomaly_score") >= 0
    assert agent.stop() < 1.0
    before = (tmp_path / "state" / "agent.state").read_bytes()
    arguments = ["--once", "--output", "json", "--interval=0.5s", f"--bundle.directory={agent.bundles}"]
    assert main(arguments) in (0, 2)
    document = json.loads(capsys.readouterr().out)
    assert document["warm"] is True
    assert document["score"] is not None
    assert document["notes"] == []
    assert (tmp_path / "state" / "agent.state").read_bytes() == before


def test_a_port_that_is_taken_is_an_error_before_anything_starts(agent, capsys):
    agent.wait_until(lambda: agent.get("/-/healthy")[0] == 200)
    error = refused([f"--web.listen-address=127.0.0.1:{agent.port}", "--log.level=error"], capsys)
    assert "cannot listen on" in error
