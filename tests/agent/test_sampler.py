"""The sampler: one failing collector spoils nothing, and a sample is complete and in order."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from node_anomaly_agent.collectors import CollectorMissing, Paths, build_collectors
from node_anomaly_agent.collectors.filesystem import FilesystemCollector
from node_anomaly_agent.sampler import Sampler
from node_anomaly_core.catalogue import CATALOGUE, FEATURES_BY_NAME
from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Reading
from node_anomaly_core.features import MAX_SERIES

FEATURES = [FEATURES_BY_NAME["forks_per_second"], FEATURES_BY_NAME["tcp_time_wait_count"]]


class FakeCollector:
    """Yields what it was given, or raises it."""

    def __init__(self, name: str, answer: Reading | Exception) -> None:
        self.name = name
        self.answer = answer
        self.closed = False

    def read(self) -> Reading:
        if isinstance(self.answer, Exception):
            raise self.answer
        return dict(self.answer)

    def close(self) -> None:
        self.closed = True


def half_full(path: str) -> os.statvfs_result:
    """A file system with half of its blocks and a tenth of its inodes in use."""
    return os.statvfs_result((4096, 4096, 1000, 500, 500, 100, 90, 90, 0, 255))


def forks(count: float) -> FakeCollector:
    return FakeCollector("forks", {("node_forks_total", ""): count})


class TestSampler:
    @pytest.mark.parametrize(
        ("failure", "error", "missing"),
        [
            (CollectorMissing("/proc/x: no such file"), "/proc/x: no such file", True),
            (SourceError("it is gone", "look elsewhere"), "it is gone", False),
            (PermissionError(13, "Permission denied", "/proc/x"), "Permission denied", False),
            (ValueError("no 'cpu' line"), "ValueError: no 'cpu' line", False),
            (KeyError("a bug"), "KeyError", False),
        ],
    )
    def test_a_failing_collector_takes_only_its_own_features(
        self, failure: Exception, error: str, missing: bool
    ) -> None:
        """Its status says why, the others have their values."""
        broken = FakeCollector("broken", failure)
        fine = FakeCollector("sockets", {("node_sockstat_TCP_tw", ""): 4.0})
        sample = Sampler([broken, fine], FEATURES, 60.0).sample(5.0)
        np.testing.assert_array_equal(sample.values, [np.nan, 4.0])
        assert sample.timestamp == 5.0
        assert not sample.collectors["broken"].success
        assert error in sample.collectors["broken"].error
        assert sample.collectors["broken"].missing is missing
        assert sample.collectors["sockets"].success
        assert sample.collectors["sockets"].error == ""
        assert all(status.duration_s >= 0.0 for status in sample.collectors.values())

    def test_a_source_with_too_many_series_is_one_that_fails_and_says_so(self) -> None:
        """Its features are missing; the others, and the next tick without it, have theirs."""
        sockets = FakeCollector("sockets", {("node_sockstat_TCP_tw", ""): 4.0})
        many = FakeCollector("many", {("node_forks_total", f"cpu={at}"): 1.0 for at in range(MAX_SERIES + 1)})
        sampler = Sampler([many, sockets], FEATURES, 60.0)
        for at in range(3):
            sample = sampler.sample(5.0 * at)
            assert not sample.collectors["many"].success
            assert "node_forks_total: too many series, 8192 in all" in sample.collectors["many"].error
            assert sample.collectors["sockets"].success
        np.testing.assert_array_equal(sample.values, [np.nan, 4.0])

    def test_a_collector_that_recovers_has_its_rate_from_the_samples_it_has(self) -> None:
        """A failed tick is a gap in the counter, not a 0."""
        collector = forks(0.0)
        sampler = Sampler([collector], FEATURES, 60.0)
        sampler.sample(0.0)
        collector.answer = OSError("for a moment")
        assert np.isnan(sampler.sample(15.0).values).all()
        collector.answer = {("node_forks_total", ""): 60.0}
        assert sampler.sample(30.0).values[0] == 2.0

    def test_a_restored_sampler_has_rates_at_its_first_sample(self) -> None:
        """As `--once` beside a running agent."""
        first = Sampler([forks(100.0)], FEATURES, 60.0)
        first.sample(0.0)
        second = Sampler([forks(130.0)], FEATURES, 60.0)
        assert second.restore(json.loads(json.dumps(first.state())))
        assert second.sample(15.0).values[0] == 2.0
        assert not second.restore({"something": "else"})

    def test_closing_closes_every_collector(self) -> None:
        """Its features are those of the evaluator."""
        collectors = [forks(1.0), forks(2.0)]
        sampler = Sampler(collectors, FEATURES, 60.0)
        assert sampler.features == tuple(FEATURES)
        sampler.close()
        assert all(collector.closed for collector in collectors)


class TestOnAHost:
    def test_the_invented_machine_has_every_feature(self, fixtures: Path) -> None:
        """At the second tick nothing of the catalogue but logs is missing, and known numbers are right."""
        host = fixtures / "host"
        paths = Paths(str(host / "proc"), str(host / "sys"), "/")
        collectors = [c for c in build_collectors(paths) if c.name != "filesystem"]
        collectors.append(FilesystemCollector(paths, half_full))
        sampler = Sampler(collectors, CATALOGUE, 60.0)
        sampler.sample(0.0)
        sample = sampler.sample(15.0)
        columns = zip(CATALOGUE, sample.values.tolist(), strict=True)
        values = {f.name: value for f, value in columns if f.group != "logs"}
        # Nothing moves between two reads of a file, so the shares of CPU time are 0 of 0.
        assert {name for name, value in values.items() if np.isnan(value)} == {
            f.name for f in CATALOGUE if f.group == "cpu" and f.kind == "rate"
        }
        assert values["load1_per_cpu_ratio"] == 1.25 / 4
        assert values["memory_available_ratio"] == 0.75
        assert values["swap_used_ratio"] == 0.25
        assert values["filesystem_fullest_ratio"] == 0.5
        assert values["filesystem_readonly_count"] == 1.0
        assert values["conntrack_used_ratio"] == pytest.approx(0.01, rel=0.01)
        assert values["temperature_max_celsius"] == 61.0
        assert values["sensor_temperature_max_celsius"] == 64.5
        assert values["threads_count"] == 412.0
        assert all(status.success for status in sample.collectors.values())
        sampler.close()

    def test_this_machine_can_be_sampled(self) -> None:
        """Real /proc: CPU shares are shares, and memory is between nothing and all."""
        sampler = Sampler(build_collectors(Paths()), CATALOGUE, 60.0)
        sampler.sample(0.0)
        deadline = 15.0
        values: dict[str, float] = {}
        for _ in range(200):  # until the CPU counters, which tick at 100 Hz, have moved
            sample = sampler.sample(deadline)
            values = dict(zip((f.name for f in CATALOGUE), sample.values.tolist(), strict=True))
            deadline += 15.0
            if not np.isnan(values["cpu_busy_ratio"]):
                break
        assert 0.0 <= values["cpu_busy_ratio"] <= 1.0
        assert 0.0 < values["memory_available_ratio"] <= 1.0
        for name in ("cpu", "loadavg", "memory", "vmstat", "netdev", "diskstats"):
            assert sample.collectors[name].success, sample.collectors[name].error
        sampler.close()
