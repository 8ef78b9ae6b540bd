"""Fetching from real servers, good and bad: a verified bundle arrives whole, all else changes nothing."""

from __future__ import annotations

import errno
import json
import os
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

import agent_bundle
from bundle_server import TLS, BundleServer
from fetch_world import KEY, NEW, NODE, OLD, STRANGER, Node
from node_anomaly_agent import fetch_http
from node_anomaly_agent.fetch import MOST_BACKOFF, SPREAD
from node_anomaly_agent.fetch_http import Access, Client
from node_anomaly_agent.fetch_sources import MlflowSource
from node_anomaly_core.bundle import verify_bundle
from node_anomaly_core.channel import bucket

pytestmark = pytest.mark.usefixtures("no_proxy")


def test_a_signed_bundle_comes_over_tls_and_is_asked_for_once(serve, made, tmp_path):
    server = serve(tls=True)
    server.publish(made[NEW], NEW, keys=[KEY])
    node = Node(server, tmp_path, trusted=[KEY])
    assert node.look() == "fetched"
    assert node.version == made[NEW].name
    assert verify_bundle(node.root / node.version, [KEY.public]).signed_by == KEY.public.id
    assert [node.look(), node.look()] == ["not_modified", "not_modified"]
    assert server.statuses("current.json") == [200, 200, 304, 304]  # with the signature's once
    assert server.statuses(".tar") == [200]
    assert sorted(path.name for path in node.root.iterdir()) == sorted([made[NEW].name, "current"])


