"""The file of `--web.config.file`: TLS, users and headers, in the format that every Prometheus exporter has.

The format is exporter-toolkit's
(https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md), so one file serves
all exporters of a node. What this agent cannot do of it is an error, never ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from node_anomaly_agent.config_values import InvalidValue
from node_anomaly_core.errors import ConfigError

T = TypeVar("T")

CLIENT_AUTH = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
TLS_VERSIONS = ("TLS12", "TLS13")
HEADERS = (
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
)
CIPHERS = {
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""Go's names of TLS 1.2's suites that are still good, and OpenSSL's."""

MAX_USERS = 100
MAX_COST = 14
"""Of a bcrypt hash; one more doubles the time of a login, which is a second here on a small machine."""

_HASH = re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_UNSUPPORTED = {
    "cert": "name a file with cert_file",
    "key": "name a file with key_file",
    "client_ca": "name a file with client_ca_file",
    "curve_preferences": "leave it out; OpenSSL's order is used",
}


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """`tls_server_config`. Paths are absolute."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None
    client_auth: str = "NoClientCert"
    client_sans: frozenset[str] = frozenset()
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    ciphers: tuple[str, ...] = ()
    prefer_server_ciphers: bool = True


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The whole file; an empty one asks for nothing."""

    tls: TlsSettings | None = None
    users: Mapping[str, str] = field(default_factory=dict)
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Every other file that it names."""
        if self.tls is None:
            return ()
        named = (self.tls.cert_file, self.tls.key_file, self.tls.client_ca_file)
        return tuple(path for path in named if path is not None)


def parse_web_settings(document: object, path: Path) -> WebSettings:
    """The settings in a parsed YAML document of the file at `path`, relative to which it names others.

    Raises ConfigError with every problem found, each with its key's path.
    """
    problems: list[str] = []
    top = _Section("", document, problems)
    settings = WebSettings(
        tls=_tls(top.section("tls_server_config"), path.absolute().parent),
        users=_users(top.take("basic_auth_users", _mapping, {}), problems),
        headers=_headers(top.section("http_server_config")),
    )
    top.finish()
    if problems:
        raise ConfigError(
            f"web.config.file {path}: {'; '.join(problems)}",
            "the format is exporter-toolkit's; docs/http.md has an example",
        )
    return settings


class _Section:
    """One mapping of the file, whose keys are taken one by one; what is left at the end is unknown."""

    def __init__(self, path: str, given: object, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        self.known: list[str] = []
        if given is not None and not isinstance(given, Mapping):
            self.complain("", f"expected a mapping, got {type(given).__name__}")
        self.given: dict[str, object] = dict(given) if isinstance(given, Mapping) else {}

    def complain(self, key: str, what: str) -> None:
        """Remember a problem of this key, or of the section itself."""
        place = ".".join(part for part in (self.path, key) if part)
        self.problems.append(f"{place}: {what}" if place else what)

    def section(self, key: str) -> _Section:
        """The mapping below a key."""
        self.known.append(key)
        return _Section(
            ".".join(part for part in (self.path, key) if part), self.given.get(key), self.problems
        )

    def take(self, key: str, parse: Callable[[object], T], default: T) -> T:
        """The value of a key; `parse` raises InvalidValue with what it expects."""
        self.known.append(key)
        value = self.given.get(key)
        if value is None:
            return default
        try:
            return parse(value)
        except InvalidValue as error:
            self.complain(key, f"{error}, got {value!r:.80}")
            return default

    def finish(self) -> None:
        """Complain of every key that nobody took."""
        for key in self.given:
            if key in self.known:
                continue
            near = difflib.get_close_matches(str(key), self.known, n=1)
            suggestion = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(self.known)}"
            self.complain(str(key), f"unknown key ({suggestion})")


def _tls(section: _Section, directory: Path) -> TlsSettings | None:
    asked_for = bool(section.given)
    nothing: tuple[str, ...] = ()
    for name, instead in _UNSUPPORTED.items():
        if section.given.pop(name, None):
            section.complain(name, f"this agent cannot do that; {instead}")
    cert = section.take("cert_file", _text, "")
    key = section.take("key_file", _text, "")
    client_ca = section.take("client_ca_file", _text, "")
    auth = section.take("client_auth_type", _client_auth, "NoClientCert")
    lowest = section.take("min_version", _version, "TLS12")
    highest = section.take("max_version", _version, "TLS13")
    sans = section.take("client_allowed_sans", _texts, nothing)
    ciphers = section.take("cipher_suites", _ciphers, nothing)
    prefer = section.take("prefer_server_cipher_suites", _truth, True)  # its default
    section.finish()
    if not asked_for:
        return None
    for name, value in (("cert_file", cert), ("key_file", key)):
        if not value:
            section.complain(name, "is needed for TLS")
    if auth == "NoClientCert" and client_ca:
        section.complain("client_ca_file", "is of no use while client_auth_type is NoClientCert")
    if auth != "NoClientCert" and not client_ca:
        section.complain("client_ca_file", f"is needed for client_auth_type {auth}")
    if sans and auth != "RequireAndVerifyClientCert":
        section.complain("client_allowed_sans", "needs client_auth_type RequireAndVerifyClientCert")
    if lowest > highest:
        section.complain("max_version", f"{highest} is below min_version {lowest}")
    return TlsSettings(
        cert_file=directory / cert,
        key_file=directory / key,
        client_ca_file=directory / client_ca if client_ca else None,
        client_auth=auth,
        client_sans=frozenset(sans),
        min_version=lowest,
        max_version=highest,
        ciphers=tuple(ciphers),
        prefer_server_ciphers=prefer,
    )


def _users(given: Mapping[Any, Any], problems: list[str]) -> Mapping[str, str]:
    users: dict[str, str] = {}
    if len(given) > MAX_USERS:
        problems.append(f"basic_auth_users: {len(given)} users are more than {MAX_USERS}")
    for name, hashed in given.items():
        place = f"basic_auth_users.{str(name)[:60]}"
        match = _HASH.fullmatch(hashed) if isinstance(hashed, str) else None
        if not isinstance(name, str) or not name or ":" in name:
            problems.append(f"{place}: a user's name is a text without a colon")
        elif match is None:  # which may be a password in clear, so it is not shown
            problems.append(f"{place}: expected a bcrypt hash, as `htpasswd -nBC 10 {name[:60]}` prints it")
        elif not 4 <= int(match[1]) <= MAX_COST:
            problems.append(f"{place}: a cost of {int(match[1])} is outside 4 to {MAX_COST}")
        else:
            users[name] = hashed
    return users


def _headers(section: _Section) -> tuple[tuple[str, str], ...]:
    section.take("http2", _truth, False)  # HTTP/1.1 is answered either way
    headers = section.section("headers")
    found = [(name, headers.take(name, _header, "")) for name in HEADERS]
    headers.finish()
    section.finish()
    return tuple((name, value) for name, value in found if value)


def _mapping(value: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise InvalidValue("expected a mapping")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise InvalidValue("expected a text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidValue("expected a list of texts")
    return tuple(value)


def _header(value: object) -> str:
    if not isinstance(value, str) or not _PRINTABLE.fullmatch(value):
        raise InvalidValue("expected one line of printable characters")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidValue("expected true or false")
    return value


def _client_auth(value: object) -> str:
    if value in ("RequestClientCert", "RequireAnyClientCert"):
        raise InvalidValue(
            "a certificate that is asked for is verified here; use VerifyClientCertIfGiven or "
            "RequireAndVerifyClientCert"
        )
    if not isinstance(value, str) or value not in CLIENT_AUTH:
        raise InvalidValue(f"expected one of {', '.join(CLIENT_AUTH)}")
    return value


def _version(value: object) -> str:
    if not isinstance(value, str) or value not in TLS_VERSIONS:
        raise InvalidValue("expected TLS12 or TLS13; older ones are not safe")
    return value


def _ciphers(value: object) -> tuple[str, ...]:
    names = _texts(value)
    wrong = [name for name in names if name not in CIPHERS]
    if wrong:
        near = difflib.get_close_matches(wrong[0], CIPHERS, n=1)
        raise InvalidValue(f"{wrong[0]} is not one of {near[0] if near else ', '.join(CIPHERS)}")
    return tuple(CIPHERS[name] for name in names)
