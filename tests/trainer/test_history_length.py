"""bench/history_length.py: the same servers with less of their past, and nothing else changed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from bench_data import TEST, TRAIN, series, server, small_config, write_folder
from bench_programs import program
from node_anomaly_trainer.bench.data import load, read_manifest
from node_anomaly_trainer.progress import SilentProgress


@pytest.fixture
def length(monkeypatch):
    program("ablation", monkeypatch)
    module = program("history_length", monkeypatch)
    monkeypatch.setattr(module, "TrainConfig", small_config)  # two members of few trees
    return module


@pytest.fixture
def data(tmp_path):
    return write_folder(tmp_path / "data", {"web/one": server(1), "web/eu/rate": series(3, 400)})


def test_the_last_ticks_of_train_are_kept_and_the_test_as_it_is(length, data, tmp_path):
    entries = read_manifest(data)
    whole, label = load(entries[0])
    for ticks, kept in ((100, 100), (0, TRAIN), (5_000, TRAIN)):
        folder = tmp_path / str(ticks)
        assert length.shortened(entries, ticks, folder) == 1, "a single series has no train part to cut"
        (entry,) = read_manifest(folder)
        cut, same = load(entry)
        assert np.array_equal(cut.train, whole.train[-kept:])
        assert np.array_equal(cut.test, whole.test)
        assert np.array_equal(same, label)


def test_each_length_has_its_rows_and_what_is_refused_is_said(length, data, tmp_path, capsys):
    asked = argparse.Namespace(
        data=data, datasets=(), entities="", ticks=[40, 0], false_alarms_per_day=1.0, jobs=1, json=False
    )
    assert length.measure(asked, tmp_path / "out", SilentProgress())
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [line[:3] for line in lines[:3]] == [
        ["| web", "40", "node-anomaly (1 refused)"],
        ["| web", "40", "PCA residual"],
        ["| web", "40", "windowed k-means"],
    ]
    assert lines[3][:3] == ["| web", "all", "node-anomaly"]
    assert float(lines[0][4]) == 0.0
    assert float(lines[3][4]) == 1.0
    scores = Path(tmp_path / "out" / "scores-0" / "web" / "one.csv").read_text(encoding="utf-8")
    assert len(scores.splitlines()) == TEST + 1


def test_json_says_who_was_refused_at_which_length_and_why(length, data, tmp_path, capsys):
    asked = argparse.Namespace(
        data=data, datasets=(), entities="", ticks=[40, 0], false_alarms_per_day=1.0, jobs=1, json=True
    )
    assert length.measure(asked, tmp_path / "out", SilentProgress())
    said = json.loads(capsys.readouterr().out)
    assert "ticks" in said["40"]["web/one"]["refused"]
    assert said["0"]["web/one"]["refused"] == ""
    assert said["0"]["web/one"][length.OURS]["caught"] > 0


def test_data_without_a_train_part_is_an_error_of_words_and_no_table(length, tmp_path, capsys):
    folder = write_folder(tmp_path / "data", {"cloud/rate": series(3, 400)})
    asked = argparse.Namespace(
        data=folder, datasets=(), entities="", ticks=[0], false_alarms_per_day=1.0, jobs=1, json=False,
        out=tmp_path / "out",
    )  # fmt: skip
    assert length.on_data(length.measure, asked) == 1
    said = capsys.readouterr()
    assert "no entity has a train part" in said.err
    assert not said.out


def test_a_folder_that_cannot_be_made_is_an_error_of_words(length, data, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    asked = argparse.Namespace(data=data, out=tmp_path / "file" / "out")
    assert length.on_data(length.measure, asked) == 1
    assert "choose a folder that can be written to" in capsys.readouterr().err
