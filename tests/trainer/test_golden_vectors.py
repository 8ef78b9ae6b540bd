"""What a bundle proves itself with: rows and the scores that the trainer got for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench_data import server, small_config, write_folder
from node_anomaly_core.bundle import verify_bundle, write_bundle
from node_anomaly_trainer.bench.data import load, read_manifest
from node_anomaly_trainer.bench.plan import history_of
from node_anomaly_trainer.pipeline import prepare
from node_anomaly_trainer.progress import open_progress


def test_a_fleet_whose_first_node_joined_late_makes_a_bundle_that_agents_take(tmp_path):
    """Of its first hours there are no scores, and golden vectors without one are refused."""
    (entry,) = read_manifest(write_folder(tmp_path / "data", {"web/one": server(1, train=1200)}))
    series, _ = load(entry)
    one = history_of(series, series.train)
    values = np.concatenate([one.values, one.values[:, :, ::-1]], axis=1)
    values[:700, 0] = np.nan
    fleet = replace(one, nodes=("a", "b"), values=values, labels=np.repeat(one.labels, 2, axis=1))
    candidate = prepare(fleet, small_config(), open_progress())
    bundle = verify_bundle(write_bundle(tmp_path, candidate.manifest, candidate.files))
    assert bundle.manifest.models
