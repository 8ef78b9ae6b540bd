"""TLS, users and headers in force on a real server, and re-read while it runs."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import bcrypt
import pytest

import rig
from agent_fakes import FakeLog
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import TEXT
from node_anomaly_agent.web_auth import REMEMBERED, Users
from node_anomaly_agent.web_guard import WebGuard, load_in_force
from node_anomaly_core.errors import ConfigError
from web_site import Running

TLS = Path(__file__).parent.parent / "fixtures" / "tls"
HASH = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
WITH_TLS = "tls_server_config: {cert_file: server.pem, key_file: server.pem%s}\n"
CLIENTS = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem"
USERS = f"basic_auth_users: {{ali: '{HASH}'}}\n"


@pytest.fixture
def home(tmp_path) -> Path:
    """A directory with certificates and an empty web.yml."""
    for file in TLS.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "web.yml").write_text("")
    return tmp_path


@contextlib.contextmanager
def serving(home: Path, text: str) -> Iterator[Running]:
    (home / "web.yml").write_text(text)
    log = FakeLog()
    with Running(log=log, guard=WebGuard(home / "web.yml", log)).started() as site:  # type: ignore[arg-type]
        yield site


def client(**certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(TLS / "ca.pem"))
    if certificate:
        context.load_cert_chain(**certificate)
    return context


def ask(
    site: Running, context: ssl.SSLContext | None = None, credentials: str | None = None
) -> tuple[int, dict]:
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=5, context=context)
    headers = {}
    if credentials is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    try:
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        assert b"anomaly_score" in answer.read() or answer.status != 200
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def change(file: Path, text: str) -> None:
    """Write a file so that its time differs, however coarse the clock of the file system."""
    file.write_text(text)
    stamp = time.time_ns() + 10**9
    os.utime(file, ns=(stamp, stamp))


def until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_scrape_over_tls_is_answered_and_one_without_it_is_not(home):
    with serving(home, WITH_TLS % "") as site:
        assert ask(site, client())[0] == 200
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            ask(site)


def test_nothing_older_than_tls_1_2_is_spoken_and_the_lower_bound_can_be_raised(home):
    old = client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(home, WITH_TLS % "") as site:
        assert ask(site, old)[0] == 200
    with serving(home, WITH_TLS % ", min_version: TLS13") as site:
        with pytest.raises(ssl.SSLError):
            ask(site, old)
        assert ask(site, client())[0] == 200


def test_a_client_without_the_certificate_that_is_asked_for_gets_nothing(home):
    with serving(home, WITH_TLS % CLIENTS) as site:
        assert ask(site, client(certfile=TLS / "client.crt", keyfile=TLS / "client.key"))[0] == 200
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            ask(site, client())


def test_a_client_whose_certificate_has_another_name_gets_nothing(home):
    with (
        serving(home, WITH_TLS % (CLIENTS + ", client_allowed_sans: [prometheus.example.org]")) as site,
        pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)),
    ):
        ask(site, client(certfile=TLS / "client.crt", keyfile=TLS / "client.key"))


def test_clients_that_begin_a_handshake_and_fall_silent_hold_up_nobody(home):
    with serving(home, WITH_TLS % "") as site, ExitStack() as stack:
        for at in range(40):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", site.port)))
            if at % 2:
                connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        started = time.monotonic()
        assert ask(site, client())[0] == 200
        assert time.monotonic() - started < 1.0


def test_a_connection_is_kept_open_over_tls_and_a_large_answer_arrives_whole(home):
    with serving(home, WITH_TLS % "") as site:
        connection = http.client.HTTPSConnection("127.0.0.1", site.port, timeout=5, context=client())
        for _ in range(3):
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.read().endswith(b"</html>")
            kept = connection.sock
        assert connection.sock is kept
        connection.close()


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        (None, 401),
        ("ali:open sesame", 200),
        ("ali:open simsim", 401),
        ("baba:open sesame", 401),
        ("ali", 401),
        (":", 401),
        ("ali:", 401),
        ("ali:a\x00b", 401),
        ("ali:" + "x" * 100, 401),
    ],
)
def test_only_a_user_with_the_password_is_answered(home, credentials, status):
    with serving(home, USERS) as site:
        given, headers = ask(site, credentials=credentials)
    assert given == status
    assert (headers.get("www-authenticate") == "Basic") is (status == 401)


@pytest.mark.parametrize("header", ["Bearer abc", "Basic", "Basic ***", "Basic " + "A" * 5000, "Basic YWxp"])
def test_an_authorization_that_is_none_is_refused_before_any_hash_is_computed(header):
    users = Users({"ali": HASH})
    users._compare = lambda *_: pytest.fail("a hash was computed")
    assert users.refuse(header).status.startswith("401")


def header_of(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_an_outcome_is_remembered_and_guesses_do_not_push_a_right_one_out():
    users = Users({"ali": HASH})
    calls = []
    compare = users._compare
    users._compare = lambda *given: calls.append(given) or compare(*given)
    for _ in range(3):
        assert users.refuse(header_of("ali", "open sesame")) is None
    assert len(calls) == 1
    for at in range(REMEMBERED + 20):
        assert users.refuse(header_of("ali", f"guess {at}")) is not None
    assert len(calls) == REMEMBERED + 21
    assert users.refuse(header_of("ali", "open sesame")) is None
    assert len(calls) == REMEMBERED + 21
    assert sum(map(len, users._outcomes.values())) == REMEMBERED + 1


def test_a_name_that_nobody_has_costs_as_much_as_one_that_somebody_has():
    users = Users({"ali": HASH, "slow": HASH.replace("$04$", "$05$")})
    compared = []
    users._compare = lambda _password, hashed: compared.append(hashed) or True
    assert users.refuse(header_of("nobody", "x")) is not None, "whatever the comparison says"
    assert compared == [HASH.replace("$04$", "$05$").encode()]


def test_more_logins_at_once_than_may_be_computed_are_told_to_come_back():
    users = Users({"ali": HASH})
    go_on = threading.Event()
    users._compare = lambda *_: go_on.wait(5.0)
    threads = [
        threading.Thread(target=users.refuse, args=(header_of("ali", str(at)),), daemon=True)
        for at in range(2)
    ]
    for thread in threads:
        thread.start()
    assert until(lambda: users._computing._value == 0)
    assert users.refuse(header_of("ali", "third")).status.startswith("429")
    go_on.set()
    for thread in threads:
        thread.join(5.0)


def test_headers_are_sent_with_every_answer_and_replace_our_own(home):
    text = "http_server_config: {headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}}"
    with serving(home, text) as site:
        for path, status in (("/", 200), ("/nothing", 404)):
            given, headers, _ = site.ask(path)
            assert given == status
            assert headers["x-frame-options"] == "deny"
            assert headers["x-content-type-options"] == "nosniff"


def test_a_change_of_the_file_is_in_force_within_seconds(home):
    with serving(home, "") as site:
        assert ask(site)[0] == 200
        change(home / "web.yml", USERS)
        assert until(lambda: ask(site)[0] == 401)
        assert ask(site, credentials="ali:open sesame")[0] == 200
        assert "web config loaded" in site.log.events("info")


def test_a_wrong_change_leaves_the_last_good_version_in_force_and_is_shown(home):
    with serving(home, USERS) as site:
        change(home / "web.yml", "basic_auth_users: {ali: hunter2}")
        assert until(lambda: ask(site)[0] == 401 and not site.guard.status.successful)
        assert ask(site, credentials="ali:open sesame")[0] == 200
        assert site.guard.status.failures == 1
        text = expose(replace(site.snapshot, web=site.guard.status), "1", TEXT)
        assert "anomaly_agent_web_config_last_reload_successful 0.0" in text
        assert "anomaly_agent_web_config_reload_failures_total 1.0" in text
        change(home / "web.yml", "")
        assert until(lambda: ask(site)[0] == 200)
        assert site.guard.status.successful


def test_a_renewed_certificate_is_used_for_the_next_connection(home):
    with serving(home, WITH_TLS % "") as site:
        (home / "server.pem").write_text("rubbish")
        assert until(lambda: ask(site, client())[0] == 200 and not site.guard.status.successful)
        shutil.copy(TLS / "server.pem", home / "server.pem")
        assert until(lambda: ask(site, client())[0] == 200 and site.guard.status.successful)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WITH_TLS.replace("key_file: server.pem", "key_file: client.key") % "", "cert_file and key_file"),
        ("tls_server_config: {cert_file: none.pem, key_file: server.pem}", "No such file"),
        (WITH_TLS % CLIENTS.replace("ca.pem", "client.key"), "client_ca_file"),
        ("a: [", "not valid YAML"),
    ],
)
def test_files_that_cannot_be_used_are_refused_at_the_start(home, text, said):
    (home / "web.yml").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_in_force(home / "web.yml")
    assert "web.yml" in caught.value.message


def test_promtool_accepts_the_same_file(home):
    """One file serves all exporters of a node."""
    text = WITH_TLS % CLIENTS + USERS + "http_server_config: {headers: {X-Frame-Options: deny}}"
    (home / "web.yml").write_text(text)
    assert load_in_force(home / "web.yml").tls is not None
    assert rig.check_web_config(home / "web.yml") == ""


def test_a_real_prometheus_scrapes_over_tls_with_a_certificate_and_a_user(home):
    certificates = {"ca_file": "ca.pem", "cert_file": "client.crt", "key_file": "client.key"}
    access = {
        "scheme": "https",
        "tls_config": {name: str(TLS / file) for name, file in certificates.items()},
        "basic_auth": {"username": "ali", "password": "open sesame"},
    }
    with (
        serving(home, WITH_TLS % CLIENTS + USERS) as site,
        rig.prometheus(home / "prometheus", {"agent": [site.port]}, access=access) as prometheus,
    ):
        (found,) = rig.wait_for_query(prometheus, 'anomaly_score{job="agent"}')
    assert found["value"][1] == "0.4"


def test_a_wrong_password_is_as_wrong_when_it_is_remembered():
    users = Users({"ali": HASH})
    for _ in range(3):
        assert users.refuse(header_of("ali", "guess")).status.startswith("401")


def test_a_file_that_a_refused_change_names_is_looked_at_again(home):
    now = [0.0]
    guard = WebGuard(home / "web.yml", FakeLog(), lambda: now[0])
    change(home / "web.yml", "tls_server_config: {cert_file: new.pem, key_file: new.pem}")
    now[0] += 2.0
    guard.current()
    assert not guard.status.successful
    shutil.copy(TLS / "server.pem", home / "new.pem")
    now[0] += 2.0
    guard.current()
    assert guard.status.successful
