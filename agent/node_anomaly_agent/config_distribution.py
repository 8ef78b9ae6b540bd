"""Settings of the `bundle` group: where bundles come from, whom to believe, and how to try them out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node_anomaly_agent.bounded_file import read_given
from node_anomaly_agent.config_values import (
    InvalidValue,
    Setting,
    between,
    flag_path,
    format_duration,
    plain_name,
    switch,
)

if TYPE_CHECKING:
    from node_anomaly_core.signing import PublicKey

MLFLOW = "mlflow+"
"""What a URL begins with when an MLflow server is meant, and not a published tree."""

MAX_KEYS = 8
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_URL = re.compile(
    r"(?:mlflow\+)?(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?(?:/[A-Za-z0-9._~/-]*)?"
)


@dataclass(frozen=True, slots=True)
class DistributionConfig:
    """How bundles reach this node. Durations are seconds; an empty text or None means not used."""

    url: str = ""
    channel: str = "stable"
    mlflow_model: str = "node-anomaly"
    fetch_interval_s: float = 300.0
    insecure_http: bool = False
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    token_file: Path | None = None
    trusted_keys: tuple[PublicKey, ...] = ()
    rollback_to: str = ""
    auto_rollback: bool = True
    shadow_directory: Path | None = None
    shadow_channel: str = ""

    @property
    def host_is_local(self) -> bool:
        """Whether the URL names this machine."""
        match = _URL.fullmatch(self.url)
        return match is not None and match[2].lower() in _LOOPBACK

    @classmethod
    def of(cls, parsed: Mapping[str, Any]) -> DistributionConfig:
        """From the parsed values of all settings."""
        return cls(
            url=parsed["bundle.url"].rstrip("/"),
            channel=parsed["bundle.channel"],
            mlflow_model=parsed["bundle.mlflow-model"],
            fetch_interval_s=parsed["bundle.fetch-interval"],
            insecure_http=parsed["bundle.insecure-http"],
            tls_ca_file=parsed["bundle.tls-ca-file"],
            tls_cert_file=parsed["bundle.tls-cert-file"],
            tls_key_file=parsed["bundle.tls-key-file"],
            token_file=parsed["bundle.token-file"],
            trusted_keys=parsed["bundle.trusted-keys"],
            rollback_to=parsed["bundle.rollback-to"],
            auto_rollback=parsed["bundle.auto-rollback"],
            shadow_directory=parsed["bundle.shadow-directory"],
            shadow_channel=parsed["bundle.shadow-channel"],
        )

    def problems(self) -> list[str]:
        """What does not fit together, each with the key's path."""
        found = []
        if "http://" in self.url and not (self.insecure_http or self.host_is_local):
            found.append(
                "bundle.url: http:// lets anybody on the way replace the bundle: use https://, "
                "or set bundle.insecure-http with bundle.trusted-keys"
            )
        if self.insecure_http and self.token_file and not self.host_is_local and "http://" in self.url:
            found.append("bundle.token-file: would be sent unencrypted to bundle.url: use https://")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            found.append("bundle.tls-cert-file: goes with bundle.tls-key-file, and neither without the other")
        if self.shadow_channel and not self.url:
            found.append("bundle.shadow-channel: has no bundle.url to come from")
        if self.shadow_channel and self.shadow_directory:
            found.append(
                "bundle.shadow-channel: is written to a directory of its own; leave out shadow-directory"
            )
        if self.shadow_channel and self.shadow_channel == self.channel:
            found.append("bundle.shadow-channel: is the channel that is in use anyway")
        return found


def describe_distribution(settings: DistributionConfig) -> list[tuple[str, object]]:
    """What of it differs from doing nothing, for check-config: files by name, keys by their ids."""
    rows: list[tuple[str, object]] = []
    if settings.url:
        rows.append(("bundle.url", settings.url))
        rows.append(("bundle.channel", settings.channel))
        rows.append(("bundle.fetch-interval", format_duration(settings.fetch_interval_s)))
    keys = ", ".join(key.id for key in settings.trusted_keys)
    for name, value in (
        ("bundle.token-file", settings.token_file),
        ("bundle.tls-ca-file", settings.tls_ca_file),
        ("bundle.tls-cert-file", settings.tls_cert_file),
        ("bundle.trusted-keys", keys),
        ("bundle.rollback-to", settings.rollback_to),
        ("bundle.shadow-directory", settings.shadow_directory),
        ("bundle.shadow-channel", settings.shadow_channel),
    ):
        if value:
            rows.append((name, value))
    return rows