def test_after_a_restart_nothing_is_downloaded_again(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    assert Node(server, tmp_path).look() == "fetched"
    assert Node(server, tmp_path).look() == "current"
    assert server.statuses(".tar") == [200]


@pytest.mark.parametrize(
    ("keys", "expected"), [([], "signature"), ([STRANGER], "signature"), ([STRANGER, KEY], "fetched")]
)
def test_with_keys_only_a_document_of_a_trusted_one_is_parsed(serve, made, tmp_path, keys, expected):
    server = serve()
    server.publish(made[NEW], NEW, keys=keys)
    node = Node(server, tmp_path, trusted=[KEY])
    assert node.look() == expected
    if expected != "fetched":
        server.files["stable/current.json"] = b"no JSON, and nobody looks"
        assert node.look() == "signature"
        assert node.version == ""


def test_a_signed_document_does_not_make_up_for_an_unsigned_bundle(serve, tmp_path):
    server = serve()
    unsigned = agent_bundle.make_bundle(tmp_path / "unsigned", trained_at=NEW)
    server.publish(unsigned, NEW, keys=[KEY])
    node = Node(server, tmp_path, trusted=[KEY])
    assert node.look() == "signature"
    assert node.version == ""
    assert not list(node.root.glob(".writing-*"))


def test_a_channel_that_changes_between_document_and_signature_is_not_refused(serve, made, tmp_path):
    """The signature is written first, beside the earlier one."""
    server = serve()
    server.publish(made[OLD], OLD, keys=[KEY])
    before = server.files["stable/current.json"]
    server.publish(made[NEW], NEW, keys=[KEY], sequence=2)
    server.files["stable/current.json"] = before
    assert Node(server, tmp_path, trusted=[KEY]).look() == "fetched"


def test_an_earlier_document_and_an_older_bundle_are_replays(serve, made, tmp_path):
    server = serve()
    server.publish(made[OLD], OLD, sequence=4)
    earlier = dict(server.files)
    node = Node(server, tmp_path)
    assert node.look() == "fetched"
    node.uses(made[OLD], OLD)
    server.publish(made[NEW], NEW, sequence=5)
    assert node.look() == "fetched"
    node.uses(made[NEW], NEW)
    server.files = {**server.files, **earlier}
    assert node.look() == "replay"
    assert Node(server, tmp_path).look() == "replay"  # remembered over a restart
    server.publish(made[OLD], OLD, sequence=6)
    assert node.look() == "replay"
    assert node.version == made[NEW].name
    server.publish(made[OLD], OLD, sequence=7, rollback=True)
    assert node.look() == "fetched"
    assert node.version == made[OLD].name
    assert node.ledger.read().allowed == made[OLD].name
    assert server.statuses(made[OLD].name) == [200]  # it was still there


def test_what_an_operator_activated_outlives_the_document_but_not_the_next(serve, made, tmp_path):
    server = serve()
    for sequence, trained_at in ((1, OLD), (2, NEW)):
        server.publish(made[trained_at], trained_at, sequence=sequence)
        node = Node(server, tmp_path)
        node.look()
        node.uses(made[trained_at], trained_at)
    node.ledger.allow(made[OLD].name)
    node.fetcher._depot.switch(made[OLD].name)
    assert Node(server, tmp_path).look() == "held"
    server.publish(made[NEW], NEW, sequence=3)
    assert Node(server, tmp_path).look() == "fetched"


def test_a_bundle_that_this_node_left_is_not_taken_again(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    node.ledger.leave(made[NEW].name, made[OLD].name)
    assert node.look() == "held"
    assert server.statuses(".tar") == []


def test_a_share_of_nodes_takes_part_and_the_others_download_nothing(serve, made, tmp_path):
    server = serve()
    share = bucket(NODE, "x")
    server.publish(made[NEW], NEW, percent=share * 0.99, salt="x")
    node = Node(server, tmp_path)
    assert node.look() == "not_in_rollout"
    assert server.statuses(".tar") == []
    server.publish(made[NEW], NEW, percent=share * 1.01, salt="x", sequence=2)
    assert node.look() == "fetched"


def test_a_download_that_broke_goes_on_where_it_was(serve, made, tmp_path):
    server = serve()
    document = server.publish(made[NEW], NEW)
    whole = server.files[document.archive]

    def half(request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(whole)))
        request.end_headers()
        request.wfile.write(whole[: len(whole) // 2])
        request.wfile.flush()
        request.connection.shutdown(2)

    server.hooks[document.archive] = half
    node = Node(server, tmp_path)
    assert node.look() == "truncated"
    del server.hooks[document.archive]
    assert node.look() == "fetched"
    resumed = server.seen[-1]
    assert resumed.status == 206
    assert resumed.headers["Range"] == f"bytes={len(whole) // 2}-"


def test_a_server_without_ranges_starts_over(serve, made, tmp_path):
    server = serve()
    document = server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    node.root.mkdir()
    (node.root / f".fetching-{document.archive_sha256[:16]}").write_bytes(b"begun")
    server.hooks[document.archive] = lambda request: server.send(request, 200, server.files[document.archive])
    assert node.look() == "fetched"


def raw(data: bytes) -> Callable[[object], None]:
    def answer(request) -> None:
        request.wfile.write(data)
        request.close_connection = True

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raw(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "server"),
        (raw(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), "auth"),
        (raw(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), "not_found"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"), "truncated"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), "document"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70_000), "size"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n" + b"x" * 70_000), "size"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx"), "truncated"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n"), "server"),
        (raw(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n"), "server"),
        (raw(b"\xff\xfe nonsense\r\n\r\n"), "server"),
        (raw(b""), "truncated"),
        (raw(b"HTTP/1.1 302 Go\r\nLocation: https://other.test/\r\nContent-Length: 0\r\n\r\n"), "redirect"),
        (raw(b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"), "redirect"),
        (raw(b"HTTP/1.1 302 Go\r\nLocation: /stable/current.json\r\nContent-Length: 0\r\n\r\n"), "redirect"),
        (raw(b"HTTP/1.1 300 Many\r\nContent-Length: 0\r\n\r\n"), "redirect"),
    ],
)  # fmt: skip
def test_a_hostile_answer_has_a_name_and_changes_nothing(serve, made, tmp_path, answer, reason):
    server = serve()
    server.publish(made[OLD], OLD)
    node = Node(server, tmp_path)
    node.look()
    server.files["stable/current.json"] = b""
    server.hooks["stable/current.json"] = answer
    assert node.look() == reason
    assert node.version == made[OLD].name
    assert [level for level, event, _ in node.log.lines if event == "bundle not fetched"] == ["warning"]
    server.hooks.clear()
    server.publish(made[NEW], NEW, sequence=2)
    assert node.look() == "fetched"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda archive: archive[:-1] + b"x", "archive"),
        (lambda archive: archive + b"x", "size"),
        (lambda archive: archive[:-1], "truncated"),
        (lambda _archive: b"", "truncated"),
        (lambda _archive: None, "not_found"),
    ],
)
def test_another_archive_than_announced_is_refused_and_gone(serve, made, tmp_path, spoil, reason):
    server = serve()
    document = server.publish(made[NEW], NEW)
    spoilt = spoil(server.files[document.archive])
    if spoilt is None:
        del server.files[document.archive]
    else:
        server.files[document.archive] = spoilt
    node = Node(server, tmp_path)
    assert node.look() == reason
    assert node.version == ""
    assert not [path for path in node.root.iterdir() if not path.name.startswith(".fetching-")]


