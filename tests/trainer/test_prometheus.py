"""History from a real Prometheus, and from servers that misbehave in every way we know."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rig
from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.prometheus import chunk_ranges, read_prometheus

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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
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
    with rig.prometheus(folder, {}) as running:
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
    (note,) = notes
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
    assert "source.prometheus.range" in caught.value.hint


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


# --- servers that misbehave


class Misbehaving:
    """A tiny HTTP server; `respond(handler, number)` answers the request of that number."""

    def __init__(self, respond):
        self.requests: list[dict[str, list[str]]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(parse_qs(urlsplit(self.path).query))
                outer.headers.append(dict(self.headers))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    respond(self, len(outer.requests))

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def answer(handler, status=200, body="", kind="application/json", **headers):
    data = body.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    for name, value in {"Content_Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def always(status=200, body="", kind="application/json"):
    return lambda handler, _number: answer(handler, status, body, kind)


def result(*series):
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": list(series)}})


def good(handler, number):
    series = {"metric": {"instance": "a"}, "values": [[STEP * 10, "0.5"], [STEP * 11, "0.25"]]}
    answer(handler, body=result(series))


def hang(handler, number):
    time.sleep(3.0)


def half(handler, number):
    answer(handler, body='{"status": "success", "da', Content_Length="5000")
    handler.wfile.flush()
    handler.connection.close()


def ask(url, **settings):
    config = PrometheusConfig(url=url, range=2 * STEP, end=11 * STEP, timeout=0.3, **settings)
    return read(config, FEATURES[:1])


@pytest.mark.parametrize(
    ("respond", "said", "advice", "attempts"),
    [
        pytest.param(
            always(401, "who are you?", "text/plain"),
            r"refused the credentials \(HTTP 401: who are you\?\)", "bearer_token_file", 1, id="401",
        ),
        pytest.param(
            always(404, "404 page not found", "text/plain"),
            "has no query API there", "path of source.prometheus.url", 1, id="404",
        ),
        pytest.param(
            always(429, "{}"),
            r"asks to slow down \(HTTP 429\) after 3 attempts", "parallel", 3, id="429",
        ),
        pytest.param(
            always(500, '{"status":"error","error":"boom"}'),
            r"failed \(HTTP 500: boom\) after 3 attempts", "points_per_query", 3, id="500",
        ),
        pytest.param(
            always(200, "<html>Log in</html>", "text/html; charset=utf-8"),
            "answered an HTML page", "login page", 1, id="html",
        ),
        pytest.param(
            always(502, "<html>Bad gateway</html>", "text/html"),
            r"failed \(HTTP 502\) after 3 attempts", "try again later", 3, id="html 502",
        ),
        pytest.param(
            always(200, "hello", "text/plain"), "text that is not JSON", "API", 1, id="text"
        ),
        pytest.param(
            always(200, '{"data": 3}'), "JSON of another shape", "API", 1, id="other JSON"
        ),
        pytest.param(
            always(200, '{"data": {"result": [3]}}'), "other than query results", "API", 1,
            id="other result",
        ),
        pytest.param(half, "broke off in the middle", "lower points_per_query", 3, id="half a body"),
        pytest.param(hang, r"did not answer within 0\.3 s after 3 attempts", "timeout", 3, id="hang"),
    ],
)  # fmt: skip
def test_a_server_that_misbehaves_gives_one_clear_error(respond, said, advice, attempts):
    with Misbehaving(respond) as server:
        with pytest.raises(SourceError, match=said) as caught:
            ask(server.url, retries=2)
        assert advice in caught.value.hint
        assert server.url in caught.value.message
        assert "\n" not in caught.value.message
        assert len(server.requests) == attempts


def test_nobody_there_is_said_in_the_systems_words():
    with pytest.raises(SourceError, match=r"cannot be reached \(Connection refused\)"):
        ask(f"http://127.0.0.1:{rig.free_port()}", retries=0)


def test_a_server_that_recovers_is_read_as_if_nothing_had_been():
    def respond(handler, number):
        if number % 3:
            answer(handler, 503, "busy", "text/plain", Retry_After="0")
        else:
            good(handler, number)

    with Misbehaving(respond) as server:
        np.testing.assert_array_equal(ask(server.url).values[:, 0, 0], [0.5, 0.25])


def test_values_that_are_no_numbers_are_missing_and_foreign_ticks_are_left_out():
    series = {"metric": {"instance": "a"}, "values": [[STEP * 10, "NaN"], [STEP * 11, "+Inf"], [99, "7"]]}
    with Misbehaving(always(body=result(series))) as server:
        assert np.isnan(ask(server.url).values).all()


@pytest.mark.parametrize(
    ("series", "said"),
    [
        ([{"metric": {}, "values": []}], "without the label instance"),
        ([{"metric": {"instance": "a"}, "values": []}] * 2, "two series for instance a"),
        ([{"metric": {"instance": "a"}, "values": [[1, "x"]]}], "samples cannot be read"),
        ([{"metric": {"instance": "a"}}], "samples cannot be read"),
    ],
)
def test_series_that_are_no_nodes_are_refused(series, said):
    with Misbehaving(always(body=result(*series))) as server, pytest.raises(SourceError, match=said):
        ask(server.url)


def test_credentials_come_from_files_and_headers_go_along(tmp_path):
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    with Misbehaving(good) as server:
        ask(server.url, bearer_token_file=str(secret), headers={"X-Scope-OrgID": "team"})
        ask(server.url, username="me", password_file=str(secret))
        assert server.headers[0]["Authorization"] == "Bearer s3cret"
        assert server.headers[0]["X-Scope-OrgID"] == "team"
        assert server.headers[-1]["Authorization"].startswith("Basic ")
    with pytest.raises(SourceError, match=r"bearer_token_file: cannot read /no/where"):
        ask(server.url, bearer_token_file="/no/where")


def test_a_secret_never_appears_in_an_error(tmp_path):
    secret = tmp_path / "token"
    secret.write_text("s3cret")
    with Misbehaving(always(401, "no", "text/plain")) as server:
        with pytest.raises(SourceError) as caught:
            ask(server.url, bearer_token_file=str(secret))
        assert "s3cret" not in caught.value.message + caught.value.hint


def test_parts_of_a_second_are_refused():
    with pytest.raises(SourceError, match=r"an interval of 1\.5 s"):
        read_prometheus(PrometheusConfig(), FEATURES, 1.5, ignore_report, print)


def test_no_more_queries_run_at_once_than_allowed():
    running, most, lock = [0], [0], threading.Lock()

    def respond(handler, number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        good(handler, number)

    with Misbehaving(respond) as server:
        config = PrometheusConfig(
            url=server.url, range=40 * STEP, end=11 * STEP, parallel=3, points_per_query=2
        )
        read(config, FEATURES[:1])
    assert most[0] == 3
