"""Runs in MLflow: a real server that serves artifacts, and the stores without one."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

import mlflow_server
import rig
import small_bundle
from node_anomaly_core.archive import archive_bundle, unpack_archive
from node_anomaly_core.bundle import verify_bundle, write_bundle
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer import registry
from node_anomaly_trainer.channel_tree import Archived
from node_anomaly_trainer.config import PrometheusConfig, SourceConfig, TrainConfig, parse_config
from node_anomaly_trainer.config_delivery import MlflowConfig
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.forecast_figures import ForecastFigures
from node_anomaly_trainer.pipeline import TrainingReport
from node_anomaly_trainer.report.write import Artifacts
from node_anomaly_trainer.settings import InvalidValueError
from node_anomaly_trainer.validate_delivery import check_mlflow

# The server starts in 7 s on an idle machine, and its client imports in 3 s; a busy one takes ten times that.
pytestmark = pytest.mark.timeout(400)

LOSSES = {"lstm": (0.9, 0.5, 0.4)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server.mlflow(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """As an operator gives them to MLflow's own client."""
    for name, value in mlflow_server.CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def archived(tmp_path_factory):
    small = small_bundle.build()
    path = write_bundle(tmp_path_factory.mktemp("bundles"), small.manifest, small.files)
    return Archived(path.name, small.manifest.trained_at, archive_bundle(path))


