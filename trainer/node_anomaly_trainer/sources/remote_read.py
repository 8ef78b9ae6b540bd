"""Prometheus' remote-read protocol: raw samples as snappy-compressed protobuf, decoded into numpy.

Only what we need of it is written out here: messages are flat, and samples are decoded for a whole series
at once. protobuf omits fields that are zero, so a sample is 16 bytes, or 7 where its value is 0. Native
histograms and exemplars are skipped. Format: prompb/remote.proto and prompb/types.proto of Prometheus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Match
from node_anomaly_trainer.sources.prometheus_http import Connection
from node_anomaly_trainer.sources.raw_series import RawSeries

PATH = "/api/v1/read"
HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "Accept-Encoding": "snappy",
    "X-Prometheus-Remote-Read-Version": "0.1.0",
}
LARGEST_ANSWER = 1 << 30
"""Bytes an answer may unpack to; a damaged length must not allocate all memory."""

MATCH_TYPES = {"=": 0, "!=": 1, "=~": 2, "!~": 3}
_CELL = np.dtype({"names": ["head", "rest"], "formats": ["u1", "<u8"], "offsets": [0, 1], "itemsize": 9})
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, int, int]
"""Number, wire type, and for bytes where the content starts and ends (for a varint: its value twice)."""


def read_raw(
    connection: Connection, selections: Sequence[Sequence[Match]], first_ms: int, last_ms: int
) -> list[list[RawSeries]]:
    """The series of each selection, samples from `first_ms` to `last_ms`. Raises SourceError."""
    results = connection.post(PATH, read_request(selections, first_ms, last_ms), HEADERS, read_response)
    if len(results) != len(selections):
        raise SourceError(
            f"{connection.url} answered {len(results)} of {len(selections)} remote-read queries",
            "set source.prometheus.route: api",
        )
    return results


def read_request(queries: Sequence[Sequence[Match]], start_ms: int, end_ms: int) -> bytes:
    """The compressed body that asks for raw samples from `start_ms` to `end_ms`, both included."""
    body = b""
    for matchers in queries:
        query = _number(1, start_ms) + _number(2, end_ms)
        for match in matchers:
            query += _message(
                3,
                _number(1, MATCH_TYPES[match.op])
                + _message(2, match.label.encode())
                + _message(3, match.value.encode()),
            )
        body += _message(1, query)
    return bytes(pa.Codec("snappy").compress(body))


def read_response(content: bytes) -> list[list[RawSeries]]:
    """The series of each query, in the server's order and without series that hold no plain sample.

    Raises ValueError for anything that is not such an answer, whole.
    """
    body = _uncompressed(content)
    results = []
    for number, wire, first, last in _fields(body, 0, len(body)):
        if number != 1 or wire != _BYTES:
            continue
        results.append(
            [
                series
                for field, kind, start, stop in _fields(body, first, last)
                if field == 1 and kind == _BYTES and (series := _series(body, start, stop)) is not None
            ]
        )
    return results


def _uncompressed(content: bytes) -> bytes:
    size, _ = _varint(content, 0, len(content))
    if size > LARGEST_ANSWER:
        raise ValueError(f"an answer of {size} bytes")
    try:
        return bytes(pa.Codec("snappy").decompress(content, decompressed_size=size, asbytes=True))
    except OSError as error:
        raise ValueError("damaged snappy data") from error


def _series(body: bytes, first: int, last: int) -> RawSeries | None:
    labels: dict[str, str] = {}
    at = first
    while at < last and body[at] == 0x0A:  # labels come first
        size, start = _varint(body, at + 1, last)
        at = start + size
        if at > last:
            raise ValueError("a label that is longer than its series")
        name, value = _label(body, start, at)
        if name != "__name__":
            labels[name] = value
    decoded = _samples_at_once(body[at:last])
    times, values = decoded if decoded is not None else _samples_one_by_one(body, at, last)
    if not times.size:
        return None
    if times.size > 1 and not (np.diff(times) > 0).all():
        raise ValueError("samples out of order")
    return RawSeries(labels, times, values)


def _label(body: bytes, first: int, last: int) -> tuple[str, str]:
    parts = {1: "", 2: ""}
    for number, wire, start, stop in _fields(body, first, last):
        if wire == _BYTES:
            parts[number] = body[start:stop].decode()
    return parts[1], parts[2]


def _samples_at_once(body: bytes) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """All samples of a series, or None where the bytes are not the two forms that today's times give.

    Tag, length and content make 18 bytes (12 10 | 09 value | 10 time), or 9 where the value is 0
    (12 07 | 10 time), because a time in milliseconds takes 6 bytes from 1971 to 2109. So everything lies in
    cells of 9 bytes, and byte 2 of a cell tells a first half (09) from the others (10).
    """
    if len(body) % 9:
        return None
    cells = np.frombuffer(body, dtype=_CELL)
    head, rest = np.ascontiguousarray(cells["head"]), np.ascontiguousarray(cells["rest"])
    form = rest & 0xFFFF
    whole = form >> 8 == 0x09
    second = np.zeros(len(cells), dtype=bool)
    second[1:] = whole[:-1]
    zero = ~whole & ~second
    clock = rest[~whole]
    if (
        (len(cells) and whole[-1])
        or (whole & second).any()
        or not (form[whole] == 0x0910).all()
        or not (form[zero] == 0x1007).all()
        or not (head[~second] == 0x12).all()
        or not (clock & 0x8080_8080_8080_FF00 == 0x0080_8080_8080_1000).all()
    ):
        return None
    times = np.zeros(len(clock), dtype=np.uint64)
    for place in range(6):
        times |= (clock >> (16 + 8 * place) & 0x7F) << (7 * place)
    bits = np.zeros(len(clock), dtype=np.uint64)
    bits[second[~whole]] = (
        rest[whole] >> 16 | head[second].astype(np.uint64) << 48 | (rest[second] & 0xFF) << 56
    )
    return times.astype(np.int64), bits.view(np.float64)


def _samples_one_by_one(body: bytes, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The same for any valid encoding; skips histograms and exemplars."""
    times: list[int] = []
    values: list[float] = []
    for number, wire, start, stop in _fields(body, first, last):
        if number != 2 or wire != _BYTES:
            continue
        time, value = 0, 0.0
        for field, kind, begin, end in _fields(body, start, stop):
            if field == 1 and kind == _FIXED64:
                value = float(np.frombuffer(body, "<f8", 1, begin)[0])
            elif field == 2 and kind == _VARINT:
                time = end if end < 1 << 63 else end - (1 << 64)
        times.append(time)
        values.append(value)
    # The bits of a NaN matter: one of them is the stale marker. A Python float keeps them.
    return np.array(times, dtype=np.int64), np.array(values, dtype=np.float64)


def _fields(body: bytes, first: int, last: int) -> Iterator[Field]:
    at = first
    while at < last:
        tag, at = _varint(body, at, last)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(body, at, last)
            yield number, wire, value, value
            continue
        if wire == _BYTES:
            size, at = _varint(body, at, last)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > last:
            raise ValueError("a field that is longer than its message")
        yield number, wire, at, at + size
        at += size


def _varint(body: bytes, at: int, last: int) -> tuple[int, int]:
    """The number that starts at `at`, and where it ends."""
    value = shift = 0
    while at < last and shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number that does not end")


def _encoded(value: int) -> bytes:
    value &= (1 << 64) - 1
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


def _number(field: int, value: int) -> bytes:
    return _encoded(field << 3 | _VARINT) + _encoded(value)


def _message(field: int, content: bytes) -> bytes:
    return _encoded(field << 3 | _BYTES) + _encoded(len(content)) + content
