"""The commands beside train: what they print, write and exit with."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import small_bundle
from node_anomaly_core.bundle import activate, write_bundle
from node_anomaly_trainer.commands import app
from node_anomaly_trainer.commands.compare import spread
from node_anomaly_trainer.config_file import commented


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty directory: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROMETHEUS_URL", raising=False)

    def call(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return call


TOO_LONG = "/tmp/" + "x" * 300


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("config", "init", "--output", TOO_LONG), "choose a writable --output"),
        (("bundle", "show", TOO_LONG), "File name too long"),
        (("drift", "--config", "trainer.yml"), "File name too long"),
        (("config", "check", "--config", TOO_LONG), "File name too long"),
        (("validate", "--config", "trainer.yml"), "publish.directory"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_path_that_cannot_be_looked_at_is_an_error_with_a_remedy(run, tmp_path, arguments, says):
    """As below a folder of another user: looking whether it is there is what fails."""
    (tmp_path / "trainer.yml").write_text(f"publish: {{directory: {TOO_LONG}}}\n")
    code, out, err = run(*arguments)
    assert code in (1, 2)
    assert says in out + err


@pytest.fixture(scope="module")
def made():
    return small_bundle.build()


@pytest.fixture
def published(tmp_path, made):
    """A small bundle in ./bundles, and rows of a node in ./new.csv; the last of them are a fault."""
    activate(tmp_path / "bundles", write_bundle(tmp_path / "bundles", made.manifest, made.files).name)
    values = small_bundle.rows(11, 50)
    values[-5:, 4] *= 8.0
    frame = pd.DataFrame(values, columns=[feature.name for feature in small_bundle.FEATURES])
    frame.insert(0, "node", "alpha")
    frame.insert(0, "timestamp", small_bundle.LIVE + small_bundle.INTERVAL_S * np.arange(50))
    frame.to_csv(tmp_path / "new.csv", index=False)


def test_predict_writes_every_row_and_says_what_it_did(run, published, tmp_path):
    code, out, _ = run("predict", "--input", "new.csv", "--output", "results.csv")
    assert code == 0
    assert "wrote results.csv" in out
    result = pd.read_csv(tmp_path / "results.csv")
    assert list(result.columns) == ["timestamp", "node", "score"]
    assert len(result) == 50
    code, out, _ = run(
        "predict", "--input", "new.csv", "--output", "r.parquet", "--alarm", "--summary", "json"
    )
    assert code == 0
    assert json.loads(out)["alarms"] == pd.read_parquet(tmp_path / "r.parquet")["alarm"].sum() > 0


def test_predict_says_why_not(run, published, tmp_path):
    code, _, error = run("predict", "--input", "new.csv", "--output", "x.csv", "--model", "lstn")
    assert code == 2
    assert "did you mean lstm?" in error
    code, _, error = run("predict", "--input", "gone.csv", "--output", "x.csv")
    assert code == 1
    assert "Error: gone.csv: No such file" in error
    code, _, error = run("predict", "--input", "new.csv", "--output", "new.csv/x.csv")
    assert code == 1
    assert "choose a writable --output" in error
    assert not (tmp_path / "x.csv").exists()


def test_explain_names_the_feature(run, published):
    code, out, _ = run("explain", "--input", "new.csv", "--rows", "1")
    assert code == 0
    assert "alpha at" in out
    assert "disk_busy_ratio" in out
    code, out, _ = run("explain", "--input", "new.csv", "--output", "json", "--node", "alpha", "--top", "1")
    assert code == 0
    assert json.loads(out)[0]["reasons"][0]["feature"] == "disk_busy_ratio"
    assert run("explain", "--input", "new.csv", "--node", "beta")[0] == 1
    assert run("explain", "--input", "new.csv", "--at", "noon")[0] == 2


def test_label_writes_a_file_for_git_and_refuses_a_contradiction(run, tmp_path):
    verdict = ["label", "--from", "2026-11-01T10:00:00Z", "--to", "2026-11-01T10:20:00Z", "--node", "db-1"]
    code, out, _ = run(*verdict, "--verdict", "false-alarm", "--note", "backup")
    assert code == 0
    assert "set labels.feedback: labels.yml" in out
    assert "note: backup" in (tmp_path / "labels.yml").read_text()
    code, out, _ = run(*verdict, "--verdict", "false-alarm", "--note", "backup", "--output", "json")
    assert json.loads(out)["verdicts"] == 1
    code, _, error = run(*verdict, "--verdict", "incident")
    assert code == 1
    assert "contradiction" in error
    assert run("label", "--from", "x", "--to", "y", "--node", "a", "--verdict", "incident")[0] == 2


def test_config_init_writes_a_file_that_config_check_accepts(run, tmp_path):
    assert run("config", "init") == (0, commented(), "")
    assert run("config", "init", "--output", "trainer.yml")[0] == 0
    code, _, error = run("config", "init", "--output", "trainer.yml")
    assert code == 2
    assert "exists already" in error
    assert run("config", "init", "--output", "trainer.yml", "--force")[0] == 0
    code, out, _ = run("config", "check", "--config", "trainer.yml")
    assert code == 0
    assert "ok: 0 settings differ" in out
    (tmp_path / "typo.yml").write_text("modles: {}\n")
    code, _, error = run("config", "check", "--config", "typo.yml")
    assert code == 2
    assert "typo.yml: modles: unknown key; did you mean models?" in error


def test_lists_may_be_written_with_spaces():
    assert spread(["--models", "all", "--scenarios", "standard", "high_anomaly", "--output", "json"]) == [
        "--models",
        "all",
        "--scenarios",
        "standard",
        "--scenarios",
        "high_anomaly",
        "--output",
        "json",
    ]


def test_compare_names_what_there_is(run):
    code, _, error = run("compare", "--models", "lstn")
    assert code == 2
    assert "did you mean lstm?" in error
    code, _, error = run("compare", "--scenarios", "standard", "nosy")
    assert code == 2
    assert "did you mean noisy?" in error


@pytest.mark.parametrize("command", ["train", "compare", "predict", "explain", "label", "fetch", "bench"])
def test_every_command_documents_its_exit_codes(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Exit codes: 0" in out
