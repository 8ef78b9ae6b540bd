"""Every query of the catalogue against a real Prometheus that scrapes a real node_exporter of this host."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import rig
from node_anomaly_agent.collectors import Paths, build_collectors
from node_anomaly_agent.sampler import Sampler
from node_anomaly_core.catalogue import CATALOGUE, METRIC_LABEL, Feature
from node_anomaly_core.features import FeatureEvaluator

MATCHERS = 'job="node"'
OFF_BY_DEFAULT = ("--collector.processes",)


@dataclass(frozen=True)
class Live:
    """A Prometheus with a few scrapes of this host, and the metrics the exporter offers."""

    prometheus: rig.Service
    metrics: frozenset[str]
    values: dict[str, float]  # what the agent computes at about the same time


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live")
    sampler = Sampler(build_collectors(Paths()), CATALOGUE, 60.0)
    with (
        rig.node_exporter(folder / "node", OFF_BY_DEFAULT) as exporter,
        rig.prometheus(folder / "prometheus", {"node": [exporter.port], "other": [exporter.port]}) as server,
    ):
        sampler.sample(time.time())
        # Two jobs scrape the same host: without the matchers every sum would be doubled.
        rig.wait_for_query(server, 'count_over_time(node_load1{job="node"}[1m]) >= 4', 40.0)
        values = sampler.sample(time.time()).values.tolist()
        sampler.close()
        _, text = rig.fetch(f"{exporter.url}/metrics")
        metrics = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
        names = (feature.name for feature in CATALOGUE)
        yield Live(server, frozenset(metrics), dict(zip(names, values, strict=True)))


def needs(feature: Feature) -> set[str]:
    """The metrics of node_exporter that its expression reads."""
    assert feature.expression is not None
    return {leaf.metric.removesuffix(":count") for leaf in feature.expression.leaves()}


@pytest.mark.parametrize("feature", CATALOGUE, ids=lambda f: f.name)
class TestEveryQuery:
    def test_it_runs_as_printed_and_yields_one_series_for_the_instance(
        self, feature: Feature, live: Live
    ) -> None:
        """One series labelled by instance alone where the exporter has the metrics, none where it has not."""
        result = rig.query(live.prometheus, feature.promql("1m", MATCHERS))
        if needs(feature) <= live.metrics:
            assert len(result) == 1
            assert set(result[0]["metric"]) == {"instance"}  # type: ignore[call-overload]
        else:
            assert result == []

    def test_its_level_is_what_the_agent_computes(self, feature: Feature, live: Live) -> None:
        """Levels that hold still are equal at both ends; rates of a test that is running itself are not."""
        result = rig.query(live.prometheus, feature.promql("1m", MATCHERS))
        steady = {
            "memory_available_ratio": 0.05,
            "memory_slab_ratio": 0.05,
            "filesystem_fullest_ratio": 0.01,
            "filesystem_inodes_fullest_ratio": 0.01,
            "filesystem_readonly_count": 0.0,
            "file_descriptors_used_ratio": 0.01,
            "conntrack_used_ratio": 0.01,
        }
        if feature.name in steady and result:
            value = float(result[0]["value"][1])  # type: ignore[index]
            assert live.values[feature.name] == pytest.approx(value, abs=steady[feature.name])


def test_the_exporter_knows_the_metrics_we_name(live: Live) -> None:
    """Only what a virtual machine or an old kernel lacks may be absent; a typo would be here for ever."""
    may_lack = (
        "node_pressure_",
        "node_thermal_zone_",
        "node_nf_conntrack_",
        "node_disk_",
        "node_vmstat_oom",
        "node_hwmon_",
        "anomaly_agent_log_",  # the agent's own
    )
    unknown = {name.removesuffix(":count") for name in METRIC_LABEL} - live.metrics
    assert [name for name in unknown if not name.startswith(may_lack)] == []


def test_the_evaluator_reads_an_exporters_own_labels() -> None:
    """The label the node keeps is one that node_exporter has, so matchers mean the same at both ends."""
    assert set(METRIC_LABEL.values()) == {"", "mode", "device", "mountpoint", "zone", "chip", "source"}
    assert FeatureEvaluator(CATALOGUE, 60.0).features == CATALOGUE


def test_promtool_accepts_every_query_as_a_rule(tmp_path: Path) -> None:
    """`promtool check rules` parses them all, with and without matchers."""
    rules = [
        {"record": f"x:{feature.name}{at}", "expr": feature.promql("4m", matchers)}
        for feature in CATALOGUE
        for at, matchers in enumerate(("", MATCHERS))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "catalogue", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(
        [str(rig.need(rig.PROMTOOL)), "check", "rules", str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
