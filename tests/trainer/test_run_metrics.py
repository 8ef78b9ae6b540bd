"""What Prometheus learns of a run, through a real Pushgateway and as a textfile."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import rig
from node_anomaly_trainer import drift
from node_anomaly_trainer.config_delivery import MetricsConfig
from node_anomaly_trainer.drift_metrics import drift_registry
from node_anomaly_trainer.evaluate import Evaluation
from node_anomaly_trainer.pipeline import TrainingReport
from node_anomaly_trainer.progress import SilentProgress
from node_anomaly_trainer.run_metrics import TimedProgress, export, tell, told_when_it_fails
from node_anomaly_trainer.settings import InvalidValueError
from node_anomaly_trainer.validate_delivery import check_metrics


class Notes(SilentProgress):
    """Keeps what it is told."""

    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


@pytest.fixture
def report(tmp_path):
    return TrainingReport(
        outcome="accepted",
        reasons=(),
        evaluation=Evaluation(
            false_alarms_per_node_week=0.5,
            node_weeks=2.0,
            budget=1.0,
            false_alarms_on_noise=3.16,
            comparison_budget=4.0,
            fault_recall={"combined": 0.8, "pca": math.nan},
            false_alarms={},
            recall_by_kind={},
            faults=40,
            parity_forest_max=1e-12,
            parity_lstm_max=math.nan,
            tick_cpu_seconds=2e-3,
            ticks=400,
            weights={},
            bundle_bytes=123_456,
            accuracy=0.97,
        ),
        path=tmp_path / "0123456789abcdef",
        version="0123456789abcdef",
        notes=(),
        excluded={},
        events={},
        seconds=12.0,
        samples=1_000,
        trained_at=1.7e9,
    )


def samples(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def a_phase(progress):
    with progress.phase("history") as move:
        move(0.5, "half")


def test_a_phase_that_comes_again_took_as_long_as_both():
    clock = iter([0.0, 2.0, 10.0, 13.0])
    progress = TimedProgress(Notes(), lambda: next(clock))
    a_phase(progress)
    a_phase(progress)
    assert progress.seconds == {"history": 5.0}


def test_a_run_that_is_killed_has_begun_and_never_ended(tmp_path, report):
    """What the alert AnomalyTrainerFailed tells it by."""
    config = MetricsConfig(textfile=str(tmp_path / "trainer.prom"))
    progress = TimedProgress(Notes())
    with told_when_it_fails(config, progress):
        tell(config, progress, report)
    ended = _values(tmp_path / "trainer.prom")
    assert ended["anomaly_trainer_run_started_timestamp_seconds"] <= ended[LAST]
    with told_when_it_fails(config, progress):
        begun = _values(tmp_path / "trainer.prom")
    assert begun["anomaly_trainer_run_started_timestamp_seconds"] > begun[LAST] == ended[LAST]


LAST = "anomaly_trainer_last_run_timestamp_seconds"


def _values(path):
    families = text_string_to_metric_families(path.read_text())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_a_pushgateway_has_the_figures_and_keeps_them_when_the_next_run_fails(tmp_path, report):
    with rig.pushgateway(tmp_path) as gateway:
        config = MetricsConfig(pushgateway=f"127.0.0.1:{gateway.port}")
        assert [check.status for check in check_metrics(config)] == ["ok"]
        progress = TimedProgress(Notes())
        a_phase(progress)
        tell(config, progress, report)
        with pytest.raises(KeyboardInterrupt), told_when_it_fails(config, TimedProgress(Notes())):
            raise KeyboardInterrupt
        _, text = rig.fetch(f"{gateway.url}/metrics")
        assert not progress._inner.lines
    job = (("instance", ""), ("job", "anomaly-trainer"))
    known = samples(text)
    assert known["model_accuracy", *job] == 0.97
    assert known["anomaly_trainer_run_outcome", *job, ("outcome", "failed")] == 1.0
    assert known["anomaly_trainer_run_outcome", *job, ("outcome", "accepted")] == 0.0
    assert known["anomaly_trainer_bundle_info", *job, ("version", report.version)] == 1.0
    assert known["anomaly_trainer_last_success_timestamp_seconds", *job] > 1.7e9


def test_a_textfile_is_clean_whole_and_remembers_the_last_success(tmp_path, report, lint_metrics):
    config = MetricsConfig(textfile=str(tmp_path / "collector" / "trainer.prom"))
    progress = TimedProgress(Notes())
    a_phase(progress)
    tell(config, progress, report)
    text = (tmp_path / "collector" / "trainer.prom").read_text()
    assert lint_metrics(text) == ""
    first = samples(text)
    assert first["anomaly_trainer_phase_duration_seconds", ("phase", "history")] >= 0.0
    assert first["anomaly_trainer_fault_recall_ratio", ("detector", "combined")] == 0.8
    assert ("anomaly_trainer_fault_recall_ratio", ("detector", "pca")) not in first  # not known is not 0
    tell(config, TimedProgress(Notes()), None)
    text = (tmp_path / "collector" / "trainer.prom").read_text()
    assert lint_metrics(text) == ""
    then = samples(text)
    assert then["anomaly_trainer_run_outcome", ("outcome", "failed")] == 1.0
    for kept in ("anomaly_trainer_last_success_timestamp_seconds", "model_accuracy"):
        assert then[kept,] == first[kept,]
    assert [path.name for path in (tmp_path / "collector").iterdir()] == ["trainer.prom"]


def test_a_rejected_candidate_does_not_pass_for_the_published_one(tmp_path, report):
    config = MetricsConfig(textfile=str(tmp_path / "trainer.prom"))
    tell(config, TimedProgress(Notes()), report)
    refused = replace(report, outcome="rejected", reasons=("no",), path=None, version="", trained_at=1.8e9)
    tell(config, TimedProgress(Notes()), refused)
    known = samples((tmp_path / "trainer.prom").read_text())
    assert known["anomaly_trainer_gate_reasons",] == 1.0
    assert known["anomaly_trainer_bundle_trained_timestamp_seconds",] == 1.7e9


def test_metrics_that_cannot_be_delivered_are_a_warning(tmp_path, report):
    (tmp_path / "file").write_text("")
    config = MetricsConfig(
        pushgateway=f"127.0.0.1:{rig.free_port()}", textfile=str(tmp_path / "file" / "x.prom"), timeout=1.0
    )
    notes = Notes()
    tell(config, TimedProgress(notes), report)
    assert [line.split(":")[0] for line in notes.lines] == ["warning", "warning"]
    assert {check.status for check in check_metrics(config)} == {"note"}
    with pytest.raises(InvalidValueError, match=r"\.prom"):
        MetricsConfig(textfile="metrics.txt")


def test_drift_has_a_bounded_number_of_series_and_figures_over_all(tmp_path, lint_metrics):
    drifts = [drift.FeatureDrift(f"feature_{n}", n / 100, n / 200, 500) for n in range(60, 0, -1)]
    drifts.append(drift.FeatureDrift("gone", math.nan, math.nan, 0))
    path = tmp_path / "drift.prom"
    export(MetricsConfig(textfile=str(path)), drift_registry(drifts, 0.25), print)
    assert lint_metrics(path.read_text()) == ""
    known = samples(path.read_text())
    assert known["anomaly_trainer_feature_drift_psi_max",] == 0.6
    assert known["anomaly_trainer_features_drifted",] == 36
    assert known["anomaly_trainer_features_uncomparable",] == 1
    series = [key for key in known if key[0] == "anomaly_trainer_feature_drift_psi"]
    assert len(series) == drift.MOST_TOLD
    assert np.isfinite(list(known.values())).all()
