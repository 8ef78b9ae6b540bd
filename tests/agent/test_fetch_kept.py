"""What a node keeps of what it fetched, whom it believes, and how it goes on after a failure."""

from __future__ import annotations

import shutil
import time

import pytest

import agent_bundle
from bundle_server import TLS
from fetch_world import KEY, NEW, OLD, STRANGER, Node
from node_anomaly_agent import fetch_http
from node_anomaly_agent.bundle_activate import activate_line
from node_anomaly_agent.bundle_depot import KEEP
from node_anomaly_agent.config import load_config
from node_anomaly_agent.fetch import SPREAD
from node_anomaly_agent.fetch_errors import FetchError
from node_anomaly_agent.fetch_http import Access, Client
from node_anomaly_agent.fetch_sources import MlflowSource
from node_anomaly_agent.ledger import Ledger
from node_anomaly_core.bundle import resolve_current, verify_bundle
from node_anomaly_core.errors import BundleError
from node_anomaly_core.signing import PrivateKey

pytestmark = pytest.mark.usefixtures("no_proxy")


def test_the_two_versions_used_last_outlive_any_number_that_were_never_used(serve, tmp_path):
    server = serve()
    node = Node(server, tmp_path)
    names = []
    for number in range(7):
        path = agent_bundle.make_bundle(tmp_path / "made", trained_at=OLD + number)
        server.publish(path, OLD + number)
        assert node.look() == "fetched"
        names.append(path.name)
        if number < 2:
            node.uses(path, OLD + number)
    assert set(names[:2]) <= {path.name for path in node.root.iterdir()}


def test_a_document_cannot_date_an_older_bundle_as_new(serve, made, tmp_path):
    server = serve()
    server.publish(made[OLD], NEW)
    node = Node(server, tmp_path)
    assert node.look() == "bundle"
    assert list(node.root.iterdir()) == []


def test_what_a_server_once_asked_to_wait_is_over_with_the_next_success(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    server.hooks["*"] = lambda request: server.send(request, 503, b"", Retry_After="20000")
    assert node.look() == "server"
    server.hooks.clear()
    assert node.look() == "fetched"
    assert node.fetcher.next_wait() <= 300.0 * (1 + SPREAD)


def test_a_later_document_about_the_current_bundle_is_remembered_against_replays(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    assert node.look() == "fetched"
    (before,) = node.ledger.read().sequences.values()
    server.publish(made[NEW], NEW, sequence=before + 1)
    assert node.look() == "current"
    assert list(node.ledger.read().sequences.values()) == [before + 1]


def test_after_an_activation_the_next_document_is_fetched_even_if_its_download_breaks_once(
    serve, made, tmp_path
):
    server = serve()
    server.publish(made[OLD], OLD, sequence=1)
    node = Node(server, tmp_path)
    assert node.look() == "fetched"
    node.ledger.allow(made[OLD].name)
    document = server.publish(made[NEW], NEW, sequence=2)
    server.hooks[document.archive] = lambda request: server.send(request, 500, b"")
    assert node.look() == "server"
    server.hooks.clear()
    assert node.look() == "fetched"


def test_a_redirect_to_another_port_or_with_a_user_is_refused(serve, made, tmp_path):
    server, other = serve(), serve()
    document = server.publish(made[NEW], NEW)
    other.files = server.files
    for url in (other.url, server.url.replace("//", "//user@")):
        server.hooks[document.archive] = lambda request, url=url: server.send(
            request, 302, b"", Location=f"{url}/{document.archive}"
        )
        assert Node(server, tmp_path).look() == "redirect"


def test_a_download_that_stands_still_is_not_called_a_full_disk(serve, made, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_http, "SOCKET_TIMEOUT_S", 0.3)
    server = serve()
    document = server.publish(made[NEW], NEW)

    def half(request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(document.archive_size))
        request.end_headers()
        request.wfile.write(server.files[document.archive][:2000])
        request.wfile.flush()
        time.sleep(1.0)

    server.hooks[document.archive] = half
    assert Node(server, tmp_path).look() == "timeout"


def test_no_server_can_ask_for_more_than_a_day(serve, tmp_path):
    server = serve()
    node = Node(server, tmp_path)
    server.hooks["*"] = lambda request: server.send(request, 503, b"", Retry_After="99999999")
    assert node.look() == "server"
    assert node.fetcher.next_wait() <= 86400.0 * (1 + SPREAD)


def test_a_renewed_ca_is_used_without_a_restart(serve, made, tmp_path):
    server = serve(tls=True)
    server.publish(made[NEW], NEW)
    ca = tmp_path / "ca.pem"
    ca.write_bytes((TLS / "client.crt").read_bytes())
    node = Node(server, tmp_path, access=Access(ca_file=ca))
    assert node.look() == "tls"
    ca.write_bytes((TLS / "ca.pem").read_bytes())
    assert node.look() == "fetched"


def test_the_versions_fetched_last_stay_as_many_as_are_kept(serve, tmp_path):
    server = serve()
    node = Node(server, tmp_path)
    names = []
    for number in range(5):
        path = agent_bundle.make_bundle(tmp_path / "made", trained_at=OLD + number)
        server.publish(path, OLD + number)
        assert node.look() == "fetched"
        names.append(path.name)
    assert {path.name for path in node.root.iterdir()} == {"current", *names[-KEEP:]}


def test_another_bundle_under_the_wanted_name_is_not_taken_for_it(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    shutil.copytree(made[OLD], node.root / made[NEW].name)
    assert node.look() == "fetched"
    assert verify_bundle(node.root / node.version).version == made[NEW].name


def test_the_signed_document_of_another_channel_is_not_taken(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW, channel="candidate", keys=[KEY])
    for name in ("current.json", "current.json.sig"):
        server.files[f"stable/{name}"] = server.files[f"candidate/{name}"]
    node = Node(server, tmp_path, trusted=[KEY])
    assert node.look() == "document"
    assert node.version == ""


def test_only_what_a_trusted_key_signed_can_be_activated(made, tmp_path):
    name, bundles = made[NEW].name, tmp_path / "bundles"
    shutil.copytree(made[NEW], bundles / name)

    def activated(key: PrivateKey) -> str:
        config = load_config(None, {"bundle.trusted-keys": key.public.base64()}, {})
        return activate_line(name, bundles, tmp_path, config)

    with pytest.raises(BundleError, match="not among the trusted keys"):
        activated(STRANGER)
    assert (Ledger(tmp_path).read().allowed, resolve_current(bundles)) == ("", None)
    assert activated(KEY).startswith("ok")


def test_what_a_broken_copy_left_under_the_wanted_name_is_replaced(serve, made, tmp_path):
    server = serve()
    server.publish(made[NEW], NEW)
    node = Node(server, tmp_path)
    (node.root / made[NEW].name).mkdir(parents=True)
    assert node.look() == "fetched"
    assert verify_bundle(node.root / made[NEW].name).version == made[NEW].name


def test_the_document_just_before_the_last_is_a_replay_also_of_the_same_bundle(serve, made, tmp_path):
    server = serve()
    node = Node(server, tmp_path)
    results = []
    for sequence in (1, 2, 1):
        server.publish(made[NEW], NEW, sequence=sequence)
        results.append(node.look())
    assert results == ["fetched", "current", "replay"]


def test_an_artifact_beside_those_of_the_registry_is_not_asked_for():
    source = MlflowSource(Client(Access()), "https://mlflow", "node-anomaly", "champion")
    with pytest.raises(FetchError, match="not served by the registry"):
        source._artifact("mlflow-artifacts:/1/../../2")
