"""HTTP as an exporter has it: a WSGI application of five pages, and the bounded server below it.

Every page renders the last snapshot, and what is no page is 404: a server that answers every path with
metrics would let every probe pass.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cheroot import wsgi

from node_anomaly_agent.config import Address
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import choose_format
from node_anomaly_agent.page import render_page
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import Snapshot
from node_anomaly_core.errors import AnomalyError

THREADS = 4
QUEUED_REQUESTS = 64
TIMEOUT_S = 5
"""A client that sends or takes nothing for this long is dropped."""

IDLE_LOOK_S = 5.0
"""Between two looks for clients to drop. Each wakes the accept loop, by default twice a second."""

STOP_PATIENCE_S = 0.3
STOP_LOOK_S = 0.02
STALLED_TICKS = 10
STALLED_FLOOR_S = 60.0
"""Liveness fails when the loop has not come round for this many intervals, and for at least this long."""

_GZIP_FROM_BYTES = 512
_TEXT = "text/plain; charset=utf-8"

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class WebError(AnomalyError):
    """The address cannot be listened on."""


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


class _Server(wsgi.Server):
    listener: socket.socket | None = None

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002  # cheroot's names
        """Open a socket, or take the one that was passed to us."""
        if self.listener is None:
            return super().bind(family, type, proto)  # type: ignore[no-any-return]  # cheroot is not typed
        self.socket = self.listener
        self.bind_addr = self.listener.getsockname()[:2]
        return self.listener

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """A client that misbehaves is no event of ours, and its bytes belong in no log."""


class WebServer:
    """cheroot with a bounded number of threads and queued requests, on a thread of its own.

    All its threads are daemons: a client that does not let go cannot hold up the agent's end.
    """

    def __init__(
        self, address: Address, application: Application, listener: socket.socket | None = None
    ) -> None:
        self._address = address
        self._listener = listener
        self._application = application
        self._server: Any = None  # cheroot is not typed
        self._started = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)

    @property
    def port(self) -> int:
        """The port that is listened on, also where 0 was asked for."""
        return int(self._server.bind_addr[1])

    def start(self) -> None:
        """Listen and serve. Raises WebError if the address is taken or not ours."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            reason = self._error.strerror or str(self._error)
            raise WebError(
                f"web.listen-address: cannot listen on {self._address}: {reason}",
                "stop what uses it, or choose another with --web.listen-address",
            )

    def stop(self) -> None:
        """Stop accepting and let requests that run finish for a moment."""
        if self._listener is not None:
            return  # who waits there is for the next process; a client of our own would make systemd start it
        address = self._server.bind_addr
        stopper = threading.Thread(target=self._server.stop, name="web-stop", daemon=True)
        stopper.start()
        for _ in range(round(STOP_PATIENCE_S / STOP_LOOK_S)):
            # The accept loop sleeps until somebody connects, and only then sees that it shall end.
            with contextlib.suppress(OSError):
                socket.create_connection(address, timeout=STOP_LOOK_S).close()
            stopper.join(STOP_LOOK_S)
            if not stopper.is_alive():
                return

    def _serve(self) -> None:
        try:
            self._server = self._bind()
        except OSError as error:
            self._error = error
            return
        finally:
            self._started.set()
        self._server.serve()

    def _bind(self) -> Any:
        """On every address: IPv6 with IPv4 mapped into it where the kernel has IPv6, else IPv4 alone."""
        if self._listener is not None:
            server = self._make(*self._listener.getsockname()[:2])
            server.listener = self._listener
            server.prepare()
            return server
        hosts = (self._address.host,) if self._address.host else ("::", "0.0.0.0")  # noqa: S104  # an exporter's default
        error = OSError("no address")
        for host in hosts if socket.has_ipv6 else hosts[-1:]:
            server = self._make(host, self._address.port)
            try:
                server.prepare()
            except OSError as failed:
                server.requests.stop(0)
                error = failed
                continue
            return server
        raise error

    def _make(self, host: str, port: int) -> Any:
        server = _Server(
            (host, port),
            self._application,
            numthreads=THREADS,
            max=THREADS,
            server_name="node-anomaly",
            request_queue_size=QUEUED_REQUESTS,
            accepted_queue_size=QUEUED_REQUESTS,
            accepted_queue_timeout=TIMEOUT_S,
            timeout=TIMEOUT_S,
            shutdown_timeout=0,
        )
        server.expiration_interval = IDLE_LOOK_S
        server.max_request_header_size = 16 << 10
        server.max_request_body_size = 64 << 10
        return server
