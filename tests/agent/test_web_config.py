"""The file of TLS, users and headers: what is accepted, and how everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_agent.web_config import WebSettings, parse_web_settings
from node_anomaly_core.errors import ConfigError

FILE = Path("/etc/node-anomaly/web.yml")
HASH = "$2y$04$" + "." * 53

BOTH = "tls_server_config: {cert_file: a, key_file: b, "

WHOLE = f"""
tls_server_config:
  cert_file: server.crt
  key_file: /keys/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [prometheus.example.org]
  min_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
http_server_config:
  http2: true
  headers:
    X-Frame-Options: deny
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  prometheus: {HASH}
"""


def parse(text: str) -> WebSettings:
    return parse_web_settings(yaml.safe_load(text), FILE)


def test_a_whole_file_of_exporter_toolkits_is_read_with_its_paths_beside_it():
    settings = parse(WHOLE)
    assert settings.tls is not None
    assert settings.files == (
        Path("/etc/node-anomaly/server.crt"),
        Path("/keys/server.key"),
        Path("/etc/node-anomaly/ca.crt"),
    )
    assert settings.tls.client_sans == {"prometheus.example.org"}
    assert settings.tls.ciphers == ("ECDHE-RSA-AES128-GCM-SHA256",)
    assert settings.tls.min_version == "TLS13"
    assert settings.users == {"prometheus": HASH}
    assert settings.headers == (
        ("X-Frame-Options", "deny"),
        ("Strict-Transport-Security", "max-age=31536000"),
    )


@pytest.mark.parametrize(
    "text", ["", "{}", "tls_server_config: {}", "basic_auth_users:", "tls_server_config:"]
)
def test_an_empty_file_asks_for_nothing(text):
    assert parse(text) == WebSettings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected a mapping, got list"),
        ("tls_config: {}", "tls_config: unknown key (did you mean tls_server_config?)"),
        ("tls_server_config: 3", "tls_server_config: expected a mapping, got int"),
        (
            "tls_server_config: {cert_fil: a}",
            "tls_server_config.cert_fil: unknown key (did you mean cert_file?)",
        ),
        ("tls_server_config: {cert_file: a}", "tls_server_config.key_file: is needed"),
        ("tls_server_config: {cert_file: 3, key_file: b}", "cert_file: expected a text, got 3"),
        (BOTH + "min_version: TLS10}", "older ones are not safe"),
        (
            BOTH + "min_version: TLS13, max_version: TLS12}",
            "is below",
        ),
        (
            BOTH + "client_auth_type: RequireAnyClientCert}",
            "is verified",
        ),
        (
            BOTH + "client_auth_type: Yes}",
            "client_auth_type: expected one",
        ),
        (
            BOTH + "client_auth_type: RequireAndVerifyClientCert}",
            "client_ca_file: is needed",
        ),
        (BOTH + "client_ca_file: c}", "is of no use"),
        (
            BOTH + "client_allowed_sans: [x]}",
            "needs client_auth_type",
        ),
        (
            BOTH + "cipher_suites: [TLS_RSA_WITH_RC4]}",
            "is not one of",
        ),
        (BOTH + "cipher_suites: x}", "expected a list"),
        ("tls_server_config: {cert: a, key_file: b}", "cert: this agent cannot do that; name a file"),
        ("basic_auth_users: [a]", "basic_auth_users: expected a mapping"),
        ("basic_auth_users: {a: secret}", "expected a bcrypt hash"),
        (f"basic_auth_users: {{'a:b': {HASH}}}", "without a colon"),
        (f"basic_auth_users: {{3: {HASH}}}", "basic_auth_users.3: a user's name is a text"),
        (f"basic_auth_users: {{a: {HASH.replace('04', '20')}}}", "a cost of 20 is outside 4 to 14"),
        ("http_server_config: {http2: maybe}", "http2: expected true or false"),
        ("http_server_config: {headers: {X-Frame-Option: deny}}", "did you mean X-Frame-Options?"),
        ('http_server_config: {headers: {X-Frame-Options: "a\\r\\nSet-Cookie: b"}}', "one line of printable"),
    ],
)
def test_whatever_is_wrong_is_refused_with_the_path_of_its_key(text, said):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message.startswith("web.config.file /etc/node-anomaly/web.yml: ")
    assert said in caught.value.message
    assert caught.value.hint


def test_every_problem_is_named_at_once_and_a_password_in_clear_is_not_repeated():
    with pytest.raises(ConfigError) as caught:
        parse("{tls_server_config: {cert_file: a}, basic_auth_users: {bob: hunter2}, other: 1}")
    message = caught.value.message
    assert all(place in message for place in ("key_file", "basic_auth_users.bob", "other: unknown key"))
    assert "hunter2" not in message


KEYS = st.sampled_from(
    [
        "tls_server_config",
        "cert_file",
        "key_file",
        "http_server_config",
        "headers",
        "basic_auth_users",
        "cert",
    ]
) | st.text(max_size=4)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.integers(), inner, max_size=3),
        max_leaves=15,
    )
)
def test_any_document_gives_settings_or_a_config_error(document):
    try:
        settings = parse_web_settings(document, FILE)
    except ConfigError:
        return
    assert isinstance(settings, WebSettings)
