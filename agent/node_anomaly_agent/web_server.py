"""The server below the pages: waitress, with bounds on time and memory that hold against any client.

One thread reads and writes all connections and never waits for one; a worker gets a request when the whole
of it has arrived, and leaves the answer behind. So a client that sends or takes slowly holds no thread. What
it does hold, a connection and its bytes, is bounded: the one that has waited longest makes room.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from node_anomaly_agent.config import Address
from node_anomaly_agent.web_guard import WebGuard
from node_anomaly_core.errors import AnomalyError

THREADS = 4
BACKLOG = 256
MAX_CONNECTIONS = 256
"""At most, and no more than a quarter of what the process may open: the rest of the agent opens files too."""

MAX_PIPELINED = 2
MAX_HEADER_BYTES = 16 << 10
MAX_BODY_BYTES = 512 << 10
MAX_HELD_BYTES = 4 << 20
"""Of requests that are arriving and answers that are leaving, all connections together."""

REQUEST_S = 10.0
"""From the first byte of a request to the last one of its answer, besides the time that it takes to make."""

IDLE_S = 120.0
"""A connection is kept for a scraper's next scrape so long."""

LOOK_S = 5.0
"""Between two looks for connections to drop, which wake an idle server."""

STOP_PATIENCE_S = 0.3

NO_DESCRIPTOR_S = 0.5
"""Without a descriptor to accept with, the listener stays readable: for so long nobody looks at it."""

_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})


class WebError(AnomalyError):
    """The address cannot be listened on."""


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress is not typed
    """One connection."""

    begun = math.inf
    """When the request that is arriving began, or its answer to leave."""

    def received(self, data: bytes) -> bool:
        """Take in what a client sent; a client that sends more than anybody needs to is hung up on."""
        if self.request is None:
            self.begun = time.monotonic()
        taken = bool(super().received(data))
        if len(self.requests) > MAX_PIPELINED:
            self.handle_close()
        else:
            self.server.make_room(sender=self)
        return taken

    def late(self, now: float) -> bool:
        """Whether the client has had its time. What a worker is at is nobody's fault."""
        if self.requests:
            self.begun = now  # the answer has its own time to leave
            return False
        if self.request is None and not self.total_outbufs_len:
            return bool(time.time() - self.last_activity > IDLE_S)  # waitress' own clock
        return now - self.begun > REQUEST_S

    @property
    def held_bytes(self) -> int:
        """Bytes in memory for this client."""
        request = self.request
        arriving = 0 if request is None else request.header_bytes_received + request.body_bytes_received
        return int(arriving + self.total_outbufs_len)


