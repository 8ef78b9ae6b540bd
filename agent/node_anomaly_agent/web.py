"""HTTP as an exporter has it: a WSGI application of five pages, and the bounded server below it.

Every page renders the last snapshot, and what is no page is 404: a server that answers every path with
metrics would let every probe pass.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import choose_format
from node_anomaly_agent.page import render_page
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import Snapshot

STALLED_TICKS = 10
STALLED_FLOOR_S = 60.0
"""Liveness fails when the loop has not come round for this many intervals, and for at least this long."""

_GZIP_FROM_BYTES = 512
_TEXT = "text/plain; charset=utf-8"

StartResponse = Callable[[str, list[tuple[str, str]]], object]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Application:
    """The pages. Everything they show comes from `source`.

    Args:
        source: gives the last snapshot.
        site: the agent that answers.
        time: unix seconds, for ages.
        monotonic: the clock of the snapshot's heartbeat.
    """

    def __init__(
        self,
        source: Callable[[], Snapshot],
        site: Site,
        time: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._source = source
        self._site = site
        self._time = time
        self._monotonic = monotonic
        self._pages: dict[str, Callable[[Mapping[str, Any]], _Answer]] = {
            "/": self._status,
            "/-/healthy": self._healthy,
            "/-/ready": self._ready,
            site.telemetry_path: self._metrics,
        }

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as PEP 3333 has it."""
        method = environ.get("REQUEST_METHOD", "GET")
        page = self._pages.get(environ.get("PATH_INFO") or "/")
        if page is None:
            answer = _Answer("404 Not Found", _TEXT, b"404: there is no such page; the status page is at /\n")
        elif method not in ("GET", "HEAD"):
            answer = _Answer(
                "405 Method Not Allowed", _TEXT, b"405: only GET and HEAD\n", (("Allow", "GET, HEAD"),)
            )
        else:
            answer = page(environ)
        body, headers = _encode(answer, str(environ.get("HTTP_ACCEPT_ENCODING", "")))
        start_response(answer.status, headers)
        return [] if method == "HEAD" else [body]

    def _metrics(self, environ: Mapping[str, Any]) -> _Answer:
        content_type = choose_format(str(environ.get("HTTP_ACCEPT", "")))
        text = expose(self._source(), self._site.version, content_type)
        return _Answer("200 OK", content_type, text.encode(), (("Vary", "Accept, Accept-Encoding"),))

    def _status(self, _environ: Mapping[str, Any]) -> _Answer:
        page = render_page(self._source(), self._site, self._time())
        return _Answer("200 OK", "text/html; charset=utf-8", page.encode(), _PAGE_HEADERS)

    def _healthy(self, _environ: Mapping[str, Any]) -> _Answer:
        snapshot = self._source()
        silent = self._monotonic() - snapshot.heartbeat
        if silent > max(STALLED_TICKS * snapshot.interval_s, STALLED_FLOOR_S):
            return _Answer(
                "503 Service Unavailable", _TEXT, f"stalled: no tick for {silent:.0f} s\n".encode()
            )
        return _Answer("200 OK", _TEXT, b"healthy\n")

    def _ready(self, _environ: Mapping[str, Any]) -> _Answer:
        reason = self._source().not_ready()
        if reason:
            return _Answer("503 Service Unavailable", _TEXT, f"not ready: {reason}\n".encode())
        return _Answer("200 OK", _TEXT, b"ready\n")


_PAGE_HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Vary", "Accept-Encoding"),
)


def _encode(answer: _Answer, accepted: str) -> tuple[bytes, list[tuple[str, str]]]:
    headers = [("Content-Type", answer.content_type), *answer.headers]
    body = answer.body
    if len(body) >= _GZIP_FROM_BYTES and _accepts_gzip(accepted):
        # Level 1: three times smaller in a tenth of the time of the default.
        body = gzip.compress(body, compresslevel=1, mtime=0)
        headers.append(("Content-Encoding", "gzip"))
    headers.append(("Content-Length", str(len(body))))
    return body, headers


def _accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip; `gzip;q=0` refuses it."""
    for item in header.split(","):
        name, _, parameters = item.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            quality = parameters.replace(" ", "").lower().removeprefix("q=") or "1"
            try:
                return float(quality) > 0
            except ValueError:
                return False
    return False
