"""History from a real VictoriaMetrics, which answers Prometheus' API in its own way."""

from __future__ import annotations

import json
import time
import urllib.request

import numpy as np
import pytest

import rig
from misbehaving import STEP
from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.prometheus import read_prometheus

TICKS = 400
FEATURES = tuple(
    FEATURES_BY_NAME[name] for name in ("memory_available_ratio", "forks_per_second", "interrupts_per_second")
)


@pytest.fixture(scope="module")
def victoria(tmp_path_factory):
    start = (int(time.time()) - STEP * (TICKS + 40)) // STEP * STEP
    at = [1000 * (start + STEP * tick) for tick in range(TICKS)]
    node = {"instance": "db-1:9100", "job": "node"}
    agent = {"instance": "db-1:9917", "feature": "interrupts_per_second"}
    ticks = list(range(TICKS))
    lines = [
        {
            "metric": {"__name__": "node_memory_MemTotal_bytes", **node},
            "values": [1000] * TICKS,
            "timestamps": at,
        },
        {
            "metric": {"__name__": "node_memory_MemAvailable_bytes", **node},
            "values": ticks[:200] + ticks[300:],
            "timestamps": at[:200] + at[300:],
        },
        {
            "metric": {"__name__": "node_forks_total", **node},
            "values": [30 * t for t in ticks],
            "timestamps": at,
        },
        {"metric": {"__name__": "anomaly_feature_value", **agent}, "values": ticks, "timestamps": at},
    ]
    with rig.victoria_metrics(tmp_path_factory.mktemp("victoria")) as running:
        body = "\n".join(map(json.dumps, lines)).encode()
        urllib.request.urlopen(urllib.request.Request(f"{running.url}/api/v1/import", data=body)).close()
        rig.fetch(f"{running.url}/internal/force_flush")
        rig.wait_for_query(running, f"last_over_time(node_forks_total[{2 * STEP * TICKS}s])")
        yield running, start


def read(victoria, notes, **settings):
    server, start = victoria
    config = PrometheusConfig(url=server.url, range=TICKS * STEP, end=start + (TICKS - 1) * STEP, **settings)
    return read_prometheus(config, FEATURES, STEP, ignore_report, notes.append)


def test_it_is_read_by_its_api_and_the_log_says_so(victoria):
    notes = []
    history = read(victoria, notes)
    assert notes[-1].startswith("route: api; remote-read is not to be had")
    assert history.nodes == ("db-1",)
    available, forks, interrupts = history.values[:, 0].T
    np.testing.assert_allclose(available[:200], np.arange(200) / 1000)
    assert np.isnan(available[230:300]).all()
    np.testing.assert_allclose(forks[5:], 2.0)
    np.testing.assert_array_equal(interrupts, np.arange(TICKS))


def test_what_it_does_not_have_is_told_with_what_it_has(victoria):
    with pytest.raises(SourceError, match=r"it has 0 of the .* metrics of node_exporter") as caught:
        read(victoria, [], matchers='job="nodes"')
    assert "it holds the jobs node" in caught.value.hint
