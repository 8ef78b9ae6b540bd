"""Both routes give the same history on the same samples, to the bit, whatever the samples are."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pytest

import rig
from misbehaving import Misbehaving, always, answer, data, result, then
from node_anomaly_core.expressions import Aggregate, Gauge, Written, only, only_rate
from node_anomaly_core.features import CATALOGUE, FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.evaluate_expression import Semantics, can_evaluate, evaluate
from node_anomaly_trainer.sources.matchers import parse_matchers
from node_anomaly_trainer.sources.prometheus import read_prometheus
from node_anomaly_trainer.sources.raw_series import RawSeries
from odd_series import NODES, ODD, STEP, TICKS, odd_history, own
from promwrite import message, write

BOTH = pytest.mark.parametrize("part", rig.PROMETHEUSES, ids=lambda part: part.name)


@pytest.fixture(scope="module", params=rig.PROMETHEUSES, ids=lambda part: part.name)
def odd(request, tmp_path_factory):
    start = (int(time.time()) - STEP * (TICKS + 60)) // STEP * STEP
    with rig.prometheus(tmp_path_factory.mktemp("odd"), {}, part=request.param) as running:
        write(running.url, odd_history(start))
        yield running, start


def read(url, route, features, start, ticks=TICKS, step=STEP, **settings):
    notes = []
    config = PrometheusConfig(
        url=url, range=ticks * step, end=start + (ticks - 1) * step, route=route, **settings
    )
    return read_prometheus(config, features, float(step), ignore_report, notes.append), notes


@pytest.mark.parametrize("step", [STEP, 7, 60])
def test_odd_samples_give_the_same_bits_on_both_routes(odd, step):
    server, start = odd
    ticks = TICKS * STEP // step
    by_api, _ = read(server.url, "api", ODD, start, ticks, step)
    raw, notes = read(server.url, "remote_read", ODD, start, ticks, step)
    assert notes[-1].startswith("route: remote_read; it gave the same numbers")
    assert by_api.nodes == raw.nodes == NODES
    assert by_api.values.tobytes() == raw.values.tobytes()
    seen = ~np.isnan(raw.values)
    assert seen.any(axis=(0, 1)).all()
    assert not seen.all(axis=(0, 1)).any()


@BOTH
def test_the_whole_catalogue_gives_the_same_bits_on_a_real_host(part, tmp_path):
    with (
        rig.node_exporter(tmp_path / "exporter") as exporter,
        rig.prometheus(tmp_path / "server", {"node": [exporter.port]}, part=part) as server,
    ):
        rig.wait_for_query(server, "count_over_time(node_load1[1m]) >= 4", 40.0)
        start = int(time.time()) - 20
        by_api, _ = read(server.url, "api", CATALOGUE, start, 20, 1)
        raw, notes = read(server.url, "auto", CATALOGUE, start, 20, 1)
    assert notes[-1].startswith("route: remote_read;")
    assert by_api.values.tobytes() == raw.values.tobytes()
    assert (~np.isnan(raw.values)).any(axis=(0, 1)).sum() > 30


def test_matchers_of_every_form_choose_the_same_on_both_routes(odd):
    server, start = odd
    matchers = "instance=~'[ab]:9100', job!~\"node-\\\\d\",device!=`sdb`,"
    by_api, _ = read(server.url, "api", ODD[:4], start, matchers=matchers)
    raw, notes = read(server.url, "auto", ODD[:4], start, matchers=matchers)
    assert notes[-1].startswith("route: remote_read;")
    assert raw.nodes == NODES[:2]
    assert by_api.values.tobytes() == raw.values.tobytes()


def test_a_server_without_remote_read_is_read_by_its_api():
    def respond(handler, number):
        if "/status/" in handler.path:
            return always(body=data({}))(handler, number)
        if handler.path.startswith("/api/v1/read"):
            return always(404, "no", "text/plain")(handler, number)
        return always(body=data({"result": [{"metric": {"instance": "a"}, "values": [[150, "1"]]}]}))(
            handler, number
        )

    features = (FEATURES_BY_NAME["memory_available_ratio"],)
    with Misbehaving(then(respond)) as server:
        history, notes = read(server.url, "auto", features, 150, 1)
        assert notes[-1].startswith("route: api; remote-read is not to be had")
        assert history.values.tolist() == [[[1.0]]]
        with pytest.raises(Exception, match="cannot be read by remote-read") as caught:
            read(server.url, "remote_read", features, 150, 1)
        assert "route: auto or api" in caught.value.hint


def test_a_text_of_the_users_own_goes_by_the_api_beside_the_fast_route(odd):
    server, start = odd
    text = "max by (instance) (max_over_time(node_odd_one{$matchers}[$window]))"
    written = own("own_peak", Written(text, only("some_local_metric")))
    mixed, notes = read(server.url, "auto", (ODD[0], written), start, matchers='job=~"node.*"')
    assert notes[-1] == "route: remote_read, but api for 1 features: own_peak"
    by_api, _ = read(server.url, "api", (ODD[0], written), start, matchers='job=~"node.*"')
    assert mixed.values.tobytes() == by_api.values.tobytes()
    assert not np.isnan(mixed.values[:, :, 1]).all()


def as_prometheus(handler, raw):
    """Answers of a Prometheus 2 whose raw samples are `raw`; False if that is not what was asked."""
    if handler.path.startswith("/api/v1/status/buildinfo"):
        answer(handler, body=data({"version": "2.42.0"}))
    elif handler.path.startswith("/api/v1/status/flags"):
        answer(handler, body=data({"query.lookback-delta": "5m"}))
    elif handler.path.startswith("/api/v1/read"):
        answer(handler, body=raw, kind="application/x-protobuf")
    else:
        return False
    return True


GOOD = result({"metric": {"instance": "a"}, "values": [[150, "0.5"]]})


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "cannot be decoded (a number that does not end)"),
        (b"hello, I am a proxy", "cannot be decoded"),
        (b"\x00", "answered 0 of 2 remote-read queries"),
    ],
    ids=["nothing", "text", "too little"],
)
def test_raw_samples_that_are_broken_lead_to_the_api(raw, said):
    features = (FEATURES_BY_NAME["memory_available_ratio"],)
    respond = then(lambda handler, _number: as_prometheus(handler, raw) or answer(handler, body=GOOD))
    with Misbehaving(respond) as server:
        history, notes = read(server.url, "auto", features, 150, 1, retries=0)
    assert notes[-1].startswith("route: api; remote-read is not to be had")
    assert said in notes[-1]
    assert history.values.tolist() == [[[0.5]]]


def test_raw_samples_that_tell_something_else_lead_to_the_api():
    """Here the server has no raw samples of what its queries give."""
    features = (FEATURES_BY_NAME["memory_available_ratio"],)
    empty = bytes(pa.Codec("snappy").compress(message(1, b"") * 2))
    respond = then(lambda handler, _number: as_prometheus(handler, empty) or answer(handler, body=GOOD))
    with Misbehaving(respond) as server:
        history, notes = read(server.url, "auto", features, 150, 1)
    assert notes[-1] == "route: api; the server's raw samples do not give what its queries give"
    assert history.values.tolist() == [[[0.5]]]


# --- what differs between releases


def series(*pairs, **labels):
    return RawSeries(
        {"instance": "a", **labels},
        np.array([at for at, _ in pairs], dtype=np.int64),
        np.array([value for _, value in pairs], dtype=np.float64),
    )


def one(expression, raw, at, semantics, window_ms=60_000):
    found = evaluate(expression, lambda _: [raw], np.array([at]), window_ms, semantics)
    return found["a"][0]


RAMP = series(*((15_000 * at, 100.0 + 15.0 * at) for at in range(5)))  # ends at 60 s


@pytest.mark.parametrize(("left_open", "samples"), [(False, 5), (True, 4)])
def test_prometheus_3_leaves_out_the_left_end_of_a_window(left_open, samples):
    """A ramp of one per second: with either end the rate is 1, but not from the same samples."""
    bent = series(*zip(RAMP.times.tolist(), [0.0, *RAMP.values[1:].tolist()], strict=True))
    rate = one(only_rate("m"), bent, 60_000, Semantics(left_open=left_open))
    assert rate == pytest.approx(1.0 if samples == 4 else 160.0 / 60.0, rel=1e-15 * 8)


@pytest.mark.parametrize(("left_open", "there"), [(False, True), (True, False)])
def test_prometheus_3_has_forgotten_a_sample_that_is_as_old_as_the_look_back(left_open, there):
    value = one(only("m"), series((0, 5.0)), 300_000, Semantics(left_open=left_open))
    assert bool(value == 5.0) is there


def test_a_compensated_sum_keeps_what_a_plain_one_loses():
    many = [series((0, value), device=str(at)) for at, value in enumerate([1e16, 1.0, -1e16])]
    total = {
        flag: evaluate(
            Aggregate("sum", Gauge("m", "device")), lambda _: many, np.array([0]), 60_000,
            Semantics(compensated=flag),
        )["a"][0]
        for flag in (False, True)
    }  # fmt: skip
    assert total == {False: 0.0, True: 1.0}


def test_a_text_of_the_users_own_is_not_evaluated_here():
    assert all(can_evaluate(feature.expression) for feature in CATALOGUE)
    assert not can_evaluate(None)


@pytest.mark.parametrize("text", ["job", 'job="a', "job==1", 'job="a" env="b"', "0b=`a`"])
def test_what_is_no_matcher_is_refused(text):
    with pytest.raises(ValueError, match="no label matcher"):
        parse_matchers(text)
