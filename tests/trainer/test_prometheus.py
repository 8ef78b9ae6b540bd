"""History from a real Prometheus."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rig
from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.prometheus import read_prometheus
from node_anomaly_trainer.sources.routes import chunk_ranges
from node_anomaly_trainer.sources.seen import counted

STEP = 15
START = 1_767_571_200
TICKS = 12_000  # more than the 11,000 points that one query may return
SECONDS = STEP * TICKS
GAP = slice(3_000, 5_000)  # where node b's exporter is down
LOOKBACK_TICKS = 300 // STEP

FEATURES = tuple(
    FEATURES_BY_NAME[name]
    for name in ("memory_available_ratio", "forks_per_second", "cpu_busy_ratio", "temperature_max_celsius")
)


# --- chunks


@given(st.integers(1, 200_000), st.integers(1, 11_000))
def test_chunks_cover_every_tick_once_and_never_exceed_the_limit(ticks, limit):
    ranges = list(chunk_ranges(ticks, limit))
    assert ranges[0][0] == 0
    assert ranges[-1][1] == ticks
    assert all(0 < stop - start <= limit for start, stop in ranges)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


# --- a real server


@pytest.fixture(scope="module", params=rig.PROMETHEUSES, ids=lambda part: part.name)
def server(request, tmp_path_factory):
    """A real Prometheus that holds two days of two nodes; every tick's values are known exactly."""
    folder = tmp_path_factory.mktemp("prometheus")
    with (folder / "history.txt").open("w") as text:
        for family, kind, sample in _families():
            text.write(f"# TYPE {family} {kind}\n")
            for node in ("a", "b"):
                for tick in range(TICKS):
                    if node == "b" and GAP.start <= tick < GAP.stop:
                        continue
                    for labels, value in sample(node, tick):
                        suffix = "_total" if kind == "counter" else ""
                        where = f'{{instance="{node}",job="node"{labels}}}'
                        text.write(f"{family}{suffix}{where} {value} {START + STEP * tick}\n")
        text.write("# EOF\n")
    command = [rig.need(rig.PROMTOOL), "tsdb", "create-blocks-from", "--max-block-duration=48h", "-q"]
    subprocess.run([*command, "openmetrics", folder / "history.txt", folder / "tsdb"], check=True)
    with rig.prometheus(folder, {}, part=request.param) as running:
        yield running


def _families() -> Iterator[tuple[str, str, Callable]]:
    yield "node_memory_MemTotal_bytes", "gauge", lambda _node, _tick: [("", 1e6)]
    yield "node_memory_MemAvailable_bytes", "gauge", lambda node, tick: [("", _available(node, tick))]
    yield "node_forks", "counter", lambda _node, tick: [("", 30.0 * tick)]
    yield (
        "node_cpu_seconds",
        "counter",
        lambda _node, tick: [(',cpu="0",mode="idle"', 12.0 * tick), (',cpu="0",mode="user"', 3.0 * tick)],
    )


def _available(node: str, tick: int) -> float:
    return tick if node == "a" else 500_000 + tick


def config_of(server, **settings):
    return PrometheusConfig(
        url=server.url, range=SECONDS, end=START + SECONDS - STEP, timeout=30.0, **settings
    )


def read(config, features=FEATURES, notes=None):
    record = [].append if notes is None else notes.append
    return read_prometheus(config, features, STEP, ignore_report, record, backoff_s=0.01)


@pytest.fixture(scope="module")
def loaded(server):
    notes = []
    return read(config_of(server), notes=notes), notes


def test_every_sample_lands_on_its_own_tick(loaded):
    """Unique values per tick show that chunks neither shift, nor drop, nor double a sample."""
    history, _ = loaded
    assert history.nodes == ("a", "b")
    np.testing.assert_array_equal(history.timestamps, START + STEP * np.arange(TICKS))
    np.testing.assert_allclose(history.values[:, 0, 0], np.arange(TICKS) / 1e6, atol=1e-12)


def test_chunk_size_does_not_change_the_history(server, loaded):
    small = read(config_of(server, points_per_query=701, parallel=2), FEATURES[:2])
    np.testing.assert_array_equal(small.values, loaded[0].values[:, :, :2])


def test_rates_are_prometheus_rates(loaded):
    history, _ = loaded
    np.testing.assert_allclose(history.values[4:, 0, 1], 2.0, atol=1e-9)
    np.testing.assert_allclose(history.values[4:, 0, 2], 0.2, atol=1e-9)


def test_a_gap_stays_a_gap(loaded):
    values = loaded[0].values[:, 1]
    assert np.isnan(values[GAP.start + LOOKBACK_TICKS : GAP.stop, 0]).all()
    assert np.isnan(values[GAP.start + 4 : GAP.stop, 1]).all()
    assert not np.isnan(values[: GAP.start, 0]).any()
    assert not np.isnan(values[GAP.stop :, 0]).any()


def test_a_feature_without_series_is_missing_and_told_with_its_query(loaded):
    history, notes = loaded
    assert np.isnan(history.values[:, :, 3]).all()
    (note,) = [line for line in notes if line.startswith("no series for")]
    assert note.startswith("no series for temperature_max_celsius: max by (instance)")


def test_labels_are_unknown_and_the_origin_names_server_and_range(loaded, server):
    history, _ = loaded
    assert (history.labels == -1).all()
    assert history.origin["url"] == server.url
    assert history.origin["from"] == "2026-01-05T00:00:00Z"


def test_matchers_choose_the_nodes(server):
    assert read(config_of(server, matchers='instance="b"'), FEATURES[:1]).nodes == ("b",)


def test_no_series_at_all_says_what_was_looked_for(server):
    with pytest.raises(SourceError) as caught:
        read(config_of(server, matchers='job="nodes"'))
    assert 'with matchers job="nodes"' in caught.value.message
    assert "memory_available_ratio" in caught.value.message
    assert "it has 0 of the 5 metrics of node_exporter" in caught.value.message
    assert "it holds the jobs node" in caught.value.hint


def test_a_query_the_server_refuses_is_quoted_with_its_reason(server):
    with pytest.raises(SourceError, match=r"rejected the query \(HTTP 400: .*parse error"):
        read(config_of(server, matchers='job=="node"'))


def test_a_live_server_is_asked_which_jobs_it_has(tmp_path):
    with (
        rig.node_exporter(tmp_path / "exporter") as exporter,
        rig.prometheus(tmp_path / "server", {"machines": [exporter.port]}) as running,
    ):
        rig.wait_for_query(running, "count_over_time(node_load1[1m]) >= 3")
        config = PrometheusConfig(url=running.url, range=60.0, matchers='job="node"')
        with pytest.raises(SourceError) as caught:
            read_prometheus(config, FEATURES, 1.0, ignore_report, print)
        assert "machines" in caught.value.hint
        fine = PrometheusConfig(url=running.url, range=60.0, matchers='job="machines"')
        history = read_prometheus(fine, FEATURES[:1], 1.0, ignore_report, print)
        assert history.nodes == (f"127.0.0.1:{exporter.port}",)
        assert 0.0 < np.nanmax(history.values) < 1.0


@pytest.mark.parametrize(
    "series", [{"metric": {}}, {"metric": {}, "values": [[1, "many"]]}, {"metric": {}, "values": [1]}]
)
def test_counts_that_cannot_be_read_are_an_error_with_the_query(series):
    api = SimpleNamespace(connection=SimpleNamespace(url="http://p:9090"), query_range=lambda *_: [series])
    with pytest.raises(SourceError, match="http://p:9090 answered samples that cannot be read, asked for up"):
        counted(api, "up", SimpleNamespace(start=0, end=600))
