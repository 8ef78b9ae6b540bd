"""A connection to a server with Prometheus' HTTP API: bounded, retried, every failure explained."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import PrometheusConfig

BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 15.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
# All retries are ours; read=False lets a timeout through as what it is.
NO_RETRIES = Retry(total=0, read=False, redirect=False, raise_on_status=False)

T = TypeVar("T")


class FailedAttemptError(Exception):
    """One attempt that failed: `again` if another one may succeed, after `wait_s` if the server said so."""

    def __init__(self, message: str, hint: str, *, again: bool, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.message, self.hint, self.again, self.wait_s = message, hint, again, wait_s


class Connection:
    """One keep-alive session with its credentials. Not for use by two threads at once: each takes its own."""

    def __init__(
        self,
        config: PrometheusConfig,
        backoff_s: float = BACKOFF_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config = config
        self.url = config.url.rstrip("/")
        self.headers = _headers(config)
        self.auth = (
            (config.username, _secret("password_file", config.password_file)) if config.username else None
        )
        self._backoff_s = backoff_s
        self._sleep = sleep
        self.session = requests.Session()
        self.session.hooks["response"].append(self._check)
        self.session.mount(self.url, HTTPAdapter(max_retries=NO_RETRIES))
        if config.ca_file:
            self.session.verify = _existing("ca_file", config.ca_file)
        if config.cert_file:
            certificate = _existing("cert_file", config.cert_file)
            key = _existing("key_file", config.key_file) if config.key_file else ""
            self.session.cert = (certificate, key) if key else certificate

    def ask(self, attempt: Callable[[], T], what: str) -> T:
        """The result of `attempt`, which is repeated while the server may still give one.

        `what` names the question in the error. Raises SourceError when the server cannot be made to answer.
        """
        for tried in range(self.config.retries + 1):
            try:
                return _translated(attempt, self.config)
            except FailedAttemptError as failure:
                if not failure.again or tried == self.config.retries:
                    tries = f" after {tried + 1} attempts" if tried else ""
                    raise SourceError(
                        f"{self.config.url} {failure.message}{tries}, asked for {what}", failure.hint
                    ) from failure
                backoff = min(self._backoff_s * 2.0**tried, LONGEST_BACKOFF_S)
                # Jitter keeps parallel queries from knocking again all at once.
                self._sleep(max(failure.wait_s, backoff * random.uniform(0.5, 1.0)))  # noqa: S311
        raise AssertionError("the loop above returns or raises")

    def get(self, path: str, parameters: Mapping[str, object]) -> Any:
        """`data` of the JSON answer to a GET below the URL; same errors as `ask`."""
        return self.ask(lambda: self._send("GET", path, params=parameters).json()["data"], path)

    def post(self, path: str, body: bytes, headers: Mapping[str, str], read: Callable[[bytes], T]) -> T:
        """What `read` makes of the body of the answer to a POST; a ValueError of it is a broken answer."""

        def attempt() -> T:
            content = self._send("POST", path, data=body, headers={**self.headers, **headers}).content
            try:
                return read(content)
            except ValueError as error:
                raise FailedAttemptError(
                    f"gave an answer that cannot be decoded ({error})",
                    "a proxy may cut it short; source.prometheus.route: api avoids this way of reading",
                    again=True,
                ) from error

        return self.ask(attempt, path)

    def _send(self, method: str, path: str, **arguments: Any) -> requests.Response:
        arguments.setdefault("headers", self.headers)
        return self.session.request(
            method,
            self.url + path,
            auth=self.auth,
            verify=self.session.verify,
            cert=self.session.cert,
            timeout=self.config.timeout,
            **arguments,
        )

    def _check(self, response: requests.Response, **_: object) -> None:
        """Response hook: turn everything that is no query result into a FailedAttemptError."""
        try:
            self._judge(response)
        except FailedAttemptError:
            response.close()  # nobody reads the rest, and its connection would stay open until collected
            raise

    def _judge(self, response: requests.Response) -> None:
        status = response.status_code
        if response.is_redirect:
            return
        if status == 200:
            if "html" in response.headers.get("Content-Type", ""):
                raise not_prometheus("an HTML page")
            return
        said = _said(response)
        if status in RETRIED:
            busy = "asks to slow down" if status == 429 else "failed"
            raise FailedAttemptError(
                f"{busy} (HTTP {status}{said})",
                "lower source.prometheus.parallel or points_per_query, or try again later",
                again=True,
                wait_s=_retry_after(response),
            )
        if status in (401, 403):
            raise FailedAttemptError(
                f"refused the credentials (HTTP {status}{said})",
                "set source.prometheus.username and password_file, or bearer_token_file",
                again=False,
            )
        if status == 404:
            raise FailedAttemptError(
                f"has no query API there (HTTP 404{said})",
                "check the path of source.prometheus.url; Mimir and VictoriaMetrics clusters need a prefix",
                again=False,
            )
        raise FailedAttemptError(
            f"rejected the query (HTTP {status}{said})",
            "run the query in the server's own page; fewer points_per_query makes it lighter",
            again=False,
        )


def not_prometheus(what: str) -> FailedAttemptError:
    """The failure of an answer that is no query result."""
    return FailedAttemptError(
        f"answered {what} instead of query results",
        "source.prometheus.url must point to the API, not to a login page or a dashboard",
        again=False,
    )


def _translated(attempt: Callable[[], T], config: PrometheusConfig) -> T:
    """The result of one attempt; whatever the HTTP libraries raise becomes a FailedAttemptError."""
    try:
        return attempt()
    except requests.Timeout as error:
        raise FailedAttemptError(
            f"did not answer within {config.timeout:g} s",
            "raise source.prometheus.timeout or lower points_per_query",
            again=True,
        ) from error
    except requests.exceptions.SSLError as error:
        raise _no_handshake(error) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise FailedAttemptError(
            "broke off in the middle of an answer",
            "a proxy may limit the size; lower points_per_query",
            again=True,
        ) from error
    except requests.exceptions.JSONDecodeError as error:
        raise not_prometheus("text that is not JSON") from error
    except requests.ConnectionError as error:
        if "certificate required" in str(error).lower().replace("_", " "):  # told after the handshake
            raise _no_handshake(error) from error
        raise FailedAttemptError(
            f"cannot be reached ({_root_cause(error)})",
            "check source.prometheus.url and that it is up",
            again=True,
        ) from error
    except requests.RequestException as error:
        raise FailedAttemptError(
            f"could not be asked ({error})", "check source.prometheus.url", again=False
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise not_prometheus("JSON of another shape") from error


def _no_handshake(error: BaseException) -> FailedAttemptError:
    return FailedAttemptError(
        f"failed the TLS handshake ({_root_cause(error)})",
        "check the URL, and source.prometheus.ca_file, cert_file and key_file",
        again=False,
    )


def _headers(config: PrometheusConfig) -> dict[str, str]:
    headers = dict(config.headers)
    if config.bearer_token_file:
        headers["Authorization"] = "Bearer " + _secret("bearer_token_file", config.bearer_token_file)
    return headers


def _secret(key: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SourceError(
            f"source.prometheus.{key}: cannot read {path}: {error.strerror}",
            "check the path and its permissions",
        ) from error


def _existing(key: str, path: str) -> str:
    """The path, once it is known to be a readable file; requests would only say so in the middle of a run."""
    try:
        with Path(path).open("rb"):
            return path
    except OSError as error:
        raise SourceError(
            f"source.prometheus.{key}: cannot read {path}: {error.strerror}",
            "check the path and its permissions",
        ) from error


def _said(response: requests.Response) -> str:
    """The server's own words, at most one short line; nothing of an HTML page."""
    try:
        text = str(response.json().get("error", ""))
    except (ValueError, AttributeError):
        text = "" if "<" in response.text[:200] else response.text
    line = " ".join(text.split())[:200]
    return f": {line}" if line else ""


def _retry_after(response: requests.Response) -> float:
    """Seconds the server asked to wait, bounded; 0 if it did not say or said a date."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_BACKOFF_S) if text.isdigit() else 0.0


def _root_cause(error: BaseException) -> str:
    """The innermost reason in an error of requests, which wraps it several times."""
    reason: object = error
    while isinstance(reason, BaseException) and (inner := _inner(reason)) is not None:
        reason = inner
    strerror = getattr(reason, "strerror", None)
    return str(strerror or reason).split("): ")[-1]


def _inner(error: BaseException) -> BaseException | None:
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return reason
    if error.args and isinstance(error.args[0], BaseException):
        return error.args[0]
    return error.__cause__
