"""HTTP over real sockets."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import page_states
from agent_fakes import START, make_info, make_score, make_snapshot
from node_anomaly_agent.forecast_status import ForecastStatus
from node_anomaly_agent.snapshot import ReloadStatus, Snapshot
from node_anomaly_core.reasons import Reasons
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


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/-/quit", "/../etc/passwd", "/favicon.ico"])
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


def test_a_loop_that_stands_still_has_no_score_and_pages_nobody_for_the_past(site):
    score = re.compile(rb"^anomaly_score [0-9.]+$", re.MULTILINE)
    counters = re.compile(rb"^anomaly_\w+_total.*$", re.MULTILINE)
    site.snapshot = replace(site.snapshot, forecast=ForecastStatus(None, failures=3))
    before = site.ask("/metrics")[2]
    assert score.search(before)
    site.monotonic += 160
    for _ in range(2):
        after = site.ask("/metrics")[2]
        assert not score.search(after)
        assert b"anomaly_agent_last_evaluation_timestamp_seconds" in after
        assert counters.findall(after) == counters.findall(before), "none of them starts again"
    assert json.loads(site.ask("/api/v1/score")[2])["score"] is None
    site.monotonic -= 160
    assert site.ask("/metrics")[2] == before


def test_the_page_is_html_that_may_load_nothing(site):
    status, headers, body = site.ask("/")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert b"<h1>db-1</h1>" in body


def test_names_that_are_no_utf_8_break_no_answer():
    """As a node's name or a path may be: what Python makes of their bytes cannot be encoded again."""
    snapshot = make_snapshot(bundle=replace(make_info(), version="v\udcff", path="/srv/\udcff"))
    with Running(snapshot, node="bad\udcff").started() as site:
        status, _, page = site.ask("/")
        assert status == 200
        assert "bad?" in page.decode()
        status, _, body = site.ask("/api/v1/score")
        assert status == 200
        assert json.loads(body)["bundle"]["version"] == "v\udcff"
        status, _, body = site.ask("/metrics")
        assert status == 200
        assert 'version="v?"' in body.decode()


def test_a_reload_is_refused_unless_it_was_enabled(site):
    status, _, body = site.ask("/-/reload", "POST")
    assert status == 403
    assert b"--web.enable-lifecycle" in body


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_reload_that_is_enabled_asks_the_reloader(method):
    asked = []
    with Running(reload=lambda: asked.append(method)).started() as site:
        assert site.ask("/-/reload", method)[0] == 200
        assert asked == [method]
        status, headers, _ = site.ask("/-/reload")
        assert (status, headers["allow"]) == (405, "POST, PUT")
    assert len(asked) == 1


def test_the_score_is_given_with_its_models_and_what_is_not_known_is_null(site):
    status, headers, body = site.ask("/api/v1/score")
    document = json.loads(body)
    assert status == 200
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert document["score"] == 0.4
    assert document["anomalous"] is False
    assert document["models"] == {"isolation_forest": 0.4, "lstm": None}
    assert document["bundle"]["version"] == "0123456789abcdef"
    assert document["threshold_ratio"] == 1.5
    assert document["threshold_learned_ratio"] == 0.05
    assert document["held_back_by"] == []
    assert document["outgrown"] is False


@pytest.mark.parametrize(
    "snapshot",
    [
        Snapshot(started=START, interval_s=15.0, heartbeat=0.0),
        make_snapshot(score=None),
        make_snapshot(score=make_score(warm=False)),
        make_snapshot(score=make_score(score=math.inf)),
        make_snapshot(score=make_score(values=(math.nan,) * 3)),
    ],
    ids=["fresh", "failed", "cold", "infinite", "nothing-known"],
)
@pytest.mark.parametrize("path", ["score", "explain", "episodes"])
def test_every_state_is_strict_json(site, snapshot, path):
    site.snapshot = snapshot
    status, _, body = site.ask(f"/api/v1/{path}")
    assert status == 200
    document = json.loads(body, parse_constant=pytest.fail)
    if path == "score":
        assert document["score"] is None or document["warm"]


def test_the_explanation_has_every_feature_largest_share_first_with_what_was_expected(site):
    features = json.loads(site.ask("/api/v1/explain")[2])["features"]
    assert [one["feature"] for one in features][:2] == ["cpu_busy_ratio", "disk_read_bytes_per_second"]
    first = features[0]
    assert (first["observed"], first["expected"], first["direction"]) == (0.5, 0.25, "above")
    assert (first["unit"], first["state"]) == ("ratio", "active")
    assert sum(one["share"] for one in features) == pytest.approx(1.0)
    assert features[2]["observed"] is None


def test_the_explanation_has_what_each_model_alone_blames_largest_share_first(site):
    score = make_score()
    by_member = {"isolation_forest": np.array([0.3, 0.7, 0.0]), "lstm": np.zeros(3)}
    score = replace(score, why=Reasons.known(score.contributions, by_member))
    site.snapshot = make_snapshot(score=score)
    blamed = json.loads(site.ask("/api/v1/explain")[2])["features_by_model"]
    assert list(blamed["isolation_forest"].items()) == [
        ("disk_read_bytes_per_second", 0.7),
        ("cpu_busy_ratio", 0.3),
    ]
    assert blamed["lstm"] == {}


def test_episodes_are_those_of_the_last_hours_newest_first(site):
    site.snapshot = page_states.anomalous()
    episodes = json.loads(site.ask("/api/v1/episodes")[2])["episodes"]
    assert [one["ongoing"] for one in episodes] == [True, False]
    assert episodes[0]["peak"] == pytest.approx(4.6)
    assert episodes[1]["end"] - episodes[1]["start"] == 480


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/api/v1/scores", "GET", 404), ("/api/v1/score", "DELETE", 405)]
)
def test_errors_of_the_api_say_what_where_and_what_next(site, path, method, status):
    given, headers, body = site.ask(path, method)
    assert given == status
    assert headers["content-type"].startswith("application/json")
    assert set(json.loads(body)) == {"error", "where", "next"}
    if status == 405:
        assert headers["allow"] == "GET, HEAD"


def test_a_snapshot_is_rendered_once_for_all_that_scrape_it_and_the_next_one_anew(site, monkeypatch):
    rendered = []
    monkeypatch.setattr(
        "node_anomaly_agent.endpoints.expose", lambda *given: rendered.append(given) or "x 1\n"
    )
    for _ in range(3):
        assert site.ask("/metrics")[2] == b"x 1\n"
    assert len(rendered) == 1
    site.ask("/metrics", Accept="application/openmetrics-text")
    assert len(rendered) == 2
    site.snapshot = make_snapshot()
    site.ask("/metrics")
    assert len(rendered) == 3
