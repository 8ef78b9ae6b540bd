"""No secret of a log line is shown, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.logs.masking import SHOWN, mask_line

SECRETS = [
    "login with password=%s failed",
    "password: %s",
    "passwd=%s;user=bob",
    '{"user":"bob","password":"%s","n":1}',
    "{'api_key': '%s'}",
    'token="%s"',
    "X-Auth-Token: %s",
    "Authorization: Bearer %s",
    "authorization: Basic %s",
    "GET /x?access_key=%s&user=bob",
    "postgres://bob:%s@db:5432/app",
    "redis://:%s@cache/0",
    "run --client-secret %s --verbose",
    "Set-Cookie: session=%s; path=/",
    "aws_secret_access_key = %s",
    "the password is %s",
]


@pytest.mark.parametrize("line", SECRETS)
@pytest.mark.parametrize("secret", ["hunter2", "p4ss-w0rd!x", "Zm9vYmFyYmF6cXV4"])
def test_a_secret_is_masked_and_the_rest_is_not(line, secret):
    shown = mask_line((line % secret).encode())
    assert secret not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "secret",
    [
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "0123456789abcdef0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY1",
        "alice@example.org",
    ],
)
def test_what_looks_like_a_secret_is_one(secret):
    assert secret not in mask_line(f"used {secret} here".encode())


@pytest.mark.parametrize(
    "line", ["kernel: eth0: link up at 1000 Mbit", "GET /index.html 200 in 3 ms", "started 7 workers"]
)
def test_an_ordinary_line_is_shown_as_it_is(line):
    assert mask_line(line.encode()) == line


def test_a_terminal_is_not_obeyed():
    shown = mask_line(b"\x1b[31mred\x07\x00\r\xff")
    assert "\x1b" not in shown
    assert shown.isprintable()


@given(st.binary(max_size=2000))
def test_any_bytes_are_shown_on_one_short_line(line):
    shown = mask_line(line)
    assert len(shown) <= SHOWN + 3
    assert not any(character < " " for character in shown)
