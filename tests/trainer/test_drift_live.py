"""Drift from a real Prometheus' history to the shipped rule, which asks for retraining."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import rig
import small_bundle
from node_anomaly_core.bundle import activate, write_bundle
from node_anomaly_trainer import drift
from node_anomaly_trainer.commands import app

INTERVAL_S = 15.0
TICKS = 480
NAMES = [feature.name for feature in small_bundle.FEATURES]
MOVED = NAMES[:5]


def lived(first: float, offset: int, moved: bool) -> str:
    """Two hours of three agents from `first` (unix seconds) on, as Prometheus would have scraped them."""
    lines = []
    for number, node in enumerate(small_bundle.NODES):
        rows = small_bundle.rows(offset + number, TICKS)
        for column, name in enumerate(NAMES):
            values = rows[:, column] * (3.0 if moved and name in MOVED else 1.0)
            series = f'anomaly_feature_value{{feature="{name}",instance="{node}",job="agents"}}'
            lines += [
                f"{series} {value!r} {first + INTERVAL_S * at}\n" for at, value in enumerate(values.tolist())
            ]
    return "".join(lines)


def active(server: rig.Service, name: str) -> list[dict]:
    """Its alerts, pending ones too, as soon as there are any: ALERTS has those of a young server late."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        _, body = rig.fetch(f"{server.url}/api/v1/alerts")
        found = [one for one in json.loads(body)["data"]["alerts"] if one["labels"]["alertname"] == name]
        if found:
            return found
        time.sleep(0.5)
    return []


@pytest.fixture
def published(tmp_path):
    """A bundle that is current, and how its training data were distributed."""
    small = small_bundle.build()
    root = tmp_path / "bundles"
    version = write_bundle(root, small.manifest, small.files).name
    activate(root, version)
    rows = np.stack([small_bundle.rows(seed, 4_000) for seed in range(3)], axis=1)
    past = replace(
        small.history,
        values=rows,
        timestamps=INTERVAL_S * np.arange(len(rows)),
        labels=np.zeros(rows.shape[:2], dtype=np.int8),
    )
    drift.write_reference(root, version, drift.summarise(past))
    return root


def test_nodes_that_live_on_do_not_drift_and_those_that_change_pend_the_alert(published, tmp_path):
    now = (int(time.time()) - 60) // 15 * 15
    rules = tmp_path / "alerts.yml"
    shipped = (rig.REPOSITORY / "rules" / "alerts.yml").read_text()
    rules.write_text(shipped.replace("interval: 30s", "interval: 1s"))  # or this waits for half a minute
    earlier, later = now - 4 * 3_600, now - INTERVAL_S * (TICKS - 1)
    # Before it starts: once it has scraped anything, a Prometheus takes nothing older than an hour.
    both = lived(earlier, 10, moved=False) + lived(later, 20, moved=True)
    rig.backfill(tmp_path / "server", f"{both}# EOF\n")
    with (
        rig.pushgateway(tmp_path / "gateway") as gateway,
        rig.prometheus(tmp_path / "server", {"push": [gateway.port]}, rules=[rules]) as server,
    ):
        settings = tmp_path / "trainer.yml"
        source = {"type": "prometheus", "prometheus": {"url": server.url}}
        document = {
            "source": source,
            "features": NAMES,
            "publish": {"directory": str(published)},
            "metrics": {"pushgateway": gateway.url.removeprefix("http://")},
        }

        def compared(end: float):
            source["prometheus"]["end"] = end
            settings.write_text(yaml.safe_dump(document))
            arguments = ["drift", "--config", str(settings), "--since", "2h", "--output", "json"]
            done = CliRunner().invoke(app, arguments)
            assert done.exception is None or isinstance(done.exception, SystemExit), done.output
            return done.exit_code, json.loads(done.stdout)["features"]

        code, features = compared(earlier + INTERVAL_S * (TICKS - 1))
        assert code == 0, features
        assert len(features) == len(NAMES)
        code, features = compared(now)
        assert code == 3
        assert {one["feature"] for one in features if one["psi"] >= 0.25} == set(MOVED)
        (alert,) = active(server, "AnomalyModelDrifted")
        assert (alert["state"], alert["labels"]["severity"]) == ("pending", "warning"), "it waits for a day"
        (drifted,) = rig.query(server, "anomaly_trainer_features_drifted")
        assert float(drifted["value"][1]) == len(MOVED)
