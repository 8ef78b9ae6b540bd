"""HTTP over real sockets."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import pytest

from agent_fakes import make_snapshot
from node_anomaly_agent.snapshot import ReloadStatus
from web_site import Running


@pytest.fixture
def site() -> Iterator[Running]:
    with Running().started() as site:
        yield site


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