@pytest.mark.alone
def test_a_slow_server_is_cut_off(serve, made, tmp_path, monkeypatch):
    """Each byte comes in time; the whole does not."""
    server = serve()

    def drip(request) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(100):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.05)

    monkeypatch.setattr(fetch_http, "ANSWER_TIMEOUT_S", 0.4)
    server.hooks["*"] = drip
    started = time.monotonic()
    assert Node(server, tmp_path).look() == "timeout"
    assert time.monotonic() - started < 3.0
    monkeypatch.setattr(fetch_http, "SOCKET_TIMEOUT_S", 0.2)
    server.hooks["*"] = lambda _request: time.sleep(1.0)
    assert Node(server, tmp_path).look() == "timeout"


def test_a_server_that_is_not_there_or_not_the_one(serve, made, tmp_path):
    server = serve(tls=True)
    server.publish(made[NEW], NEW)
    assert Node(server, tmp_path, access=Access()).look() == "tls"  # signed by nobody the system knows
    server.url = server.url.replace("https", "http")
    assert Node(server, tmp_path).look() in ("truncated", "server", "connect")
    plain = serve()
    plain.url = plain.url.replace("http", "https")
    assert Node(plain, tmp_path).look() == "tls"
    plain.url = "https://127.0.0.1:1"
    assert Node(plain, tmp_path).look() == "connect"
    plain.url = "https://no-such-host.invalid"
    assert Node(plain, tmp_path).look() == "connect"


def test_a_client_certificate_opens_the_door(serve, made, tmp_path):
    server = serve(tls=True, client_certificate=True)
    server.publish(made[NEW], NEW)
    assert Node(server, tmp_path).look() in ("tls", "truncated", "connect")
    with_certificate = Access(TLS / "ca.pem", TLS / "client.crt", TLS / "client.key")
    assert Node(server, tmp_path, access=with_certificate).look() == "fetched"
    missing = Access(TLS / "ca.pem", tmp_path / "gone.crt", tmp_path / "gone.key")
    assert Node(server, tmp_path, access=missing).look() == "tls"


