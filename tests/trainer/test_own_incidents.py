"""bench/own_incidents.py: a fleet is taught by its past and judged on what came later."""

from __future__ import annotations

import numpy as np
import pytest

from bench_data import EVENTS, INTERVAL_S, TEST, TRAIN, server, small_config, write_folder
from bench_programs import program
from node_anomaly_trainer.bench.data import read_manifest
from node_anomaly_trainer.dataset import ANOMALOUS, UNKNOWN
from node_anomaly_trainer.incident_figures import incident_figures

HALF = TEST // 2


@pytest.fixture
def own(monkeypatch):
    return program("own_incidents", monkeypatch)


@pytest.fixture
def entries(tmp_path):
    short = server(2)
    short["train"] = short["train"][100:]
    servers = {"web/long": server(1), "web/short": short, "web/third": server(3)}
    return read_manifest(write_folder(tmp_path / "data", servers))


def test_the_past_of_all_servers_ends_at_one_tick_and_holds_no_label_of_what_comes_later(own, entries):
    config = small_config()
    history = own.fleet_of(own.servers_of(entries), config)
    assert history.ticks == TRAIN + HALF
    assert np.isnan(history.values[:100, 1]).all()
    assert (history.labels[:100, 1] == -1).all()
    assert np.isfinite(history.values[100:]).all()
    first, stop = (TRAIN + tick for tick in EVENTS[0])
    assert EVENTS[1][0] >= HALF
    for node in (0, 1, 2):
        (struck,) = np.nonzero(history.labels[:, node] == 1)
        assert struck.tolist() == list(range(first, stop))
        guard = round(config.labels.guard / INTERVAL_S)
        assert (history.labels[first - guard : first, node] == -1).all()


def test_only_what_came_later_is_judged(own, entries):
    server_, *_ = own.servers_of(entries)
    scores = np.zeros(TEST - HALF)
    assert own.judged(server_, scores).events == 1
    first, stop = (tick - HALF for tick in EVENTS[1])
    scores[first:stop] = 2.0
    figures = own.judged(server_, scores)
    assert (figures.rows, figures.caught, figures.false_alarms, figures.vus_pr) == (TEST - HALF, 1, 0, 1.0)


def test_servers_of_different_columns_are_no_fleet(own, tmp_path):
    other = server(2)
    other["columns"] = np.array(["a", "b", "c", "d"])
    entries = read_manifest(write_folder(tmp_path, {"web/one": server(1), "web/two": other}))
    with pytest.raises(ValueError, match="web: servers of different columns"):
        own.servers_of(entries)


def test_each_way_of_knowing_trains_and_finds_what_is_plain_to_see(own, entries):
    for known in own.KNOWN:
        summary, incidents = own.run(entries, own.settings(small_config(), known, 1.0))
        assert incidents == 1, known  # of all three at once
        assert summary.recall == 1.0, known
        assert summary.vus_pr > 0.7, known
        assert own.line_of(known, summary).startswith(f"| {known} | {summary.vus_pr:.3f} |")


def test_an_alarm_where_nobody_knows_is_neither_right_nor_false():
    score, label = np.zeros(400), np.zeros(400, dtype=np.int8)
    score[100:110], label[90:120] = 2.0, UNKNOWN
    score[300:310], label[300:320] = 2.0, ANOMALOUS
    figures = incident_figures([score], [label], 15.0)
    assert (figures.alarms, figures.precision, figures.recall) == (1, 1.0, 1.0)
