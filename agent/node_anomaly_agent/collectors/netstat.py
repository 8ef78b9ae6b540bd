"""TCP health: /proc/net/snmp, /proc/net/netstat and /proc/net/sockstat."""

from __future__ import annotations

import re
from functools import lru_cache

from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import MAX_DIGITS, WHOLE, CollectorMissing, HeldFiles
from node_anomaly_core.expressions import Reading, SeriesKey

_WANTED: dict[bytes, dict[bytes, SeriesKey]] = {
    b"\nTcp: ": {
        b"RetransSegs": ("node_netstat_Tcp_RetransSegs", ""),
        b"CurrEstab": ("node_netstat_Tcp_CurrEstab", ""),
    },
    b"\nTcpExt: ": {b"ListenOverflows": ("node_netstat_TcpExt_ListenOverflows", "")},
}
_TIME_WAIT = re.compile(rb"^TCP:(?: \S+ \S+)*? tw (\d{1,20})", re.MULTILINE)


def parse_netstat(data: bytes) -> Reading:
    """The wanted fields of /proc/net/snmp or /proc/net/netstat: pairs of a header and a value line.

    A pair whose lines differ in length and a value that is not a number are skipped.
    """
    reading: Reading = {}
    text = b"\n" + data
    for group in _WANTED:
        _, _, rest = text.partition(group)
        header, _, rest = rest.partition(group)
        values = rest.partition(b"\n")[0].split()
        length, places = _columns(group, header)
        if len(values) != length:
            continue
        for key, at in places:
            value = values[at]
            if value.isdigit() and len(value) <= MAX_DIGITS:
                reading[key] = float(value)
    return reading


@lru_cache(maxsize=8)
def _columns(group: bytes, header: bytes) -> tuple[int, tuple[tuple[SeriesKey, int], ...]]:
    """How many columns a header has, and where the wanted ones are: the same until the next boot."""
    names = header.split()
    wanted = _WANTED[group]
    return len(names), tuple((wanted[name], at) for at, name in enumerate(names) if name in wanted)


def parse_sockstat(data: bytes) -> Reading:
    """TCP sockets in TIME_WAIT; empty if the line is not there."""
    found = _TIME_WAIT.search(data)
    return {("node_sockstat_TCP_tw", ""): float(found[1])} if found else {}


class NetstatCollector(HeldFiles):
    """Reads the three files; one that is absent only takes its own numbers with it."""

    name = "netstat"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.net("snmp"), paths.net("netstat"), paths.net("sockstat"), piece=WHOLE)

    def read(self) -> Reading:
        """TCP retransmits, overflows, established and waiting connections; ValueError if there is none."""
        reading: Reading = {}
        missing: CollectorMissing | None = None
        for file, parse in zip(self._files, (parse_netstat, parse_netstat, parse_sockstat), strict=True):
            try:
                reading.update(parse(file.read()))
            except CollectorMissing as error:
                missing = error
        if not reading:
            raise missing or ValueError("none of the expected lines in /proc/net/snmp, netstat and sockstat")
        return reading