def test_the_token_is_read_for_each_request_and_shown_to_nobody(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    token = tmp_path / "token"
    node = Node(server, tmp_path, access=Access(token_file=token))
    assert node.look() == "auth"
    token.write_text("first-secret\n")
    assert node.look() == "fetched"
    token.write_text("second-secret")
    assert node.look() == "not_modified"
    assert server.seen[0].headers["Authorization"] == "Bearer first-secret"
    assert server.seen[-1].headers["Authorization"] == "Bearer second-secret"
    server.hooks["*"] = raw(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    assert node.look() == "auth"
    token.write_text("two words\r\nX: y")
    assert node.look() == "auth"
    assert "secret" not in repr(node.log.lines) + repr(node.fetcher.status)


def test_a_proxy_is_asked_for_https_unless_it_may_not(serve, made, tmp_path, monkeypatch):
    server, proxy = serve(tls=True), serve()
    server.publish(made[NEW], NEW)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert Node(server, tmp_path / "a").look() == "fetched"
    assert {one.path for one in proxy.seen} == {f"127.0.0.1:{server.port}"}
    asked = len(proxy.seen)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert Node(server, tmp_path / "b").look() == "fetched"
    assert len(proxy.seen) == asked


def test_a_redirect_on_the_same_host_is_followed(serve, made, tmp_path):
    server = serve()
    document = server.publish(made[NEW], NEW)
    server.files["elsewhere.tar"] = server.files[document.archive]
    server.hooks[document.archive] = lambda request: server.send(request, 302, b"", Location="/elsewhere.tar")
    assert Node(server, tmp_path).look() == "fetched"


def test_waits_are_spread_grow_with_failures_and_heed_the_server(serve, tmp_path):
    server = serve()
    node = Node(server, tmp_path)
    waits = [node.fetcher.next_wait() for _ in range(500)]
    assert 300.0 * (1 - SPREAD) <= min(waits) < 240.0
    assert 360.0 < max(waits) <= 300.0 * (1 + SPREAD)
    for _ in range(10):
        assert node.look() == "not_found"
    assert node.fetcher.next_wait() >= 300.0 * MOST_BACKOFF * (1 - SPREAD)
    assert node.fetcher.next_wait() <= 300.0 * MOST_BACKOFF * (1 + SPREAD)
    server.hooks["*"] = lambda request: server.send(request, 503, b"", Retry_After="20000")
    assert node.look() == "server"
    assert 20000.0 <= node.fetcher.next_wait() <= 25000.0
    server.hooks["*"] = lambda request: server.send(request, 429, b"", Retry_After="soon")
    assert node.look() == "server"
    assert node.fetcher.next_wait() <= 300.0 * MOST_BACKOFF * (1 + SPREAD)


def test_a_disk_that_refuses_is_a_failure_with_a_name(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    node.root.write_text("a file where the directory should be")
    assert node.look() == "disk"


def test_an_error_of_ours_does_not_end_the_thread(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    node.fetcher._depot.take = lambda *_: 1 / 0
    assert node.look() == "internal"


def mlflow(server: BundleServer, bundle: Path, trained_at: float, number: int, **tags: str) -> None:
    """Answers as MLflow 3 gives them."""
    document = server.publish(bundle, trained_at, channel="unused")
    values = {
        "bundle_version": bundle.name,
        "bundle_trained_at": repr(trained_at),
        "archive_sha256": document.archive_sha256,
        "archive_size": str(document.archive_size),
        **tags,
    }
    version = {
        "name": "node-anomaly",
        "version": str(number),
        "creation_timestamp": 1_700_000_000_000,
        "tags": [{"key": key, "value": value} for key, value in values.items()],
    }
    api = "api/2.0/mlflow"
    server.files[f"{api}/registered-models/alias"] = json.dumps({"model_version": version}).encode()
    uri = {"artifact_uri": f"mlflow-artifacts:/1/models/m-{number}/artifacts"}
    server.files[f"{api}/model-versions/get-download-uri"] = json.dumps(uri).encode()
    where = f"api/2.0/mlflow-artifacts/artifacts/1/models/m-{number}/artifacts/bundle.tar"
    server.files[where] = server.files[document.archive]


def test_an_alias_of_mlflow_brings_its_bundle(serve, made, tmp_path):
    server = serve()
    mlflow(server, made[OLD], OLD, 3)
    client = Client(Access())
    node = Node(server, tmp_path, source=MlflowSource(client, server.url, "node-anomaly", "production"))
    assert node.look() == "fetched"
    node.uses(made[OLD], OLD)
    assert server.seen[0].path.endswith("alias?name=node-anomaly&alias=production")
    assert node.look() == "not_modified"
    mlflow(server, made[NEW], NEW, 4)
    assert node.look() == "fetched"
    node.uses(made[NEW], NEW)
    mlflow(server, made[OLD], OLD, 3)
    assert node.look() == "replay"
    mlflow(server, made[NEW], NEW, 5, archive_sha256="x")
    assert node.look() == "document"
    server.files["api/2.0/mlflow/registered-models/alias"] = b"[]"
    assert node.look() == "document"
    assert node.version == made[NEW].name


def test_a_service_that_may_open_no_connection_is_told_how_it_may():
    """Under the shipped unit without its drop-in; the booted systemd in tests/deploy has it for real."""
    refused = OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    error = fetch_http._explained("https://bundles.example.org/x", urllib.error.URLError(refused))
    assert error.reason == "connect"
    assert "network.conf" in error.hint