def bundle_url(value: object) -> str:
    """A base URL: https://, or mlflow+https://, without a query and without credentials."""
    if value == "":
        return ""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        # The value is not repeated: it may hold a password.
        raise InvalidValue("expected https://HOST[:PORT][/PATH] or mlflow+https://..., without user or query")
    return value


def channel_name(value: object) -> str:
    """The name of a channel, or nothing."""
    if value == "":
        return ""
    from node_anomaly_core.channel import is_channel_name

    if not isinstance(value, str) or not is_channel_name(value):
        raise InvalidValue(f"expected a channel's name such as stable or candidate, got {value!r}")
    return value


def bundle_version(value: object) -> str:
    """A bundle's version, or nothing."""
    if not isinstance(value, str) or not re.fullmatch(r"(?:[0-9a-f]{16})?", value):
        raise InvalidValue(f"expected a version of 16 hex digits, in quotes, got {value!r}")
    return value


def trusted_keys(value: object) -> tuple[PublicKey, ...]:
    """Public keys: base64, PEM or absolute paths of files with one each; a flag has commas between them."""
    from node_anomaly_core.signing import MAX_KEY_FILE_BYTES, KeyFileError, parse_public_key

    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, Sequence) or not all(isinstance(item, str) for item in value):
        raise InvalidValue("expected a list of public keys, or of files that hold one each")
    if not 0 < len(value) <= MAX_KEYS:
        raise InvalidValue(f"expected 1 to {MAX_KEYS} keys, got {len(value)}")
    keys: dict[str, PublicKey] = {}
    for item in value:
        text, where = item, "a key"
        if item.startswith("/") and not item.endswith("="):
            where = item
            try:
                content = read_given(Path(item), MAX_KEY_FILE_BYTES)[:MAX_KEY_FILE_BYTES]
                text = content.decode("ascii", errors="replace")
            except (OSError, ValueError) as error:  # the latter of what is no path
                reason = getattr(error, "strerror", None) or error
                raise InvalidValue(f"{item!r} cannot be read: {reason}") from None
        try:
            key = parse_public_key(text)
        except KeyFileError as error:
            raise InvalidValue(f"{where}: {error.message}") from None
        keys[key.id] = key
    return tuple(keys.values())


ROWS: tuple[Setting, ...] = (
    Setting("bundle.url", bundle_url, "", "where bundles are fetched from (see docs/distribution.md)", "URL"),
    Setting(
        "bundle.channel", channel_name, "stable", "which channel, or which alias of an MLflow model", "NAME"
    ),
    Setting(
        "bundle.mlflow-model", plain_name, "node-anomaly", "registered model, for an mlflow+ URL", "NAME"
    ),
    Setting(
        "bundle.fetch-interval",
        between(10, 86400),
        300.0,
        "mean time between two looks at the URL; each wait is spread by a quarter to either side",
        "DURATION",
    ),
    Setting("bundle.insecure-http", switch, False, "accept an http:// URL of another host", "BOOL"),
    Setting("bundle.tls-ca-file", flag_path, None, "CA certificates (default: the system's)", "FILE"),
    Setting("bundle.tls-cert-file", flag_path, None, "client certificate", "FILE"),
    Setting("bundle.tls-key-file", flag_path, None, "its key", "FILE"),
    Setting("bundle.token-file", flag_path, None, "bearer token, read again for each request", "FILE"),
    Setting(
        "bundle.trusted-keys",
        trusted_keys,
        (),
        "public keys, or files with one each, of which one must have signed any bundle",
        "KEYS",
    ),
    Setting(
        "bundle.rollback-to",
        bundle_version,
        "",
        "version that may come back although a newer one was in use",
        "VERSION",
    ),
    Setting(
        "bundle.auto-rollback",
        switch,
        True,
        "leave a new bundle that raises many more alarms than its budget promises",
        "BOOL",
    ),
    Setting(
        "bundle.shadow-directory", flag_path, None, "watched directory of a candidate to try beside", "DIR"
    ),
    Setting("bundle.shadow-channel", channel_name, "", "channel of a candidate to try beside", "NAME"),
)
