"""One node that fetches, looked with by hand, and what it is served."""

from __future__ import annotations

import time
from pathlib import Path

from agent_fakes import FakeLog
from bundle_server import TLS, BundleServer
from node_anomaly_agent.bundle_depot import Depot
from node_anomaly_agent.fetch import Fetcher
from node_anomaly_agent.fetch_http import Access, Client
from node_anomaly_agent.fetch_sources import ChannelSource
from node_anomaly_agent.ledger import Ledger
from node_anomaly_core.bundle import resolve_current, verify_bundle
from node_anomaly_core.signing import PrivateKey

KEY, STRANGER = PrivateKey(b"k" * 32), PrivateKey(b"s" * 32)
OLD, NEW = 1_700_000_000.0, 1_700_100_000.0
NODE = "web-1"


class Node:
    """One node's fetcher, looked with by hand."""

    def __init__(
        self, server: BundleServer, home: Path, *, trusted=(), access=None, channel="stable", source=None
    ):
        self.root = home / "bundles"
        self.ledger = Ledger(home)
        self.log = FakeLog()
        self.client = Client(access or Access(ca_file=TLS / "ca.pem"))
        keys = tuple(key.public for key in trusted)
        self.fetcher = Fetcher(
            "bundle",
            source or ChannelSource(self.client, server.url, channel, keys),
            self.client,
            Depot(self.root, lambda path: verify_bundle(path, keys)),
            self.ledger,
            NODE,
            interval_s=300.0,
            log=self.log,
            now=time.time,
        )

    def look(self) -> str:
        """A result, or the reason of a failure."""
        before = dict(self.fetcher.status.failures)
        result = self.fetcher.look()
        if result != "failed":
            return result
        after = self.fetcher.status.failures
        return next(reason for reason in after if after[reason] != before[reason])

    @property
    def version(self) -> str:
        found = resolve_current(self.root)
        return "" if found is None else found.name

    def uses(self, path: Path, trained_at: float) -> None:
        """What the loop tells the ledger."""
        self.ledger.accepted(path.name, trained_at, time.time())
