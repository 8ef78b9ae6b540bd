"""What a finished entity is known by: its data and settings, the code, and what computes."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import node_anomaly_trainer
from bench_data import small_config
from node_anomaly_trainer.bench import record
from node_anomaly_trainer.bench.record import NO_INFLUENCE, fingerprint, has_influence, library_versions

CONFIG = small_config()


def test_fingerprints_name_settings_data_and_loans_but_nothing_else():
    def of(config=CONFIG, **parts):
        return fingerprint({"data": "x", **parts}, config)

    assert of() == of(replace(CONFIG, interval=30.0))
    assert len({of(), of(data="y"), of(borrowed=["z"])}) == 3
    weekly = replace(CONFIG, budget=replace(CONFIG.budget, false_alarms_per_node_week=2.0))
    assert of(weekly) != of()
    assert fingerprint({}, weekly, ("training",)) == fingerprint({}, CONFIG, ("training",))


def test_fingerprints_name_python_and_the_libraries_that_compute(monkeypatch):
    def installed(name):
        if name == "tensorflow":
            raise PackageNotFoundError(name)
        return "2.20"

    versions = library_versions(installed)
    assert versions["python"] == platform.python_version()
    assert (versions["scipy"], versions["tensorflow-cpu"], versions["tensorflow"]) == ("2.20", "2.20", "")
    assert any(library_versions()[name] for name in ("tensorflow", "tensorflow-cpu"))
    before = fingerprint({}, CONFIG)
    monkeypatch.setattr(record, "library_versions", lambda: versions)
    assert fingerprint({}, CONFIG) != before


@pytest.mark.parametrize("name", NO_INFLUENCE)
def test_code_that_no_figure_comes_through_is_there_under_the_name_that_is_left_out(name):
    path = Path(node_anomaly_trainer.__file__).parent / name
    assert path.is_dir() if name.endswith("/") else path.is_file()
    assert not has_influence(name)


def test_an_edit_of_a_command_does_nothing_again_and_one_of_a_model_does():
    assert not has_influence("commands/train.py")
    assert not has_influence("sources/prometheus.py")
    assert has_influence("models/lstm.py")
    assert has_influence("bench/entity.py")
