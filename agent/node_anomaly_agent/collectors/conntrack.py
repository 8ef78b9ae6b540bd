"""Entries in the connection tracking table and their limit: /proc/sys/net/netfilter."""

from __future__ import annotations

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import SHORT, HeldFiles, decimal
from node_anomaly_core.expressions import Reading


def parse_conntrack(entries: bytes, limit: bytes) -> Reading:
    """Both numbers; ValueError if either is not one."""
    return {
        ("node_nf_conntrack_entries", ""): decimal(entries.strip()),
        ("node_nf_conntrack_entries_limit", ""): decimal(limit.strip()),
    }


class ConntrackCollector(HeldFiles):
    """Reads nf_conntrack_count and nf_conntrack_max; CollectorMissing while the module is not loaded."""

    name = "conntrack"

    def __init__(self, paths: Paths) -> None:
        folder = ("sys", "net", "netfilter")
        count, limit = paths.proc(*folder, "nf_conntrack_count"), paths.proc(*folder, "nf_conntrack_max")
        super().__init__(count, limit, piece=SHORT)

    def read(self) -> Reading:
        """Entries and their limit."""
        return parse_conntrack(self._files[0].read(), self._files[1].read())
