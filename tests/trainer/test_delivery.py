"""What becomes of a judged candidate: recorded, told, and published only if it was accepted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import small_bundle
from node_anomaly_core.bundle import resolve_current, verify_bundle
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer import drift, pipeline
from node_anomaly_trainer.candidate import Candidate, Parts
from node_anomaly_trainer.commands import app
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.config_delivery import MetricsConfig, PublishConfig
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.fitting import witnesses_among
from node_anomaly_trainer.progress import SilentProgress
from node_anomaly_trainer.report.record import changes
from node_anomaly_trainer.report.write import Artifacts
from node_anomaly_trainer.signing_keys import make_pair

EVALUATION = Evaluation(
    false_alarms_per_node_week=0.5,
    node_weeks=2.0,
    budget=1.0,
    false_alarms_on_noise=3.16,
    comparison_budget=4.0,
    fault_recall={"combined": 0.8},
    false_alarms={"combined": 4.0},
    recall_by_kind={},
    faults=40,
    parity_forest_max=0.0,
    parity_lstm_max=0.0,
    tick_cpu_seconds=2e-3,
    ticks=400,
    weights={},
    bundle_bytes=1,
)


@pytest.fixture(scope="module")
def small():
    return small_bundle.build()


@pytest.fixture
def run(tmp_path, small, monkeypatch):
    """A training run whose fitting took no time: run(reasons, deploy=...) -> report."""
    history = small_bundle.history(1_200)
    parts = Parts(history, history, [], slice(0, 900), slice(900, 1_050), slice(1_050, 1_200))
    made = Candidate({}, small.cohort, small.replayed, small.replayed, small.manifest, small.files)
    assessed = SimpleNamespace(candidate=made, parts=parts, evaluation=EVALUATION)
    monkeypatch.setattr(pipeline, "fetch", lambda *_: history)
    monkeypatch.setattr(pipeline, "disturbed", lambda *_: None)
    monkeypatch.setattr(pipeline, "build", lambda *_: assessed)
    files = [tmp_path / name for name in ("report.html", "report.json", "model_card.md")]
    monkeypatch.setattr(pipeline, "write_run", lambda *_: Artifacts(tmp_path, *files))
    pair = make_pair(tmp_path / "signing.key")
    config = TrainConfig(
        publish=PublishConfig(
            directory=str(tmp_path / "bundles"), tree=str(tmp_path / "tree"), key_file=str(pair.private)
        ),
        metrics=MetricsConfig(textfile=str(tmp_path / "run.prom")),
    )

    def start(reasons=(), **options):
        monkeypatch.setattr(pipeline.gate, "judge", lambda *_: reasons)
        return pipeline.train(config, SilentProgress(), **options)

    return SimpleNamespace(start=start, config=config, key=pair.key, history=history, folder=tmp_path)


def test_an_accepted_candidate_is_published_signed_and_told(run):
    report = run.start()
    bundle = verify_bundle(resolve_current(Path(run.config.publish.directory)), [run.key])
    assert bundle.path == report.path
    assert bundle.version == report.version
    assert report.samples == run.history.values.size
    text = (run.folder / "run.prom").read_text()
    assert f'anomaly_trainer_bundle_info{{version="{report.version}"}} 1.0' in text
    assert 'anomaly_trainer_phase_duration_seconds{phase="publish"}' in text


def test_a_rejected_candidate_is_told_and_published_nowhere(run):
    report = run.start(("recall is too low",))
    assert (report.outcome, report.path, report.version) == ("rejected", None, "")
    assert not Path(run.config.publish.directory).exists()
    assert not Path(run.config.publish.tree).exists()
    assert 'outcome="rejected"} 1.0' in (run.folder / "run.prom").read_text()


def test_without_deploy_an_accepted_candidate_is_not_published(run):
    report = run.start(deploy=False)
    assert (report.outcome, report.path) == ("accepted", None)
    assert not Path(run.config.publish.directory).exists()


def test_a_run_that_fails_says_so_to_prometheus(run, monkeypatch):
    def broken(*_):
        raise TrainingError("no history")

    monkeypatch.setattr(pipeline, "fetch", broken)
    with pytest.raises(TrainingError):
        run.start()
    assert 'outcome="failed"} 1.0' in (run.folder / "run.prom").read_text()


def test_drift_is_nothing_on_the_same_data_and_names_what_moved(run):
    report = run.start()
    root = Path(run.config.publish.directory)
    reference = drift.read_reference(root, report.version)
    same = drift.compare(reference, run.history.between(0.0, 0.75))
    assert max(one.psi for one in same) < 0.01
    assert max(one.ks for one in same) < 0.02
    values = np.array(run.history.values)
    values[:, :, 3] *= 2.0
    values[:, :, 5] = np.nan
    moved = drift.compare(reference, replace(run.history, values=values))
    assert moved[0].feature == run.history.feature_names[3]
    assert moved[0].psi > 1.0
    assert moved[0].ks > 0.9
    assert math.isnan(moved[-1].psi)  # unknown is not 0
    with pytest.raises(TrainingError, match="no distributions"):
        drift.read_reference(root, "0" * 16)


def test_a_constant_that_moves_either_way_is_drift(small):
    history = small_bundle.history(400)
    values = np.array(history.values)
    values[:, :, 0] = 5.0
    reference = drift.summarise(replace(history, values=values))
    for other, expected in ((5.0, False), (4.9, True), (5.1, True)):
        values[:, :, 0] = other
        (found,) = (
            one
            for one in drift.compare(reference, replace(history, values=np.array(values)))
            if one.feature == history.feature_names[0]
        )
        assert (found.psi > 1.0) is expected
        assert (found.ks > 0.9) is expected


def test_bundles_are_shown_and_set_side_by_side(run):
    report = run.start()
    runner = CliRunner()
    archive = next((Path(run.config.publish.tree) / "archives").iterdir())
    shown = runner.invoke(app, ["bundle", "show", str(archive)])
    assert shown.exit_code == 0
    assert f"signed_by: {run.key.id}" in shown.output
    equal = runner.invoke(app, ["bundle", "diff", str(archive), str(report.path)])
    assert (equal.exit_code, equal.output) == (0, "equal\n")
    starter = small_bundle.__file__
    broken = runner.invoke(app, ["bundle", "show", starter])
    assert broken.exit_code == 1
    assert "Traceback" not in broken.output


def test_the_commands_go_forward_and_back(run):
    first = run.start()
    settings = run.folder / "c.yml"
    publish = run.config.publish
    settings.write_text(
        f"publish: {{directory: {publish.directory}, tree: {publish.tree}, key_file: {publish.key_file}}}\n"
    )
    runner = CliRunner(env={"MLFLOW_TRACKING_URI": "", "PROMETHEUS_URL": "", "PROMETHEUS_GATEWAY": ""})
    staged = runner.invoke(app, ["promote", "--percent", "25", "--config", str(settings)])
    assert staged.exit_code == 0, staged.output
    assert f"offers {first.version} to 25 % of nodes" in staged.output
    again = runner.invoke(
        app, ["publish", str(first.path), "--channel", "candidate", "--config", str(settings)]
    )
    assert again.exit_code == 0, again.output
    assert f"channel candidate offers {first.version}" in again.output
    back = runner.invoke(app, ["rollback", "--config", str(settings)])
    assert back.exit_code == 1
    assert "no version before" in back.output
    elsewhere = runner.invoke(app, ["rollback"], env={"ANOMALY_TRAINER_CONFIG": str(settings)})
    assert "no version before" in elsewhere.output, "the environment names the settings, too"
    wrong = runner.invoke(app, ["rollback", "--channel", "../x", "--config", str(settings)])
    assert wrong.exit_code == 2


def test_a_rollback_in_the_wrong_directory_says_where_it_looked_and_makes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["rollback"])
    assert done.exit_code == 1
    assert f"nothing is published in {tmp_path}/bundles" in done.output.replace("\n", "")
    assert "publish.directory" in done.output
    assert not list(tmp_path.iterdir())


def test_who_must_agree_is_among_what_changed_against_production(small):
    agreed = replace(small.manifest, witnesses=witnesses_among(("lstm", "isolation_forest")))
    lines = changes(agreed, small.bundle())
    assert "an alarm needs no witness before, lstm (90 %) and isolation_forest (70 %) now" in lines
    assert not [line for line in changes(small.manifest, small.bundle()) if "an alarm needs" in line]