@pytest.fixture
def report(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("report.html", "report.json", "model_card.md"):
        (run / name).write_text(name)
    return TrainingReport(
        outcome="accepted",
        reasons=(),
        evaluation=Evaluation(
            false_alarms_per_node_week=0.5,
            node_weeks=2.0,
            budget=1.0,
            false_alarms_on_noise=3.16,
            comparison_budget=4.0,
            fault_recall={"combined": 0.8, "lstm": 0.6, "pca": 0.3},
            false_alarms={"combined": 4.0, "lstm": 4.0, "pca": math.nan},
            recall_by_kind={"cpu spike": 0.9},
            faults=40,
            parity_forest_max=1e-12,
            parity_lstm_max=1e-3,
            tick_cpu_seconds=2e-3,
            ticks=400,
            weights={"lstm": 1.2},
            bundle_bytes=123_456,
            accuracy=0.97,
        ),
        path=None,
        version="",
        notes=(),
        excluded={},
        events={},
        seconds=12.0,
        artifacts=Artifacts(run, run / "report.html", run / "report.json", run / "model_card.md"),
        samples=1_000,
        forecast=(
            ForecastFigures(300.0, {"lstm": 0.2}, -0.1, math.nan, {}, math.nan),
            ForecastFigures(900.0, {"lstm": 0.2}, 0.1, 0.2, {"load1_per_cpu_ratio": 0.2}, 0.5),
        ),
    )


def settings(uri: str, **options) -> TrainConfig:
    return TrainConfig(mlflow=MlflowConfig(tracking_uri=uri, timeout=5.0, **options))


def client(uri: str):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_run_is_recorded_with_one_nested_run_for_each_detector(server, report, archived):
    notes = []
    done = registry.record(settings(server.url), report, archived, LOSSES, notes.append)
    assert not notes
    seen = client(server.url)
    run = seen.get_run(done.run)
    assert run.info.status == "FINISHED"
    assert run.data.tags["gate"] == "accepted"
    assert run.data.params["training.seed"] == "7"
    assert run.data.metrics["accuracy"] == 0.97
    assert run.data.metrics["recall_by_kind.cpu_spike"] == 0.9
    assert run.data.metrics["forecast_900s.shown_features"] == 1.0
    assert "forecast_300s.shown_skill" not in run.data.metrics
    assert "false_alarms.pca" not in run.data.metrics  # not known is not 0
    assert {entry.path for entry in seen.list_artifacts(done.run, "report")} == {
        "report/report.html",
        "report/report.json",
        "report/model_card.md",
    }
    nested = seen.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{done.run}'")
    assert {one.data.tags["mlflow.runName"] for one in nested} == {"combined", "lstm", "pca"}
    lstm = next(one for one in nested if one.data.tags["mlflow.runName"] == "lstm")
    assert lstm.data.params["models.lstm.epochs"]
    assert [m.value for m in seen.get_metric_history(lstm.info.run_id, "validation_loss")] == [0.9, 0.5, 0.4]


def test_an_agent_finds_the_bundle_behind_the_alias_with_plain_rest(server, report, archived, tmp_path):
    config = settings(server.url, model="behind-the-alias")
    registry.record(config, report, archived, LOSSES, print)
    assert "challenger" in client(server.url).get_registered_model("behind-the-alias").aliases
    registry.offered(config.mlflow, archived.version, all_nodes=True, note=print)
    api = f"{server.url}/api/2.0/mlflow"
    alias = f"{api}/registered-models/alias?name=behind-the-alias&alias=champion"
    assert rig.fetch(alias)[0] == 401
    status, body = rig.fetch(alias, headers=mlflow_server.authorization())
    assert status == 200
    version = json.loads(body)["model_version"]
    tags = {tag["key"]: tag["value"] for tag in version["tags"]}
    assert (tags["bundle_version"], tags["gate"]) == (archived.version, "accepted")
    assert tags["archive_sha256"] == hashlib.sha256(archived.content).hexdigest()
    assert int(tags["archive_size"]) == len(archived.content)
    seen = client(server.url)
    assert seen.get_registered_model("behind-the-alias").aliases == {"champion": "1"}
    got = seen.download_artifacts(version["run_id"], "bundle/bundle.tar", str(tmp_path))
    (tmp_path / "unpacked").mkdir()
    unpack_archive(io.BytesIO(Path(got).read_bytes()), tmp_path / "unpacked")
    assert verify_bundle(tmp_path / "unpacked").version == archived.version


def test_the_alias_goes_back_with_a_rollback(server, report, archived):
    config = settings(server.url, model="goes-back")
    newer = replace(archived, version="f" * 16)
    for one in (archived, newer):
        registry.record(config, report, one, {}, print)
        registry.offered(config.mlflow, one.version, all_nodes=True, note=print)
    assert client(server.url).get_model_version_by_alias("goes-back", "champion").version == "2"
    registry.offered(config.mlflow, archived.version, all_nodes=True, note=print)
    assert client(server.url).get_model_version_by_alias("goes-back", "champion").version == "1"
    notes = []
    registry.offered(config.mlflow, "0" * 16, all_nodes=True, note=notes.append)
    assert "no version of goes-back" in notes[0]


def test_a_rejected_run_is_recorded_with_its_reasons_and_registers_nothing(server, report, archived):
    refused = replace(report, outcome="rejected", reasons=("recall 5 % is below 30 %",))
    done = registry.record(settings(server.url, model="refused"), refused, archived, {}, print)
    assert done.model_version == ""
    seen = client(server.url)
    tags = seen.get_run(done.run).data.tags
    assert (tags["gate"], tags["mlflow.note.content"]) == ("rejected", "recall 5 % is below 30 %")
    assert [entry.path for entry in seen.list_artifacts(done.run, "bundle")] == ["bundle/bundle.tar"]
    assert not seen.search_registered_models("name = 'refused'")


@pytest.mark.parametrize("given", [{}, {"MLFLOW_TRACKING_PASSWORD": "guessed"}], ids=["none", "wrong"])
def test_without_the_right_password_nothing_is_recorded_and_the_reason_can_be_read(
    server, report, archived, monkeypatch, given
):
    for name in mlflow_server.CREDENTIALS:
        monkeypatch.delenv(name)
    for name, value in (given and mlflow_server.CREDENTIALS | given).items():
        monkeypatch.setenv(name, value)
    notes = []
    assert registry.record(settings(server.url), report, archived, {}, notes.append) is None
    (note,) = notes
    assert note.startswith(f"warning: MLflow at {server.url} refuses ")
    assert ("refuses user trainer" if given else "refuses requests without a user") in note
    assert "MLFLOW_TRACKING_PASSWORD" in note
    assert "<" not in note, "no page of HTML"
    assert "guessed" not in note
    must = settings(server.url, required=True)
    assert check_mlflow(must.mlflow).status == "problem"
    with pytest.raises(TrainingError, match="refuses"):
        registry.require(must.mlflow)  # before anything is trained


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_stores_without_a_server_do(tmp_path, report, archived, scheme, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MLflow puts the artifacts of a database into ./mlruns
    uri = f"sqlite:///{tmp_path}/runs.db" if scheme == "sqlite" else f"file://{tmp_path}/store"
    config = settings(uri)
    assert check_mlflow(config.mlflow).status == "ok"
    done = registry.record(config, report, archived, LOSSES, print)
    assert client(uri).get_run(done.run).data.metrics["accuracy"] == 0.97
    registry.offered(config.mlflow, archived.version, all_nodes=True, note=print)
    champion = client(uri).get_model_version_by_alias("node-anomaly", "champion")
    assert str(champion.version) == done.model_version  # a number in a database, a text behind a server


def test_without_mlflow_the_run_goes_on_and_says_what_is_not_recorded(report, archived):
    notes = []
    assert registry.record(TrainConfig(), report, archived, {}, notes.append) is None
    assert "on this disk only" in notes[0]


def test_a_dead_server_is_a_warning_or_ends_the_run_before_training(report, archived):
    uri = f"http://127.0.0.1:{rig.free_port()}"
    notes = []
    assert registry.record(settings(uri), report, archived, {}, notes.append) is None
    assert notes[0].startswith("warning: MLflow at http://127.0.0.1")
    must = settings(uri, required=True)
    with pytest.raises(TrainingError, match=r"MLflow at http://127\.0\.0\.1") as caught:
        registry.require(must.mlflow)
    assert "MLFLOW_TRACKING_USERNAME" in caught.value.hint
    assert check_mlflow(must.mlflow).status == "problem"
    assert check_mlflow(settings(uri).mlflow).status == "note"
    with pytest.raises(TrainingError):
        registry.record(must, report, archived, {}, print)


def test_nothing_secret_becomes_a_parameter():
    server = PrometheusConfig(headers={"Authorization": "Bearer hunter2"})
    known = registry.parameters(TrainConfig(source=SourceConfig(prometheus=server)))
    assert "hunter2" not in str(known)
    with pytest.raises(InvalidValueError, match="MLFLOW_TRACKING_PASSWORD"):
        MlflowConfig(tracking_uri="http://me:secret@127.0.0.1")


def test_the_environment_fills_in_what_the_file_leaves_out():
    environ = {"MLFLOW_TRACKING_URI": "http://a", "PROMETHEUS_GATEWAY": "b:9091"}
    config = parse_config({}, environ)
    assert (config.mlflow.tracking_uri, config.metrics.pushgateway) == ("http://a", "b:9091")
    config = parse_config({"mlflow": {"tracking_uri": "http://c"}, "metrics": None}, environ)
    assert (config.mlflow.tracking_uri, config.metrics.pushgateway) == ("http://c", "b:9091")


# -- what exactly is recorded, in a store of files


def test_every_figure_that_is_known_has_a_name_and_nothing_else_has_one(report):
    known = registry.figures(report)
    assert known["seconds"] == 12.0
    assert known["samples"] == 1_000.0
    assert (known["fault_recall.pca"], known["weights.lstm"]) == (0.3, 1.2)
    assert {name: value for name, value in known.items() if name.startswith("forecast_")} == {
        "forecast_300s.skill": -0.1,
        "forecast_300s.shown_features": 0.0,
        "forecast_900s.skill": 0.1,
        "forecast_900s.shown_skill": 0.2,
        "forecast_900s.shown_features": 1.0,
    }
    assert not [name for name in known if " " in name]
    assert all(math.isfinite(value) for value in known.values())


@pytest.fixture
def files(tmp_path):
    return f"file://{tmp_path}/store"


def test_a_store_of_files_needs_no_other_place_to_write_to(files, report, archived, monkeypatch):
    """In a working directory where no database can be made, MLflow tried to make one for ten minutes."""
    monkeypatch.chdir("/proc")
    begun, environment = time.monotonic(), dict(os.environ)
    done = registry.record(settings(files), report, archived, {}, print)
    assert done.model_version == "1"
    assert os.environ.get("MLFLOW_TRACKING_URI") == environment.get("MLFLOW_TRACKING_URI")
    assert time.monotonic() - begun < 60.0
    assert client(files).get_model_version("node-anomaly", "1").run_id == done.run


def test_a_detector_has_its_own_figures_and_settings(files, report, archived):
    done = registry.record(settings(files), report, archived, {}, print)
    seen = client(files)
    run = seen.get_run(done.run)
    nested = {
        one.data.tags["mlflow.runName"]: one.data
        for one in seen.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{done.run}'")
    }
    assert nested["lstm"].metrics == {"fault_recall": 0.6, "false_alarms_per_node_week": 4.0, "weight": 1.2}
    assert nested["pca"].metrics == {"fault_recall": 0.3}
    assert nested["lstm"].params
    assert all(name.startswith("models.lstm.") for name in nested["lstm"].params)
    assert nested["combined"].params == {}


def test_what_was_let_pass_stands_at_the_version_and_at_the_run(files, report, archived):
    passed = replace(report, allowances=("few incidents", "a short history"))
    done = registry.record(settings(files), passed, archived, {}, print)
    seen = client(files)
    version = seen.get_model_version("node-anomaly", done.model_version)
    assert version.description == "few incidents; a short history"
    assert version.tags["bundle_trained_at"] == f"{archived.trained_at:.0f}"
    assert seen.get_run(done.run).data.tags["mlflow.note.content"] == "few incidents\na short history"


def test_of_several_versions_of_one_bundle_the_latest_is_offered_and_first_to_some(files, report, archived):
    config = settings(files)
    for _ in range(2):
        registry.record(config, report, archived, {}, print)
    seen = client(files)
    seen.delete_registered_model_alias("node-anomaly", "challenger")
    for all_nodes, alias in ((False, "challenger"), (True, "champion")):
        registry.offered(config.mlflow, archived.version, all_nodes=all_nodes, note=print)
        aliases = seen.get_registered_model("node-anomaly").aliases
        assert {name: str(number) for name, number in aliases.items()} == {alias: "2"}


def test_a_candidate_stays_one_while_another_bundle_is_offered_to_all(files, report, archived):
    config = settings(files)
    for one in (archived, replace(archived, version="f" * 16)):
        registry.record(config, report, one, {}, print)
    registry.offered(config.mlflow, archived.version, all_nodes=True, note=print)
    aliases = client(files).get_registered_model("node-anomaly").aliases
    assert {name: str(number) for name, number in aliases.items()} == {"champion": "1", "challenger": "2"}
