"""The trainer reads the own features that the agents have, from the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rig
from node_anomaly_core.errors import ConfigError
from node_anomaly_core.features import CATALOGUE
from node_anomaly_trainer.config import TrainConfig, parse_config
from node_anomaly_trainer.own_features import read_own_features
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources import fetch, wanted_features

QUEUE = """
features:
  - name: mail_queue_count
    unit: count
    help: Mails that wait.
    kind: gauge
    floor: 5
    promql: max by (instance) (mail_queue{$matchers})
    source: {exporter: node_exporter, metric: mail_queue}
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.yml"
    path.write_text(QUEUE)
    return path


def config(own: Path, source: str = "prometheus", **settings: object) -> TrainConfig:
    return parse_config({"own_features": str(own), "source": {"type": source}, **settings})


def test_own_features_come_after_the_catalogue(own):
    features = wanted_features(config(own))
    assert features[:-1] == CATALOGUE
    assert features[-1].promql("1m", 'job="x"') == 'max by (instance) (mail_queue{job="x"})'


def test_they_may_be_asked_for_by_name(own):
    names = [f.name for f in wanted_features(config(own, features=["mail_queue_count", "forks_per_second"]))]
    assert names == ["mail_queue_count", "forks_per_second"]
    with pytest.raises(ConfigError, match="did you mean mail_queue_count"):
        wanted_features(config(own, features=["mail_queues_count"]))


def test_a_simulated_fleet_has_none_of_them(own):
    assert wanted_features(config(own, "synthetic")) == CATALOGUE


def test_without_a_file_there_is_only_the_catalogue():
    assert wanted_features(parse_config({})) == CATALOGUE


def test_a_column_of_that_name_is_that_feature(own, tmp_path):
    """A file with the history of an own feature: unit and floor are the user's, not guesses."""
    csv = tmp_path / "history.csv"
    csv.write_text("timestamp,mail_queue_count\n1700000000,3\n1700000015,4\n")
    source = {"type": "file", "file": {"path": str(csv)}}
    settings = parse_config({"own_features": str(own), "source": source})
    (feature,) = fetch(settings, ignore_report, print).features
    assert (feature.unit, feature.floor, feature.group) == ("count", 5.0, "own")


def test_prometheus_is_asked_for_them_as_they_are_written(tmp_path):
    """A gauge and a rate of a real node_exporter, beside the catalogue and whatever route it takes."""
    path = tmp_path / "own.yml"
    path.write_text(
        QUEUE.replace("mail_queue{", "node_memory_MemTotal_bytes{").replace(
            "metric: mail_queue", "metric: node_memory_MemTotal_bytes"
        )
        + """
  - name: exporter_busy_ratio
    unit: ratio
    help: CPU time of the exporter itself.
    kind: rate
    floor: 0.01
    promql: sum by (instance) (rate(process_cpu_seconds_total{job="node"}[$window]))
    source: {exporter: node_exporter, metric: process_cpu_seconds_total}
"""
    )
    with (
        rig.node_exporter(tmp_path / "node") as exporter,
        rig.prometheus(tmp_path / "prometheus", {"node": [exporter.port]}) as server,
    ):
        rig.wait_for_query(server, "count_over_time(node_load1[1m]) >= 4", 30.0)
        prometheus = {"url": server.url, "matchers": 'job="node"', "range": "60s"}
        settings = config(
            path, interval="1s", features=["mail_queue_count", "exporter_busy_ratio", "load1_per_cpu_ratio"]
        )
        settings = replace(
            settings, source=parse_config({"source": {"type": "prometheus", "prometheus": prometheus}}).source
        )
        history = fetch(settings, ignore_report, lambda _: None)
        ((_, total),) = [one["value"] for one in rig.query(server, "node_memory_MemTotal_bytes")]
    assert history.nodes == (f"127.0.0.1:{exporter.port}",)
    values = dict(zip((f.name for f in history.features), history.values[:, 0].T, strict=True))
    assert np.nanmax(values["mail_queue_count"]) == float(total)
    assert np.nanmax(values["exporter_busy_ratio"]) > 0
    assert not np.isnan(values["load1_per_cpu_ratio"]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("features: [", "not YAML"),
        ("features: []\nfeatures: []", r"own\.yml: line 2, column 1: the key features is given twice"),
        ("- 1", "expected the one key `features`"),
        (QUEUE.replace("unit: count", "unit: mails"), r"own\.yml: features\[0\]\.unit: must be one of"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "own.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_own_features(path)
