"""bench/gate.py: real servers before the gate."""

from __future__ import annotations

import numpy as np
import pytest

from bench_data import TRAIN, server, small_config, write_folder
from bench_programs import program
from node_anomaly_trainer.bench.data import read_manifest


@pytest.fixture
def bench(monkeypatch):
    return program("gate", monkeypatch)


def test_train_parts_end_at_one_tick_and_are_taken_for_normal(bench, tmp_path):
    short = server(2)
    short["train"] = short["train"][100:]
    entries = read_manifest(write_folder(tmp_path, {"web/long": server(1), "web/short": short}))
    history = bench.history_of(entries)
    assert history.ticks == TRAIN
    assert np.isnan(history.values[:100, 1]).all()
    assert np.isfinite(history.values[100:]).all()
    assert (history.labels == 0).all()


def test_a_fleet_is_judged_as_train_does_it_and_the_worst_nodes_are_named(bench, tmp_path):
    entries = read_manifest(write_folder(tmp_path, {f"web/n{at}": server(at) for at in range(3)}))
    row = bench.judged("web", entries, small_config())
    assert (row.fleet, row.outcome) == ("web", "refused" if row.reasons else "accepted")
    assert 0.0 <= row.recall <= 1.0
    assert row.node_weeks > 0
    assert row.alarms >= sum(int(one.split()[1]) for one in row.worst)


def test_servers_of_different_columns_are_no_fleet(bench, tmp_path):
    other = server(2)
    other["columns"] = np.array(["a", "b", "c", "d"])
    entries = read_manifest(write_folder(tmp_path, {"web/one": server(1), "web/two": other}))
    with pytest.raises(ValueError, match="web: servers of different columns"):
        bench.history_of(entries)
