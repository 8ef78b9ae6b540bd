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
from node_anomaly_core.expressions import Match, Written, only
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources import export, remote_read
from node_anomaly_trainer.sources.prometheus import read_prometheus
from node_anomaly_trainer.sources.prometheus_http import Connection
from odd_series import NODES, ODD, odd_history, own
from odd_series import TICKS as ODD_TICKS
from promwrite import STALE, write

TICKS = 400
FEATURES = tuple(
    FEATURES_BY_NAME[name] for name in ("memory_available_ratio", "forks_per_second", "interrupts_per_second")
)
EXPORT = "route: export; it gave api's raw samples on a short range; rates follow Prometheus' rules"


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
        post(running, "import", "\n".join(map(json.dumps, lines)).encode())
        yield running, start


def post(server, path, body):
    """Give samples to VictoriaMetrics, and wait until they can be asked for."""
    urllib.request.urlopen(urllib.request.Request(f"{server.url}/api/v1/{path}", data=body)).close()
    rig.fetch(f"{server.url}/internal/force_flush")


def read(victoria, notes, features=FEATURES, ticks=TICKS, step=STEP, **settings):
    server, start = victoria
    config = PrometheusConfig(url=server.url, range=ticks * step, end=start + (ticks - 1) * step, **settings)
    return read_prometheus(config, features, float(step), ignore_report, notes.append)


@pytest.mark.parametrize(
    ("route", "said", "gap"),
    [("api", "route: api, as configured", 230), ("auto", EXPORT, 220), ("export", EXPORT, 220)],
)
def test_it_is_read_by_export_unless_told_otherwise_and_the_log_says_why(victoria, route, said, gap):
    """Either way a gap stays a gap: VictoriaMetrics guesses a look-back, Prometheus looks back 5 minutes."""
    notes = []
    history = read(victoria, notes, route=route)
    assert notes[-1].startswith(said)
    assert history.nodes == ("db-1",)
    available, forks, interrupts = history.values[:, 0].T
    np.testing.assert_allclose(available[:200], np.arange(200) / 1000)
    assert np.isnan(available[gap:300]).all()
    np.testing.assert_allclose(available[300:], np.arange(300, TICKS) / 1000)
    np.testing.assert_allclose(forks[5:], 2.0)
    np.testing.assert_array_equal(interrupts, np.arange(TICKS))


def test_what_it_does_not_have_is_told_with_what_it_has(victoria):
    with pytest.raises(SourceError, match=r"it has 0 of the .* metrics of node_exporter") as caught:
        read(victoria, [], matchers='job="nodes"')
    assert "it holds the jobs node" in caught.value.hint


def test_it_has_no_remote_read_and_says_so_when_that_was_asked_for(victoria):
    with pytest.raises(SourceError, match=r"cannot be read by remote-read: it does not tell its look-back"):
        read(victoria, [], route="remote_read")


def test_a_text_of_the_users_own_goes_by_the_api_beside_export(victoria):
    notes = []
    text = "max by (instance) (max_over_time(node_forks_total{$matchers}[$window]))"
    written = own("own_peak", Written(text, only("some_local_metric")))
    history = read(victoria, notes, (FEATURES[1], written), matchers='job="node"')
    assert notes[-1] == "route: export, but api for 1 features: own_peak"
    np.testing.assert_allclose(history.values[5:, 0], [[2.0, 30.0 * tick] for tick in range(5, TICKS)])


def test_what_was_read_by_other_rules_is_read_again(victoria, tmp_path):
    """Numbers by VictoriaMetrics' rules and by Prometheus' must not stand beside each other."""
    notes = []
    kept = {"cache": str(tmp_path)}
    by_api = read(victoria, notes, route="api", ticks=TICKS // 2, **kept)
    longer = read(victoria, notes, **kept)
    fresh = read(victoria, [])
    assert by_api.values.shape[0] == TICKS // 2
    assert longer.values.tobytes() == fresh.values.tobytes()
    count = len(notes)
    assert read(victoria, notes, **kept).values.tobytes() == fresh.values.tobytes()
    assert not any(line.startswith("route") for line in notes[count:])


# --- the same samples in a Prometheus


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """One request of remote-write, given to VictoriaMetrics and to Prometheus 3; and to an older one."""
    start = (int(time.time()) - STEP * (ODD_TICKS + 60)) // STEP * STEP
    many = odd_history(start, short=True)
    folder = tmp_path_factory.mktemp("beside")
    with (
        rig.victoria_metrics(folder / "victoria") as victoria,
        rig.prometheus(folder / "old", {}) as old,
        rig.prometheus(folder / "new", {}, part=rig.PROMETHEUS_3) as new,
    ):
        for server in (victoria, old, new):
            write(server.url, many)
        rig.fetch(f"{victoria.url}/internal/force_flush")
        yield victoria, old, new, start


@pytest.mark.parametrize("step", [STEP, 7, 60])
def test_the_same_samples_give_the_same_bits_as_from_prometheus_3(beside, step):
    """Zeros, infinities, resets, gaps, stale markers and changing labels: as if it were a Prometheus."""
    victoria, _, prometheus, start = beside
    ticks = ODD_TICKS * STEP // step
    notes = []
    ours = read((victoria, start), notes, ODD, ticks, step)
    theirs = read((prometheus, start), notes, ODD, ticks, step)
    assert [line.partition(";")[0] for line in notes if "route" in line] == [
        "route: export",
        "route: remote_read",
    ]
    assert ours.nodes == theirs.nodes == NODES
    assert ours.values.tobytes() == theirs.values.tobytes()
    seen = ~np.isnan(ours.values)
    assert seen.any(axis=(0, 1)).all()
    assert not seen.all(axis=(0, 1)).any()


@pytest.mark.parametrize("metric", ["node_odd", "node_odd_total", "node_odd_one"])
def test_raw_samples_are_the_same_from_every_server(beside, metric):
    victoria, *prometheuses, start = beside
    selections = [[Match("__name__", "=", metric), Match("instance", "=~", "[ab].*")]]
    span = 1000 * start, 1000 * (start + STEP * ODD_TICKS)
    (ours,) = export.read_raw(Connection(PrometheusConfig(url=victoria.url)), selections, *span)
    assert len(ours) >= 4
    for server in prometheuses:
        (theirs,) = remote_read.read_raw(Connection(PrometheusConfig(url=server.url)), selections, *span)
        assert [as_plain(one) for one in by_labels(ours)] == [as_plain(one) for one in by_labels(theirs)]


def by_labels(many):
    return sorted(many, key=lambda one: sorted(one.labels.items()))


def as_plain(series):
    return dict(series.labels), series.times.tolist(), series.values.view(np.uint64).tolist()


def test_it_keeps_twelve_digits_and_one_sample_for_a_millisecond(victoria):
    """What the server itself does to samples; of several within a millisecond the largest number is read."""
    server, start = victoria
    labels = {"__name__": "odd_one_out", "instance": "a"}
    long = np.pi * np.arange(1, 101)
    write(server.url, [(labels, 1000 * (start + np.arange(100)), long)])
    write(server.url, [({**labels, "job": "twice"}, [1000 * start], [value]) for value in (2.0, 3.0, STALE)])
    rig.fetch(f"{server.url}/internal/force_flush")
    selection = [Match("__name__", "=", "odd_one_out")]
    connection = Connection(PrometheusConfig(url=server.url))
    (found,) = export.read_raw(connection, [selection], 1000 * start, 1000 * (start + 100))
    one, twice = by_labels(found)
    np.testing.assert_allclose(one.values, long, rtol=1e-12)
    assert twice.values.tolist() == [3.0]
