"""Why nothing was fetched: apart from what fetches, so that metrics can name it without loading that."""

from __future__ import annotations

from node_anomaly_core.errors import AnomalyError

FETCH_REASONS: tuple[str, ...] = (
    "archive",  # what was downloaded is no archive, or another one than was announced
    "auth",  # 401 or 403, or a token that cannot be read
    "bundle",  # what was in the archive is refused by the verification
    "connect",  # name, route or connection
    "disk",  # it cannot be written here
    "document",  # the channel's document is not what its format promises
    "internal",  # an error of this program
    "not_found",  # 404 or 410
    "redirect",  # to another host, or too many
    "replay",  # older than what was accepted before
    "server",  # any other status
    "signature",  # unsigned, or not by a trusted key
    "size",  # larger than its limit or than announced
    "timeout",
    "tls",  # certificate or protocol
    "truncated",  # the connection broke
)
"""Every value of the `reason` label of anomaly_agent_bundle_fetch_failures_total."""


class FetchError(AnomalyError):
    """Why nothing was fetched; `reason` is one of FETCH_REASONS, `retry_after_s` what the server asks for."""

    def __init__(self, reason: str, message: str, hint: str = "", retry_after_s: float = 0.0) -> None:
        if reason not in FETCH_REASONS:
            raise ValueError(f"unknown reason {reason!r}")
        super().__init__(message, hint)
        self.reason = reason
        self.retry_after_s = retry_after_s
