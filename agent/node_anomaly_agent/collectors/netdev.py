"""Network bytes, packets, errors and drops of real interfaces: /proc/net/dev."""

from __future__ import annotations

from node_anomaly_agent.collectors.devices import MAX_DEVICES, DeviceFilter
from node_anomaly_agent.collectors.paths import Paths
from node_anomaly_agent.collectors.procfile import HeldFiles, numbers
from node_anomaly_core.catalogue import NETWORK_EXCLUDE
from node_anomaly_core.expressions import Reading

_FIELDS = (
    (0, "node_network_receive_bytes_total"),
    (1, "node_network_receive_packets_total"),
    (2, "node_network_receive_errs_total"),
    (3, "node_network_receive_drop_total"),
    (8, "node_network_transmit_bytes_total"),
    (9, "node_network_transmit_packets_total"),
    (10, "node_network_transmit_errs_total"),
    (11, "node_network_transmit_drop_total"),
)
_LENGTH = 16
_INTERFACES = DeviceFilter(NETWORK_EXCLUDE)


def parse_netdev(data: bytes, interfaces: DeviceFilter = _INTERFACES) -> Reading:
    """Counters of every interface that is not excluded; other lines are skipped.

    ValueError for more than MAX_DEVICES interfaces, and for a file without the header that the kernel prints
    even where there is none.
    """
    reading: Reading = {}
    for line in data.split(b"\n"):
        name, colon, rest = line.rpartition(b":")
        if not colon:
            continue
        device = interfaces.wanted(name.strip())
        if not device:
            continue
        fields = rest.split()
        if len(fields) < _LENGTH or not numbers(fields):
            continue
        for at, metric in _FIELDS:
            reading[metric, device] = float(fields[at])
    if not reading and b"|" not in data:
        raise ValueError(f"no header in /proc/net/dev: {data[:64]!r}")
    if len(reading) > MAX_DEVICES * len(_FIELDS):
        raise ValueError(f"more than {MAX_DEVICES} interfaces in /proc/net/dev")
    return reading


class NetdevCollector(HeldFiles):
    """Reads /proc/net/dev."""

    name = "netdev"

    def __init__(self, paths: Paths) -> None:
        super().__init__(paths.net("dev"))

    def read(self) -> Reading:
        """Counters of every real interface; empty on a host without one.

        ValueError for what is not the kernel's table.
        """
        return parse_netdev(self._files[0].read())
