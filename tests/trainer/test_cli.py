"""The command `anomaly-trainer`: what it prints and how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest


@pytest.fixture
def trainer(tmp_path):
    """Run the command in an empty directory; returns the finished process."""

    def run(*arguments, **environ):
        clean = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_URL"}
        return subprocess.run(
            [sys.executable, "-m", "node_anomaly_trainer", *map(str, arguments)],
            cwd=tmp_path,
            env=clean | environ,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--soruce", "file"], "No such option"),
        (["train", "--output", "xml"], "xml"),
        (["train", "--interval", "9h"], "--interval 9h: expected 1 to 300 seconds"),
        (["train", "--interval", "soon"], "--interval soon: expected a duration"),
        (["train", "--source", "file"], "file.path is required"),
        (["train", "--data", "x.csv", "--source", "synthetic"], "--data is for --source file"),
        (["train", "--config", "gone.yml"], "gone.yml: No such file"),
        (["forecast"], "No such command"),
    ],
)
def test_wrong_usage_and_configuration_exit_with_2(trainer, arguments, said):
    done = trainer(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_every_wrong_key_of_a_file_is_listed(trainer, tmp_path):
    (tmp_path / "typo.yml").write_text("intervall: 15s\nmodels: {lstm: {epoch: 3}}\n")
    done = trainer("train", "--config", "typo.yml")
    assert done.returncode == 2
    assert done.stderr.count("Error: typo.yml: ") == 2
    assert "did you mean interval?" in done.stderr


def test_a_source_that_fails_exits_with_1_and_says_what_to_do(trainer):
    done = trainer("train", "--data", "gone.csv")
    assert done.returncode == 1
    assert "Error: gone.csv: No such file or directory" in done.stderr
    assert "Try: name an existing CSV or Parquet file" in done.stderr


def test_history_that_is_too_short_exits_with_1(trainer, tmp_path):
    (tmp_path / "short.csv").write_text("timestamp,cpu_busy_ratio\n0,0.1\n15,0.2\n")
    done = trainer("train", "--data", "short.csv")
    assert done.returncode == 1
    assert "too short" in done.stderr


def test_it_says_its_version(trainer):
    done = trainer("--version")
    assert (done.returncode, done.stdout) == (0, f"anomaly-trainer {version('node-anomaly')}\n")


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["config", "check"]], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error_with_a_remedy(
    tmp_path, monkeypatch, arguments, unbuffered
):
    """/dev/full is a disk without room; Python tells of it at once or only when it ends."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    command = [sys.executable, "-m", "node_anomaly_trainer", *arguments]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: ")
    assert error.endswith("No space left on device")
    assert hint.startswith("Try: ")
    assert "free space" in hint


def test_a_reader_that_goes_away_is_no_complaint(tmp_path):
    command = f"{sys.executable} -m node_anomaly_trainer --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_wrong_key_is_answered_by_where_all_keys_are(trainer, tmp_path):
    (tmp_path / "trainer.yml").write_text("souce: {}\n")
    done = trainer("train", "--config", "trainer.yml")
    assert done.returncode == 2
    assert "souce: unknown key; did you mean source?" in done.stderr
    assert "anomaly-trainer config init" in done.stderr
    assert "source:" in trainer("config", "init").stdout


def test_help_names_the_exit_codes(trainer):
    done = trainer("train", "--help", COLUMNS="200")
    assert done.returncode == 0
    assert "0 accepted and published, 3 rejected by the gate, 1 failed, 2 wrong usage" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--config", "gone.yml"],
        ["rollback"],
        ["bundle", "show", "gone"],
        ["bench", "gone", "--scores", "out"],
    ],
)
def test_what_trains_nothing_does_not_wait_for_what_trains_to_be_imported(tmp_path, arguments):
    """Three seconds of a person at night who types `anomaly-trainer rollback`."""
    script = tmp_path / "watched.py"
    script.write_text(
        "import atexit, sys\n"
        "heavy = {'sklearn', 'scipy', 'pandas', 'tensorflow', 'matplotlib', 'mlflow'}\n"
        "atexit.register(lambda: sys.stdout.write(f'heavy: {sorted(heavy & set(sys.modules))}'))\n"
        "from node_anomaly_trainer.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.stdout.endswith("heavy: []")


def test_without_the_extra_packages_it_says_how_to_get_them(trainer, tmp_path):
    """A node installs the same wheel without the trainer's dependencies."""
    script = tmp_path / "bare.py"
    script.write_text(
        "import sys, importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'typer' else real(name, *rest)\n"
        "from node_anomaly_trainer.cli import main\n"
        "assert 'typer' not in sys.modules and 'pandas' not in sys.modules\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "anomaly-trainer: the trainer needs extra packages: pip install '.[trainer]' in the checkout\n"
    )


SMALL = """
source: {synthetic: {nodes: 3, range: 10h}}
interval: 30s
training: {faults_per_node_day: 60}
models:
  enabled: [isolation_forest, random_forest]
  isolation_forest: {n_estimators: 20}
  random_forest: {n_estimators: 20}
"""


def test_a_run_that_passes_the_gate_publishes_and_exits_with_0(trainer, tmp_path):
    gate = "gate: {min_recall: 0, beat_baselines: false, tick_cpu: 1s}\n"
    budget = "budget: {false_alarms_per_node_week: 1000}\n"
    (tmp_path / "easy.yml").write_text(SMALL + gate + budget)
    done = trainer("train", "--config", "easy.yml", "--publish", "out", "--output", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["outcome"] == "accepted"
    assert (tmp_path / "out" / "current").resolve() == tmp_path / report["path"]
    assert "100%" in done.stderr


def test_a_run_that_fails_the_gate_publishes_nothing_and_exits_with_3(trainer, tmp_path):
    (tmp_path / "hard.yml").write_text(SMALL + "gate: {tick_cpu: 0s}\n")
    done = trainer("train", "--config", "hard.yml", "--publish", "out")
    assert done.returncode == 3, done.stderr
    assert "refused: a tick costs" in done.stdout
    assert "combined" in done.stdout
    assert "nothing was published" in done.stdout
    assert not (tmp_path / "out").exists()
