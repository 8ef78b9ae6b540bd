"""No secret of a log line is shown, however it is written."""

from __future__ import annotations

import time

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
    "\x1b[36mpassword\x1b[0m=%s",  # as console loggers colour their fields
    "pass\u200bword=%s",
    r'{"log":"{\"password\":\"%s\"}"}',
    "Authorization: ApiKey %s",
    "Cookie: theme=dark; sid=%s",
    "<password>%s</password>",
    '<add key="Password" value="%s"/>',
    "curl -u bob:%s https://example.org",
    "mysql -u root -p%s",
    "db password '%s' refused",
    "password -> %s",
    "postgres://bob:a/%s@db/app",
    "set password = 'it''s %s'",
    "CREATE USER bob IDENTIFIED BY '%s'",
    "AccountKey=%s",
    "POST https://hooks.slack.com/services/T0/B0/%s",
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


@pytest.mark.parametrize(
    "text", ["\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "\u202e", "\u200f", "\u2028", "\x1bP1$r\x1b\\"]
)
def test_nothing_that_moves_a_terminal_or_turns_text_around_is_left(text):
    assert mask_line(f"a{text}b".encode()) in {"ab", "a\N{REPLACEMENT CHARACTER}b"}


@pytest.mark.parametrize(
    "part", ["password", "a", "-", "token-", "http://", '"pass', "--pass", "a.a@", "eyJ", "1a"]
)
def test_no_line_takes_long(part):
    """The first of these took 13 minutes once."""
    begun = time.process_time()
    mask_line(part.encode() * 5000)
    assert time.process_time() - begun < 1.0


@given(st.binary(max_size=2000))
def test_any_bytes_are_shown_on_one_short_line(line):
    shown = mask_line(line)
    assert len(shown) <= SHOWN + 3
    assert not any(character < " " for character in shown)
