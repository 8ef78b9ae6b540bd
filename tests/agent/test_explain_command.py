"""`anomaly-agent explain` asks a running agent, and says plainly why it cannot."""

from __future__ import annotations

import http.server
import json
import math
import shutil
import socket
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import bcrypt
import numpy as np
import pytest

from agent_fakes import FakeLog, make_score, make_snapshot
from node_anomaly_agent import explain_command
from node_anomaly_agent.cli import main
from node_anomaly_agent.config_values import Address
from node_anomaly_agent.explain_command import (
    ANOMALOUS,
    MOST_BYTES,
    NORMAL,
    NOT_WARM,
    Access,
    ExplainError,
    ask,
    exit_code,
    local_url,
    render,
)
from node_anomaly_agent.web_guard import WebGuard
from node_anomaly_core.reasons import Reasons
from web_site import Running

TLS = Path(__file__).parent.parent / "fixtures" / "tls"
HASH = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()


@pytest.fixture
def site():
    score = make_score()
    by_member = {"isolation_forest": np.array([0.3, 0.7, 0.0]), "lstm": np.zeros(3)}
    score = replace(score, why=Reasons.known(score.contributions, by_member))
    with Running(snapshot=make_snapshot(score=score)).started() as site:
        yield site


def url(site: Running, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{site.port}"


@contextmanager
def answering(status: int, body: bytes, **headers: str):
    """Somebody else's server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_score_the_reasons_and_each_models_own_are_told_in_human_units(site, capsys):
    assert main(["explain", "--url", url(site)]) == NORMAL
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "score 0.40 (1.0 is the alarm threshold): normal"
    first = next(line for line in lines if line.startswith("cpu_busy_ratio"))
    assert "\N{UPWARDS ARROW}" in first
    assert "50 %" in first
    assert "25 %" in first
    forest = next(line for line in lines if line.startswith("isolation_forest"))
    assert "0.40" in forest
    assert forest.endswith("disk_read_bytes_per_second 70 %  cpu_busy_ratio 30 %")


def test_a_score_below_1_that_is_no_recovery_is_not_called_normal(site, capsys):
    score = replace(site.snapshot.score, score=0.9, outgrown=True)
    site.snapshot = replace(site.snapshot, score=score)
    assert main(["explain", "--url", url(site)]) == NORMAL
    told = capsys.readouterr().out.splitlines()[0]
    assert told.startswith("score 0.90 (1.0 is the alarm threshold): not recovered, the last alarm is over")


def test_json_is_what_the_agent_answered(site, capsys):
    main(["explain", "--url", url(site), "--output", "json"])
    assert json.loads(capsys.readouterr().out) == json.loads(site.ask("/api/v1/explain")[2])


def test_only_so_many_features_are_shown_as_were_asked_for(site, capsys):
    main(["explain", "--url", url(site), "--top", "1"])
    why = capsys.readouterr().out.split("\n\n")[1]
    assert len(why.splitlines()) == 2


@pytest.mark.parametrize(
    ("score", "code"),
    [
        (make_score(), NORMAL),
        (make_score(score=1.2), ANOMALOUS),
        (make_score(warm=False), NOT_WARM),
        (make_score(score=math.nan), NOT_WARM),
        (None, NOT_WARM),
    ],
    ids=["normal", "anomalous", "cold", "unknown", "nothing"],
)
def test_every_state_of_an_agent_is_told_and_has_its_exit_code(site, score, code):
    site.snapshot = make_snapshot(score=score)
    document = ask(Access(url(site)))
    assert exit_code(document) == code
    text = render(document, 8)
    assert "nan" not in text
    assert ("not warm" in text) is (code == NOT_WARM)


@pytest.mark.parametrize(
    ("listens", "found"),
    [
        (Address("", 9917), "http://127.0.0.1:9917"),
        (Address("0.0.0.0", 1), "http://127.0.0.1:1"),
        (Address("::", 1), "http://127.0.0.1:1"),
        (Address("::1", 1), "http://[::1]:1"),
        (Address("10.0.0.7", 80), "http://10.0.0.7:80"),
    ],
    ids=str,
)
def test_an_agent_is_asked_where_it_listens(listens, found):
    assert local_url(listens) == found


def test_no_agent_is_one_line_and_a_thing_to_try(capsys):
    assert main(["explain", "--url", "http://127.0.0.1:1"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "gives no answer" in lines[0]
    assert "is the agent running" in lines[1]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, b"", "is not there"),
        (500, b"", "answers 500"),
        (200, b"<html>", "something else"),
        (200, b"[]", "something else"),
        (200, b'{"features": 3}', "something else"),
        (200, b'{"features": []' + b" " * MOST_BYTES + b"}", "something else"),
        (200, b"\xff\xfe", "something else"),
        (200, b"[" * 200_000, "something else"),
    ],
    ids=["404", "500", "page", "list", "number", "too large", "bytes", "deep"],
)
def test_an_answer_that_is_no_explanation_is_refused(status, body, told):
    with answering(status, body) as there, pytest.raises(ExplainError, match=told):
        ask(Access(there))


def test_a_server_that_trickles_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(explain_command, "TIMEOUT_S", 0.5)

    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=trickle, args=(listener,), daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(ExplainError, match=r"gives no answer: not within 0\.5 s"):
            ask(Access(f"http://127.0.0.1:{listener.getsockname()[1]}"))
    assert time.monotonic() - begun < 5


def test_a_password_without_end_is_no_password(tmp_path):
    endless = tmp_path / "password"
    endless.write_bytes(b"x" * 100_000)
    with pytest.raises(ExplainError, match="more than 4096 bytes"):
        ask(Access("http://127.0.0.1:1", user="ali", password_file=endless))


def test_nobody_is_sent_elsewhere_with_a_password(tmp_path):
    (tmp_path / "password").write_text("open sesame\n")
    elsewhere = answering(302, b"", Location="http://127.0.0.1:1/")
    with elsewhere as there, pytest.raises(ExplainError, match="answers 302"):
        ask(Access(there, "ali", tmp_path / "password"))


def test_an_integer_beyond_every_measure_is_not_known():
    hostile = {"score": 10**400, "features": [{"feature": "cpu", "share": 10**400}], "models": {"m": 10**400}}
    assert exit_code(hostile) == NOT_WARM
    assert "not warm" in render(hostile, 8)


def test_an_answer_moves_no_cursor():
    hostile = {"score": 1.5, "anomalous": True, "models": {"\x1b[2Jm": 1.0}, "features": [
        {"feature": "cpu\x1b[31m", "share": 1.0, "observed": 1.0, "expected": None, "unit": "\x1b]0;x\x07"},
        "no feature at all",
    ]}  # fmt: skip
    text = render(hostile, 8)
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_protected_agent_says_what_to_pass_and_answers_who_passes_it(tmp_path):
    for file in TLS.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "web.yml").write_text(
        "tls_server_config: {cert_file: server.pem, key_file: server.pem}\n"
        f"basic_auth_users: {{ali: '{HASH}'}}\n"
    )
    (tmp_path / "password").write_text("open sesame\n")
    log = FakeLog()
    with Running(log=log, guard=WebGuard(tmp_path / "web.yml", log)).started() as site:
        there = url(site, "https")
        with pytest.raises(ExplainError, match="401") as refused:
            ask(Access(there, ca_file=tmp_path / "ca.pem"))
        assert "--user" in refused.value.hint
        assert ask(Access(there, "ali", tmp_path / "password", tmp_path / "ca.pem"))["features"]
        with pytest.raises(ExplainError, match="gives no answer"):
            ask(Access(there, "ali", tmp_path / "password"))  # a certificate that nobody vouches for


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--url", "ftp://node1"], "no address of an agent"),
        (["--url", "http://127.0.0.1:1", "--user", "ali"], "without a password"),
        (["--url", "http://127.0.0.1:1", "--user", "ali", "--password-file", "/nonexistent"], "/nonexistent"),
        (["--url", "https://127.0.0.1:1", "--ca-file", "/nonexistent"], "/nonexistent"),
    ],
    ids=["scheme", "no password", "no file", "no certificates"],
)
def test_what_cannot_be_asked_is_an_error_that_names_it(flags, told, capsys):
    assert main(["explain", *flags]) == 1
    assert told in capsys.readouterr().err
