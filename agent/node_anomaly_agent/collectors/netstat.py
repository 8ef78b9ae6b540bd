"""TCP health: /proc/net/snmp, /proc/net/netstat and /proc/net/sockstat."""

from __future__ import annotations

import re
from itertools import pairwise

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import MAX_DIGITS, CollectorMissing, HeldFiles
from node_anomaly_core.expressions import Reading

_WANTED = {
    b"Tcp": ((b"RetransSegs", "node_netstat_Tcp_RetransSegs"), (b"CurrEstab", "node_netstat_Tcp_CurrEstab")),
    b"TcpExt": ((b"ListenOverflows", "node_netstat_TcpExt_ListenOverflows"),),
}
_TIME_WAIT = re.compile(rb"^TCP:(?: \S+ \S+)*? tw (\d{1,20})", re.MULTILINE)


def parse_netstat(data: bytes) -> Reading:
    """The wanted fields of /proc/net/snmp or /proc/net/netstat: pairs of a header and a value line.

    A pair whose lines differ in length and a value that is not a number are skipped.
    """
    reading: Reading = {}
    lines = data.split(b"\n")
    for header, values in pairwise(lines):
        group = header.partition(b":")[0]
        wanted = _WANTED.get(group)
        if wanted is None or not values.startswith(group + b": "):
            continue
        names, numbers = header.split(), values.split()
        if len(names) != len(numbers):
            continue
        for name, metric in wanted:
            if name not in names:
                continue
            value = numbers[names.index(name)]
            if value.isdigit() and len(value) <= MAX_DIGITS:
                reading[metric, ""] = float(value)
    return reading


def parse_sockstat(data: bytes) -> Reading:
    """TCP sockets in TIME_WAIT; empty if the line is not there."""
    found = _TIME_WAIT.search(data)
    return {("node_sockstat_TCP_tw", ""): float(found[1])} if found else {}


class NetstatCollector(HeldFiles):
    """Reads the three files; one that is absent only takes its own numbers with it."""

    name = "netstat"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.net("snmp"), paths.net("netstat"), paths.net("sockstat"))

    def read(self) -> Reading:
        """TCP retransmits, overflows, established and waiting connections."""
        reading: Reading = {}
        missing: CollectorMissing | None = None
        for file, parse in zip(self._files, (parse_netstat, parse_netstat, parse_sockstat), strict=True):
            try:
                reading.update(parse(file.read()))
            except CollectorMissing as error:
                missing = error
        if not reading and missing is not None:
            raise missing
        return reading
