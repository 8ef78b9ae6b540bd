"""A running server over a snapshot that a test may change."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent_fakes import START, FakeLog, make_snapshot
from node_anomaly_agent.config import Address
from node_anomaly_agent.endpoints import Sources, endpoints
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import Snapshot
from node_anomaly_agent.web import Application
from node_anomaly_agent.web_answer import Answer, Request
from node_anomaly_agent.web_guard import WebGuard
from node_anomaly_agent.web_server import WebServer


@dataclass
class Running:
    """A server, its pages, and whose snapshot and clock a test may change."""

    snapshot: Snapshot = field(default_factory=make_snapshot)
    monotonic: float = 1000.0
    server: WebServer | None = None
    log: FakeLog = field(default_factory=FakeLog)
    guard: WebGuard | None = None
    reload: Callable[[], None] | None = None
    predict: Callable[[Request], Answer] | None = None
    node: str = "db-1"

    @property
    def port(self) -> int:
        assert self.server is not None
        return self.server.port

    @property
    def held_bytes(self) -> int:
        """What the server keeps of requests and answers."""
        assert self.server is not None
        listener = self.server._server
        assert listener is not None
        return sum(channel.held_bytes for channel in listener.active_channels.values())

    @contextmanager
    def started(self) -> Iterator[Running]:
        self.server = WebServer(Address("127.0.0.1", 0), application(self), guard=self.guard)
        self.server.start()
        yield self
        self.server.stop()

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, body, headers=named)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


def application(site: Running) -> Application:
    sources = Sources(
        lambda: site.snapshot,
        Site("1.2.3", site.node),
        lambda: START,
        lambda: site.monotonic,
        reload=site.reload,
        predict=site.predict,
    )
    return Application(endpoints(sources), site.log, site.guard)  # type: ignore[arg-type]
