"""Addresses of a host, looked up beside the tick: a name server that does not answer takes ten seconds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from socket import getaddrinfo
from time import monotonic
from typing import Any

from node_anomaly_agent.threads import NO_THREAD, started

PATIENCE_S = 0.1
"""So long a name server is waited for while an address is known."""

KEPT_S = 60.0
"""So long an answer is taken for true; an address that does not accept is looked up anew."""

Found = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]]
"""As socket.getaddrinfo gives them."""


class Names:
    """The addresses of one host and port. Used by one thread at a time."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._known: Found = ()
        self._until = 0.0
        self._lookup: _Lookup | None = None

    def addresses(self, wait_s: float) -> Found:
        """Those known, or those that are found within the time. Raises OSError, TimeoutError among them."""
        try:
            return self._resolve(socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            pass  # it is a name
        if self._known and monotonic() < self._until:
            return self._known
        if self._lookup is None:
            self._lookup = _Lookup(self._resolve)
            if not started(threading.Thread(target=self._lookup.run, name="name-lookup", daemon=True)):
                self._lookup = None
                raise OSError(f"{NO_THREAD} to look {self.host} up")
        # An address that was true a minute ago is to have the time that is left.
        if not self._lookup.over.wait(min(wait_s, PATIENCE_S) if self._known else wait_s):
            if self._known:
                return self._known
            raise TimeoutError(f"no name server says where {self.host} is")
        lookup, self._lookup = self._lookup, None
        if lookup.failed is not None and not self._known:
            raise lookup.failed
        if lookup.failed is not None:
            return self._known  # the next fetch asks again
        self._known, self._until = lookup.found, monotonic() + KEPT_S
        return self._known

    def forget(self) -> None:
        """Look it up anew the next time."""
        self._until = 0.0

    def _resolve(self, flags: int = 0) -> Found:
        return getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=flags)


class _Lookup:
    """One question, which may outlive the tick that asked it."""

    def __init__(self, resolve: Callable[[], Found]) -> None:
        self._resolve = resolve
        self.over = threading.Event()
        self.found: Found = ()
        self.failed: OSError | None = None

    def run(self) -> None:
        try:
            self.found = self._resolve()
        except OSError as error:
            self.failed = error
        except UnicodeError as error:  # a label that is too long, says the codec of names
            self.failed = OSError(str(error))
        self.over.set()
