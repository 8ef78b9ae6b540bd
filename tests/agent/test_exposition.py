"""The metrics: names promtool accepts, nothing that is not known, the whole scrape as a file in git."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

import agent_bundle
from agent_fakes import FakeClock, FakeLog, FakeReloader, make_info, make_score, make_snapshot
from node_anomaly_agent.collectors import COLLECTORS, build_collectors
from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.daemon import Daemon
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import OPENMETRICS, TEXT
from node_anomaly_agent.loop_parts import Parts
from node_anomaly_agent.process_stats import read_process_stats
from node_anomaly_agent.sampler import CollectorStatus, Sampler
from node_anomaly_agent.scorer import load_candidate
from node_anomaly_agent.snapshot import (
    DURATION_BUCKETS,
    Counters,
    Histogram,
    ReloadStatus,
    Snapshot,
    reasons,
)
from node_anomaly_agent.state_keeper import StateKeeper
from node_anomaly_core.errors import BUNDLE_REASONS
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.witnesses import Witness


def scrape(snapshot: Snapshot, **options: bool) -> str:
    return expose(snapshot, "1.2.3", TEXT, **options)


def samples(snapshot: Snapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(scrape(snapshot))
        for sample in family.samples
    }


def names(snapshot: Snapshot) -> set[str]:
    return {name for name, _ in samples(snapshot)}


def value(snapshot: Snapshot, name: str, **labels: str) -> float | None:
    return samples(snapshot).get((name, tuple(sorted(labels.items()))))


def test_a_warm_agent_exposes_its_score_and_what_it_is_made_of():
    snapshot = make_snapshot()
    assert value(snapshot, "anomaly_score") == 0.4
    assert value(snapshot, "anomaly_model_score", model="isolation_forest") == 0.4
    assert value(snapshot, "anomaly_feature_value", feature="disk_read_bytes_per_second") == 2048
    assert value(snapshot, "anomaly_feature_expected", feature="cpu_busy_ratio") == 0.25
    shares = [v for (name, _), v in samples(snapshot).items() if name == "anomaly_feature_contribution_ratio"]
    assert sum(shares) == pytest.approx(1)
    assert value(snapshot, "anomaly_agent_warm") == 1
    assert value(snapshot, "anomaly_agent_features", state="active") == 2
    assert value(snapshot, "anomaly_agent_features", state="missing") == 1


def test_what_is_not_known_has_no_sample():
    snapshot = make_snapshot()
    assert value(snapshot, "anomaly_model_score", model="lstm") is None
    assert value(snapshot, "anomaly_feature_value", feature="temperature_max_celsius") is None
    assert "NaN" not in scrape(snapshot)


def test_until_warm_there_are_values_and_no_score():
    snapshot = make_snapshot(score=make_score(warm=False))
    found = names(snapshot)
    assert not found & {"anomaly_score", "anomaly_model_score", "anomaly_feature_contribution_ratio"}
    assert "anomaly_feature_value" in found
    assert value(snapshot, "anomaly_agent_warm") == 0


def test_before_the_first_tick_only_the_agent_itself_is_there():
    snapshot = Snapshot(started=1.0, interval_s=15.0, heartbeat=1.0)
    found = names(snapshot)
    assert not any(name.startswith(("anomaly_score", "anomaly_feature_", "anomaly_model_")) for name in found)
    assert "anomaly_agent_last_evaluation_timestamp_seconds" not in found
    assert value(snapshot, "anomaly_agent_bundle_last_reload_successful") == 0
    assert value(snapshot, "anomaly_agent_build_info", version="1.2.3") is None
    assert "anomaly_agent_build_info" in found


def test_every_label_value_is_there_from_the_start():
    snapshot = Snapshot(started=1.0, interval_s=15.0, heartbeat=1.0)
    for reason in BUNDLE_REASONS:
        assert value(snapshot, "anomaly_agent_bundle_reload_failures_total", reason=reason) == 0
    for reason in ("sample", "score"):
        assert value(snapshot, "anomaly_agent_evaluation_failures_total", reason=reason) == 0
        assert value(snapshot, "anomaly_agent_evaluation_duration_seconds_count", phase=reason) == 0
    for reason in ("overrun", "no_bundle"):
        assert value(snapshot, "anomaly_agent_evaluation_skipped_total", reason=reason) == 0


def test_the_model_says_where_it_comes_from():
    snapshot = make_snapshot(bundle=make_info(origin="starter"))
    labels = {"model": "lstm", "type": "lstm", "version": "0123456789abcdef", "origin": "starter"}
    assert value(snapshot, "anomaly_model_info", **labels) == 1
    assert value(snapshot, "anomaly_model_trained_timestamp_seconds") is not None


def test_an_alarm_that_was_outgrown_is_a_one_and_unknown_until_the_node_is_warm():
    name = "anomaly_alarm_outgrown"
    assert value(make_snapshot(score=make_score(outgrown=True)), name) == 1
    assert value(make_snapshot(), name) == 0
    assert value(make_snapshot(score=make_score(warm=False)), name) is None


def test_an_alarm_that_is_held_back_is_a_one_and_unknown_until_the_node_is_warm():
    held = make_score(held_back_by=(Witness(("lstm",), 0.9),))
    assert value(make_snapshot(score=held), "anomaly_alarm_held_back") == 1
    assert value(make_snapshot(), "anomaly_alarm_held_back") == 0
    assert value(make_snapshot(score=make_score(warm=False)), "anomaly_alarm_held_back") is None


def test_the_nodes_own_threshold_is_known_from_the_first_tick_on():
    assert value(make_snapshot(), "anomaly_agent_threshold_ratio") == 1.5
    assert value(make_snapshot(score=make_score(warm=False)), "anomaly_agent_threshold_ratio") == 1.5
    assert value(make_snapshot(), "anomaly_agent_threshold_learned_ratio") == 0.05
    fresh = Snapshot(started=1.0, interval_s=15.0, heartbeat=1.0)
    assert value(fresh, "anomaly_agent_threshold_ratio") is None


def test_a_collector_that_failed_is_a_zero_and_one_whose_part_the_host_lacks_is_no_series():
    """So that AnomalyAgentCollectorFailed does not warn about every virtual machine without a thermometer."""
    failed = CollectorStatus(False, 0.001, "/proc/diskstats: Permission denied")
    snapshot = make_snapshot()
    snapshot = replace(snapshot, collectors={**snapshot.collectors, "diskstats": failed})
    assert value(snapshot, "anomaly_agent_collector_success", collector="cpu") == 1
    assert value(snapshot, "anomaly_agent_collector_success", collector="diskstats") == 0
    assert snapshot.collectors["thermal"].missing
    assert value(snapshot, "anomaly_agent_collector_success", collector="thermal") is None
    assert value(snapshot, "anomaly_agent_collector_duration_seconds", collector="cpu") == 0.001


def test_counters_count():
    counters = Counters().add("evaluations").add("failures", "score", 3).observe("score", 0.003)
    snapshot = make_snapshot(counters=counters.add("reload_failures", "digest").add("reloads"))
    assert value(snapshot, "anomaly_agent_evaluations_total") == 1
    assert value(snapshot, "anomaly_agent_evaluation_failures_total", reason="score") == 3
    assert value(snapshot, "anomaly_agent_bundle_reload_failures_total", reason="digest") == 1
    assert value(snapshot, "anomaly_agent_bundle_reloads_total") == 1
    name = "anomaly_agent_evaluation_duration_seconds"
    assert value(snapshot, f"{name}_bucket", phase="score", le="0.0025") == 0
    assert value(snapshot, f"{name}_bucket", phase="score", le="0.005") == 1
    assert value(snapshot, f"{name}_bucket", phase="score", le="+Inf") == 1
    assert value(snapshot, f"{name}_sum", phase="score") == 0.003


@pytest.mark.parametrize("seconds", [0.0, *DURATION_BUCKETS, 99.0], ids=str)
def test_a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed(seconds):
    histogram = Histogram().observe(seconds)
    at = histogram.counts.index(1)
    assert sum(histogram.counts) == 1
    assert at == len(DURATION_BUCKETS) or seconds <= DURATION_BUCKETS[at]
    assert at == 0 or seconds > DURATION_BUCKETS[at - 1]


def test_one_evaluation_without_a_daemon_has_no_counters_and_no_process():
    text = scrape(make_snapshot(process=read_process_stats()), whole_agent=False)
    assert "anomaly_score 0.4" in text
    assert "process_" not in text
    assert "evaluations_total" not in text


def test_openmetrics_says_the_same():
    counters = Counters().add("evaluations").observe("score", 0.003)
    snapshot = make_snapshot(counters=counters, process=read_process_stats())
    text = expose(snapshot, "1.2.3", OPENMETRICS)
    found = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_openmetrics(text)
        for sample in family.samples
    }
    assert found == samples(snapshot)


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot(started=1.0, interval_s=15.0, heartbeat=1.0),
        make_snapshot(score=make_score(warm=False)),
        make_snapshot(process=read_process_stats()),
        make_snapshot(reload=ReloadStatus(reason="digest", message="x")),
    ],
    ids=["fresh", "cold", "warm", "refused"],
)
def test_promtool_accepts_the_scrape_in_every_state(snapshot, lint_metrics: Callable[[str], str]):
    assert lint_metrics(scrape(snapshot)) == ""


def test_reasons_come_largest_first_and_unknown_ones_last():
    found = reasons(make_snapshot(score=make_score(values=(math.nan, 1.0, 2.0))))
    assert [reason.feature.name for reason in found] == [
        "disk_read_bytes_per_second",
        "temperature_max_celsius",
        "cpu_busy_ratio",
    ]
    assert len(reasons(make_snapshot(), 1)) == 1
    assert reasons(make_snapshot(score=None)) == []


_VOLATILE = re.compile(
    r"^(process_\w+|\w+_duration_seconds(_sum|_bucket\{.*\})?|anomaly_agent_build_info"
    r"|anomaly_feature_\w+\{feature=\"(filesystem|clock|temperature)_"
    # the file systems are this machine's, and whoever writes to them meanwhile makes their features move
    r"|anomaly_agent_features\{state=\"(active|constant)\")"
)


def _normalise(text: str) -> str:
    """Values that differ between runs and machines become `*`; floats keep six digits."""
    lines = []
    for line in text.splitlines():
        if line.startswith("#"):
            lines.append(line)
            continue
        series, _, number = line.rpartition(" ")
        series = re.sub(r'(version|pythonversion)="[^"]*"', r'\1="*"', series)
        volatile = _VOLATILE.match(series)
        lines.append(f"{series} {'*' if volatile else format(float(number), '.6g')}")
    return "\n".join(lines) + "\n"


def test_the_whole_scrape_of_the_frozen_machine_is_the_one_in_git(
    fixtures: Path, tmp_path: Path, lint_metrics: Callable[[str], str]
):
    """UPDATE_GOLDEN=1 writes the file anew; review its diff as you would an interface."""
    clock = FakeClock()
    host = fixtures / "host"
    paths = Paths(str(host / "proc"), str(host / "sys"), "/")
    sampler = Sampler(build_collectors(paths, dict.fromkeys(COLLECTORS, True)), CATALOGUE, 60.0)
    bundle = agent_bundle.make_bundle(tmp_path)
    daemon = Daemon(
        Parts(
            sampler=sampler,
            reloader=FakeReloader(clock, load_candidate(bundle, CATALOGUE, 15.0, "")),
            keeper=StateKeeper(None, clock, FakeLog()),
            fallback=lambda _: None,
            clock=clock,
            log=FakeLog(),
            interval_s=15.0,
            process=read_process_stats,
            trim=lambda: None,
        )
    )
    daemon.start()
    for _ in range(25):
        daemon.tick()
        clock.advance(15.0)
    sampler.close()
    text = scrape(daemon.snapshot)
    assert lint_metrics(text) == ""
    golden = fixtures / "golden_metrics.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(_normalise(text))
    assert _normalise(text) == golden.read_text()
