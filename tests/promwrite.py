"""Write samples into a real Prometheus by remote-write: any time, any value, stale markers too."""

from __future__ import annotations

import struct
import urllib.request

import numpy as np
import pyarrow as pa

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def varint(value):
    value &= (1 << 64) - 1
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*content, value])


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def sample(time_ms, bits):
    """As Go writes it: fields that are zero are left out."""
    content = b"" if bits in (0, 1 << 63) else b"\x09" + struct.pack("<Q", bits)
    content += b"" if time_ms == 0 else b"\x10" + varint(time_ms)
    return message(2, content)


def series(labels, times, values):
    """One TimeSeries; `labels` with __name__, `times` in milliseconds."""
    body = b"".join(
        message(1, message(1, name.encode()) + message(2, value.encode()))
        for name, value in sorted(labels.items())
    )
    bits = np.asarray(values, dtype=np.float64).view(np.uint64).tolist()
    return body + b"".join(sample(int(at), one) for at, one in zip(times, bits, strict=True))


def write(url, many):
    """Store (labels, times, values) triples. Raises HTTPError if the server refuses."""
    body = b"".join(message(1, series(*one)) for one in many)
    request = urllib.request.Request(
        f"{url}/api/v1/write",
        data=bytes(pa.Codec("snappy").compress(body)),
        headers={
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    )
    urllib.request.urlopen(request, timeout=30).close()
