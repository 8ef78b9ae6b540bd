"""bench/intervals.py: the same servers scraped less often, with windows in seconds and in ticks."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from bench_data import INTERVAL_S, TEST, series, server, small_config, write_folder
from bench_programs import program
from node_anomaly_trainer.bench.data import load, read_manifest
from node_anomaly_trainer.progress import SilentProgress


@pytest.fixture
def intervals(monkeypatch):
    program("ablation", monkeypatch)
    program("history_length", monkeypatch)
    module = program("intervals", monkeypatch)
    monkeypatch.setattr(module, "TrainConfig", small_config)  # two members of few trees
    return module


@pytest.fixture
def data(tmp_path):
    return write_folder(tmp_path / "data", {"web/one": server(1), "web/eu/rate": series(3, 400)})


def asked(data, **options):
    return argparse.Namespace(
        **{
            "data": data, "datasets": (), "entities": "", "every": [3], "false_alarms_per_day": 1.0,
            "jobs": 1, "json": False,
        } | options
    )  # fmt: skip


def test_what_is_left_out_is_not_seen_but_its_events_are(intervals, data, tmp_path):
    entries = read_manifest(data)
    whole, label = load(entries[0])
    for windows, interval in ((intervals.SECONDS, 3 * INTERVAL_S), (intervals.TICKS, INTERVAL_S)):
        folder = tmp_path / windows
        assert intervals.thinned(entries, 3, windows, folder) == 1, "a single series is left out"
        (entry,) = read_manifest(folder)
        thin, events = load(entry)
        assert thin.interval_s == interval
        assert np.array_equal(thin.train, whole.train[2::3])
        assert np.array_equal(thin.test, whole.test[2::3])
        assert len(events) == TEST // 3
        for at, struck in enumerate(events):
            assert struck == label[3 * at : 3 * at + 3].any()


def test_a_false_alarm_a_day_is_one_a_real_day_whatever_the_data_claim(intervals, data, tmp_path, capsys):
    assert intervals.measure(asked(data), tmp_path / "out", SilentProgress())
    head, _, *lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [line[:4] for line in lines[::3]] == [
        ["| web", "180 s", "seconds", "node-anomaly"],
        ["| web", "180 s", "ticks", "node-anomaly"],
    ]
    assert head[6] == "false alarms a day"
    figures = {}
    for windows in (intervals.SECONDS, intervals.TICKS):
        record = tmp_path / "out" / f"scores-3-{windows}" / "web" / "one.json"
        figures[windows] = json.loads(record.read_text())["figures"]["pca"]
    real_days = TEST * INTERVAL_S / 86_400.0
    for windows, line in ((intervals.SECONDS, lines[1]), (intervals.TICKS, lines[4])):
        rate = figures[windows]["false_alarms"] / real_days
        assert float(line[6]) == pytest.approx(rate, abs=0.02 * max(rate, 1.0))


def test_json_counts_in_real_days_too(intervals, data, tmp_path, capsys):
    assert intervals.measure(asked(data, json=True), tmp_path / "out", SilentProgress())
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["3 seconds", "3 ticks"]
    for windows in said.values():
        for figures in windows["web/one"].values():
            assert figures["days"] == pytest.approx(TEST * INTERVAL_S / 86_400.0, rel=0.01)
            if figures["false_alarms_per_day"] is not None:
                rate = figures["false_alarms"] / figures["days"]
                assert figures["false_alarms_per_day"] == pytest.approx(rate, rel=0.05)


def test_every_tick_is_measured_once(intervals, data, tmp_path, capsys):
    assert intervals.measure(asked(data, every=[1], json=True), tmp_path / "out", SilentProgress())
    assert list(json.loads(capsys.readouterr().out)) == ["1 seconds"]


def test_data_without_a_train_part_is_an_error_of_words(intervals, tmp_path, capsys):
    folder = write_folder(tmp_path / "data", {"cloud/rate": series(3, 400)})
    assert intervals.on_data(intervals.measure, asked(folder, out=tmp_path / "out")) == 1
    assert "no entity has a train part" in capsys.readouterr().err
