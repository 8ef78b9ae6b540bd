"""HTTP over real sockets."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from agent_fakes import START, make_snapshot
from node_anomaly_agent.config import Address
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import ReloadStatus, Snapshot
from node_anomaly_agent.web import Application, WebError, WebServer


@dataclass
class Running:
    """A running server whose snapshot and clock a test may change."""

    snapshot: Snapshot = field(default_factory=make_snapshot)
    monotonic: float = 1000.0
    server: WebServer | None = None

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        assert self.server is not None
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        try:
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def application(site: Running) -> Application:
    return Application(lambda: site.snapshot, Site("1.2.3", "db-1"), lambda: START, lambda: site.monotonic)


@pytest.fixture
def site() -> Iterator[Running]:
    site = Running()
    site.server = WebServer(Address("127.0.0.1", 0), application(site))
    site.server.start()
    yield site
    site.server.stop()


def test_the_telemetry_path_gives_the_metrics_as_text(site):
    status, headers, body = site.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"anomaly_score 0.4\n" in body


def test_openmetrics_is_given_to_who_accepts_it(site):
    _, headers, body = site.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0,*/*;q=0.1")
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=x", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_is_used_where_it_is_accepted(site, accepted, zipped):
    _, headers, body = site.ask("/metrics", Accept_Encoding=accepted)
    assert (headers.get("content-encoding") == "gzip") is zipped
    assert b"anomaly_score" in (gzip.decompress(body) if zipped else body)
    assert int(headers["content-length"]) == len(body)


def test_a_short_answer_is_not_zipped(site):
    _, headers, _ = site.ask("/-/ready", Accept_Encoding="gzip")
    assert "content-encoding" not in headers


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/-/reload", "/../etc/passwd", "/favicon.ico"])
def test_anything_else_is_not_found(site, path):
    assert site.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(site, method):
    status, headers, _ = site.ask("/metrics", method)
    assert status == 405
    assert headers["allow"] == "GET, HEAD"


def test_head_gives_the_headers_only(site):
    status, headers, body = site.ask("/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 1000


def test_ready_says_why_not(site):
    assert site.ask("/-/ready")[0] == 200
    site.snapshot = make_snapshot(timestamp=float("nan"), score=None)
    status, _, body = site.ask("/-/ready")
    assert (status, body) == (503, b"not ready: no evaluation has been done yet\n")
    site.snapshot = make_snapshot(bundle=None, reload=ReloadStatus(reason="digest", message="bad digest"))
    assert site.ask("/-/ready")[2] == b"not ready: no bundle is loaded: bad digest\n"


def test_healthy_fails_when_the_loop_no_longer_comes_round(site):
    assert site.ask("/-/healthy")[0] == 200
    site.monotonic += 140
    assert site.ask("/-/healthy")[0] == 200, "ten intervals are allowed"
    site.monotonic += 20
    status, _, body = site.ask("/-/healthy")
    assert (status, body) == (503, b"stalled: no tick for 160 s\n")


def test_the_page_is_html_that_may_load_nothing(site):
    status, headers, body = site.ask("/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert b"<h1>db-1</h1>" in body


def test_a_port_that_is_taken_is_an_error_with_a_hint(site):
    other = WebServer(Address("127.0.0.1", site.server.port), application(site))
    with pytest.raises(WebError, match="cannot listen on 127") as caught:
        other.start()
    assert "--web.listen-address" in caught.value.hint


def test_a_host_that_is_not_ours_is_an_error(site):
    with pytest.raises(WebError, match="cannot listen on"):
        WebServer(Address("192.0.2.1", 0), application(site)).start()


def test_no_host_means_every_address(site):
    server = WebServer(Address("", 0), application(site))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
            assert b" 200 " in connection.recv(1000)
    finally:
        server.stop()


def test_huge_headers_are_refused_and_the_next_request_is_served(site):
    hung_up = contextlib.suppress(ConnectionError)  # which may be before all of it is sent
    with hung_up, socket.create_connection(("127.0.0.1", site.server.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000)
        connection.sendall(b"\r\n\r\n")
        assert b" 200 " not in connection.recv(1000)
    assert site.ask("/-/ready")[0] == 200


@pytest.mark.parametrize(
    "noise", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"], ids=["binary", "short", "v9"]
)
def test_noise_does_not_disturb_the_next_request(site, noise):
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=5) as connection:
        connection.sendall(noise)
        connection.recv(1000)
    assert site.ask("/-/ready")[0] == 200


def test_parallel_scrapes_are_all_served(site):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: site.ask("/metrics")[0], range(100)))
    assert answers == [200] * 100


@pytest.mark.alone
def test_a_client_that_holds_on_does_not_hold_up_the_stop():
    site = Running()
    server = WebServer(Address("127.0.0.1", 0), application(site))
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.1)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 0.5


def test_an_idle_client_is_dropped_and_a_busy_one_is_kept(monkeypatch):
    """Between the time-out and a look more after it."""
    monkeypatch.setattr("node_anomaly_agent.web.TIMEOUT_S", 0.4)
    monkeypatch.setattr("node_anomaly_agent.web.IDLE_LOOK_S", 0.2)
    server = WebServer(Address("127.0.0.1", 0), application(Running()))
    server.start()
    idle, busy = (http.client.HTTPConnection("127.0.0.1", server.port, timeout=5) for _ in range(2))

    def ask(connection: http.client.HTTPConnection) -> int:
        connection.request("GET", "/-/ready")
        answer = connection.getresponse()
        answer.read()
        return answer.status

    assert ask(idle) == ask(busy) == 200
    kept = busy.sock
    for _ in range(8):
        time.sleep(0.15)
        assert ask(busy) == 200
    assert busy.sock is kept
    assert idle.sock.recv(1) == b""
    idle.close()
    busy.close()
    server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "", "::1"])
@pytest.mark.alone
def test_a_stop_does_not_wait_for_the_next_look_at_idle_clients(host):
    """The accept loop sleeps much longer than a stop may take."""
    server = WebServer(Address(host, 0), application(Running()))
    server.start()
    port, started = server.port, time.monotonic()
    server.stop()
    assert time.monotonic() - started < 0.25
    with pytest.raises(OSError, match="refused"), socket.create_connection(("localhost", port), timeout=1):
        pass
