"""One GET with a deadline for the whole of it and a bound on the body: what a tick can afford to wait for.

http.client's timeout is one of silence: a server that sends a byte now and then is never late for it. Here
every wait is given only what is left of the deadline.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from time import monotonic
from urllib.parse import urlsplit

from node_anomaly_agent.collectors.names import Names
from node_anomaly_core.errors import SourceError

MAX_BYTES = 16 << 20
"""An exporter's answer is at most this large; node_exporter's is about 0.2 MB."""

_CHUNK = 256 << 10

Fetch = Callable[[], bytes]


class HttpGet:
    """Fetches one `http://` URL anew at each call. Everything is closed when a call returns.

    `url` is what may be shown of it.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        self.url = shown_url(url)
        self._names = Names(parts.hostname or "", parts.port or 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s

    def __call__(self) -> bytes:
        """The body of the answer.

        Raises SourceError if it is not there within the timeout, too large, cut off, or not 200.
        """
        connection = _Connection(self._names, self._timeout_s)
        try:
            return self._get(connection)
        except TimeoutError as error:
            raise SourceError(
                f"{self.url} did not answer within {self._timeout_s:g} s", "is the exporter overloaded?"
            ) from error
        except (OSError, HTTPException) as error:
            what = str(error) or type(error).__name__
            raise SourceError(
                f"{self.url} cannot be read: {what}", "is the exporter running, and is this its address?"
            ) from error
        finally:
            connection.close()

    def _get(self, connection: _Connection) -> bytes:
        connection.request(
            "GET", self._target, headers={"Accept": "text/plain;version=0.0.4", "Connection": "close"}
        )
        answer = connection.getresponse()
        if answer.status != 200:
            raise SourceError(
                f"{self.url} answered {answer.status} {answer.reason}", "name the exporter's /metrics"
            )
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":  # nothing else was asked for
            raise SourceError(f"{self.url} answered in {encoding}, which was not asked for")
        parts: list[bytes] = []
        size = 0
        while part := answer.read(_CHUNK):
            parts.append(part)
            size += len(part)
            if size > MAX_BYTES:
                raise SourceError(f"{self.url} answered with more than {MAX_BYTES >> 20} MiB")
        if answer.length:  # read(n) does not complain about a body that is cut off
            raise SourceError(f"{self.url} broke off {answer.length} bytes before the end")
        return b"".join(parts)


def shown_url(url: str) -> str:
    """The URL without its query, which may hold what belongs neither in a log nor in a metric."""
    return url.partition("?")[0]


class _Connection(HTTPConnection):
    """An HTTPConnection whose answer is read against one deadline."""

    def __init__(self, names: Names, timeout_s: float) -> None:
        super().__init__(names.host, names.port, timeout=timeout_s)
        self._names = names
        self._deadline = monotonic() + timeout_s

    def connect(self) -> None:
        """To the first address that accepts; each may have its share of the time that is left."""
        addresses = self._names.addresses(_left(self._deadline))
        failed: OSError = OSError("the name has no address")
        for number, (family, kind, proto, _, address) in enumerate(addresses):
            try:
                made = socket.socket(family, kind, proto)
            except OSError as error:  # this host has no such family
                failed = error
                continue
            try:
                made.settimeout(_left(self._deadline) / (len(addresses) - number))
                made.connect(address)
            except OSError as error:
                made.close()
                failed = error
                continue
            self.sock = _Timed(made, self._deadline)
            return
        self._names.forget()
        raise failed


class _Timed(socket.socket):
    """The connected socket again, with every read bounded by the deadline."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        super().__init__(connected.family, connected.type, connected.proto, connected.detach())
        self._deadline = deadline
        self.settimeout(_left(deadline))

    def recv_into(  # type: ignore[override]  # the stub's buffer type is private to typeshed
        self, buffer: bytearray | memoryview, nbytes: int = 0, flags: int = 0
    ) -> int:
        """As socket.recv_into; makefile's reader, which http.client reads through, calls this."""
        self.settimeout(_left(self._deadline))
        return super().recv_into(buffer, nbytes, flags)


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left
