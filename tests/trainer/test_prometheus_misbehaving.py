"""Servers that misbehave in every way we know: one clear error each, and nothing is lost."""

from __future__ import annotations

import ssl
import threading
import time

import numpy as np
import pytest

import rig
from misbehaving import STEP, Misbehaving, always, answer, good, half, hang, result, then
from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.prometheus import read_prometheus

FEATURES = (FEATURES_BY_NAME["memory_available_ratio"],)


def ask(url, **settings):
    settings = {"route": "api"} | settings
    config = PrometheusConfig(url=url, range=2 * STEP, end=11 * STEP, timeout=0.3, **settings)
    return read_prometheus(config, FEATURES, STEP, ignore_report, [].append, backoff_s=0.01)


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
    with Misbehaving(then(always(body=result(series)))) as server:
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
    with Misbehaving(then(always(body=result(*series)))) as server, pytest.raises(SourceError, match=said):
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
            url=server.url, range=40 * STEP, end=40 * STEP, parallel=3, points_per_query=2, route="api"
        )
        read_prometheus(config, FEATURES, STEP, ignore_report, [].append)
    assert most[0] == 3


# --- TLS: tests/fixtures/tls holds an authority, and a certificate with key for 127.0.0.1 and for us


@pytest.fixture
def strict(fixtures):
    """A server that shows a certificate of a private authority and wants one of us."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(fixtures / "tls" / "server.pem")
    context.load_verify_locations(fixtures / "tls" / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with Misbehaving(good, context) as server:
        yield server


def test_a_private_authority_and_our_own_certificate_are_used(strict, fixtures):
    folder = fixtures / "tls"
    history = ask(
        strict.url,
        ca_file=str(folder / "ca.pem"),
        cert_file=str(folder / "client.crt"),
        key_file=str(folder / "client.key"),
    )
    np.testing.assert_array_equal(history.values[:, 0, 0], [0.5, 0.25])


def test_a_server_that_cannot_be_trusted_is_not_asked(strict):
    with pytest.raises(
        SourceError, match=r"failed the TLS handshake \(.*certificate verify failed"
    ) as caught:
        ask(strict.url)
    assert "source.prometheus.ca_file" in caught.value.hint


def test_a_server_that_misses_our_certificate_says_so(strict, fixtures):
    with pytest.raises(SourceError, match="failed the TLS handshake") as caught:
        ask(strict.url, retries=0, ca_file=str(fixtures / "tls" / "ca.pem"))
    assert "cert_file" in caught.value.hint


def test_a_certificate_that_is_not_there_is_named():
    with pytest.raises(SourceError, match=r"cert_file: cannot read /no/where"):
        ask("https://127.0.0.1:1", cert_file="/no/where")
