"""One range query against a server with Prometheus' HTTP API: bounded, retried, every failure explained."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import PrometheusConfig

BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 15.0
RETRIED = frozenset({408, 429, 500, 502, 503, 504})

Series = Mapping[str, Any]
"""One element of the API's `result`: `metric` (labels) and `values` ([[unix seconds, text], ...])."""


class FailedAttemptError(Exception):
    """One attempt that failed: `again` if another one may succeed, after `wait_s` if the server said so."""

    def __init__(self, message: str, hint: str, *, again: bool, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.message, self.hint, self.again, self.wait_s = message, hint, again, wait_s


class PrometheusApi:
    """Queries to one server. Not for use by two threads at once: each takes its own."""

    def __init__(
        self,
        config: PrometheusConfig,
        backoff_s: float = BACKOFF_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._config = config
        self._backoff_s = backoff_s
        self._sleep = sleep
        session = requests.Session()
        session.hooks["response"].append(self._check)
        self._client = PrometheusConnect(
            url=config.url.rstrip("/"),
            headers=_headers(config),
            # All retries are ours; read=False lets a timeout through as what it is.
            retry=Retry(total=0, read=False, redirect=False, raise_on_status=False),
            auth=(config.username, _secret("password_file", config.password_file))
            if config.username
            else None,
            session=session,
            timeout=config.timeout,
        )

    def query_range(self, query: str, start: int, end: int, step: int) -> Sequence[Series]:
        """Series of `query` at start, start + step .. end (whole unix seconds, both ends included).

        Raises SourceError when the server cannot be made to answer.
        """
        first, last = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
        return self._ask(lambda: self._client.custom_query_range(query, first, last, f"{step}s"), query)

    def query(self, query: str, at: float) -> Sequence[Series]:
        """The instant vector of `query` at unix second `at`; same errors as `query_range`."""
        return self._ask(lambda: self._client.custom_query(query, params={"time": at}), query)

    def _ask(self, attempt: Callable[[], Any], query: str) -> Sequence[Series]:
        for tried in range(self._config.retries + 1):
            try:
                result = _translated(attempt, self._config)
                if not isinstance(result, list) or not all(
                    isinstance(series, dict) and isinstance(series.get("metric"), dict) for series in result
                ):
                    raise _not_prometheus("something other than query results")
                return result
            except FailedAttemptError as failure:
                if not failure.again or tried == self._config.retries:
                    tries = f" after {tried + 1} attempts" if tried else ""
                    raise SourceError(
                        f"{self._config.url} {failure.message}{tries}, asked for {query}", failure.hint
                    ) from failure
                backoff = min(self._backoff_s * 2.0**tried, LONGEST_BACKOFF_S)
                # Jitter keeps parallel queries from knocking again all at once.
                self._sleep(max(failure.wait_s, backoff * random.uniform(0.5, 1.0)))  # noqa: S311
        raise AssertionError("the loop above returns or raises")

    def _check(self, response: requests.Response, **_: object) -> None:
        """Response hook: turn everything that is no query result into a FailedAttemptError."""
        status = response.status_code
        if response.is_redirect:
            return
        if status == 200:
            if "html" in response.headers.get("Content-Type", ""):
                raise _not_prometheus("an HTML page")
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


def _translated(attempt: Callable[[], Any], config: PrometheusConfig) -> Any:
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
        raise FailedAttemptError(
            f"failed the TLS handshake ({_root_cause(error)})",
            "check the certificate and the URL",
            again=False,
        ) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise FailedAttemptError(
            "broke off in the middle of an answer",
            "a proxy may limit the size; lower points_per_query",
            again=True,
        ) from error
    except requests.exceptions.JSONDecodeError as error:
        raise _not_prometheus("text that is not JSON") from error
    except requests.ConnectionError as error:
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
        raise _not_prometheus("JSON of another shape") from error


def _not_prometheus(what: str) -> FailedAttemptError:
    return FailedAttemptError(
        f"answered {what} instead of query results",
        "source.prometheus.url must point to the API, not to a login page or a dashboard",
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