class _Listener(TcpWSGIServer):  # type: ignore[misc]  # same
    tls: Callable[[], tuple[Any, frozenset[str]]] = staticmethod(lambda: (None, frozenset()))
    most = MAX_CONNECTIONS
    deaf_until = -math.inf

    def channel_class(self, *given: Any, **options: Any) -> Channel:
        """What waitress makes of a new connection."""
        context, sans = self.tls()
        if context is None:
            return Channel(*given, **options)
        from node_anomaly_agent.web_tls import TlsChannel

        return TlsChannel(context, sans, *given, **options)

    def maintenance(self, now: float) -> None:
        """Drop the connections whose time is up."""
        monotonic = time.monotonic()
        for channel in list(self.active_channels.values()):
            if channel.late(monotonic):
                channel.will_close = True

    def readable(self) -> bool:
        """Whether to look for new connections."""
        return bool(super().readable()) and not self.deaf

    @property
    def deaf(self) -> bool:
        """Whether it lacked a descriptor a moment ago."""
        return time.monotonic() < self.deaf_until

    def accept(self) -> Any:
        """A new connection, if there is one. Raises OSError."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self.deaf_until = time.monotonic() + NO_DESCRIPTOR_S
            raise

    def handle_accept(self) -> None:
        """Take one more connection."""
        super().handle_accept()
        self.make_room()

    def make_room(self, sender: Channel | None = None) -> None:
        """Close what has waited longest until the bounds hold; never what a worker is at."""
        channels = list(self.active_channels.values())
        excess = len(channels) - self.most
        held = sum(channel.held_bytes for channel in channels)
        if excess <= 0 and held <= MAX_HELD_BYTES:
            return
        waiting = [one for one in channels if not one.requests and one is not sender]
        for channel in sorted(waiting, key=lambda one: one.last_activity)[: max(excess, 0)]:
            held -= channel.held_bytes
            channel.handle_close()
        for channel in sorted(waiting, key=lambda one: one.begun):
            if held <= MAX_HELD_BYTES:
                break
            held -= channel.held_bytes
            channel.handle_close()


class WebServer:
    """The server, on threads of its own that are all daemons: no client can hold up the agent's end."""

    def __init__(
        self,
        address: Address,
        application: Any,
        listener: socket.socket | None = None,
        guard: WebGuard | None = None,
    ) -> None:
        self._guard = guard
        self._address = address
        self._given = listener
        self._application = application
        self._stopping = False
        self._woken = threading.Event()
        self._server: _Listener | None = None
        self._map: dict[int, Any] = {}
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        # A client that misbehaves is no event of ours, and its bytes belong in no log.
        logging.getLogger("waitress").setLevel(logging.CRITICAL + 1)

    @property
    def port(self) -> int:
        """The port that is listened on, also where 0 was asked for."""
        if self._server is None:
            raise RuntimeError("the server has not been started")
        return int(self._server.effective_port)

    def start(self) -> None:
        """Listen and serve. Raises WebError if the address is taken, not ours or none."""
        try:
            listener = self._given or _listen(self._address)
        except (OSError, UnicodeError) as error:  # the latter of a name that DNS has no form for
            reason = getattr(error, "strerror", None) or str(error)
            if isinstance(error, socket.gaierror | UnicodeError):
                reason = f"the name does not resolve: {reason}"
            raise WebError(
                f"web.listen-address: cannot listen on {self._address}: {reason}", _remedy(error)
            ) from error
        settings = Adjustments(
            sockets=[listener],
            threads=THREADS,
            backlog=BACKLOG,
            ident="node-anomaly",
            connection_limit=4 * MAX_CONNECTIONS,  # make_room keeps below it
            cleanup_interval=1,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES,
            inbuf_overflow=2 * MAX_BODY_BYTES,  # nothing is written to a disk
            outbuf_overflow=8 << 20,
            outbuf_high_watermark=4 << 20,
            clear_untrusted_proxy_headers=False,
        )
        workers = ThreadedTaskDispatcher()
        workers.set_thread_count(THREADS)
        where = (listener.family, listener.type, listener.proto, listener.getsockname())
        self._server = _Listener(
            self._application,
            self._map,
            _sock=listener,
            dispatcher=workers,
            adj=settings,
            sockinfo=where,
            bind_socket=False,
        )
        self._server.most = _most_connections()
        if self._guard is not None:
            self._server.tls = self._guard.tls
        self._thread.start()

    def stop(self) -> None:
        """Stop accepting and let requests that run finish for a moment."""
        if self._server is not None:
            self._stopping = True
            self._server.pull_trigger()
            self._woken.set()
            self._thread.join(2 * STOP_PATIENCE_S)

    def _serve(self) -> None:
        server = self._server
        while server is not None and not self._stopping:
            with contextlib.suppress(OSError):
                patience = NO_DESCRIPTOR_S if server.deaf else LOOK_S
                wasyncore.loop(patience, use_poll=True, map=self._map, count=1)
        if server is not None:
            server.accepting = False
            server.socket.close()
            self._finish(server)
            self._woken.wait(STOP_PATIENCE_S)  # what wakes this loop must not be closed before it was used
            wasyncore.close_all(self._map, ignore_all=True)

    def _finish(self, server: _Listener) -> None:
        """Let the answers that are being made leave, for a moment."""
        del self._map[server._fileno]  # noqa: SLF001  # waitress has no way to stop listening but to end
        end = time.monotonic() + STOP_PATIENCE_S
        while time.monotonic() < end:
            if not any(one.requests or one.total_outbufs_len for one in server.active_channels.values()):
                break
            wasyncore.loop(0.02, use_poll=True, map=self._map, count=1)
        server.task_dispatcher.set_thread_count(0)


def _most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MAX_CONNECTIONS, max(1, soft // 4))


def _remedy(error: OSError | UnicodeError) -> str:
    """What to do where an address cannot be listened on: of several reasons only one is that it is taken."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, socket.gaierror | UnicodeError) or number == errno.EADDRNOTAVAIL:
        return "give --web.listen-address an address of this host, or none (:PORT) for all it has"
    if number in (errno.EACCES, errno.EPERM):
        return "choose with --web.listen-address a port that this user may have: as a rule, from 1024 on"
    return "stop what uses it, or choose another with --web.listen-address"


def _listen(address: Address) -> socket.socket:
    """On every address where none is named: IPv6 with IPv4 mapped into it, else IPv4. Raises OSError."""
    if address.host:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return _bind(found[0][0], found[0][4])
    with contextlib.suppress(OSError):
        return _bind(socket.AF_INET6, ("::", address.port))
    return _bind(socket.AF_INET, ("0.0.0.0", address.port))  # noqa: S104  # an exporter's default


def _bind(family: int, where: Any) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(where[0] != "::")))
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
