"""VictoriaMetrics' export: raw samples as lines of JSON, one for each series, decoded into numpy.

A line is `{"metric":{labels},"values":[...],"timestamps":[...]}`. Only the labels are read as JSON: the
numbers of all lines are parsed in one go, which takes a third of the time. The server rounds what it stores
to 12 digits, keeps no sign of a zero and no NaN but the marker of a series' end, and may hold several samples
of one millisecond.
Format: https://docs.victoriametrics.com/#how-to-export-time-series
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Match
from node_anomaly_trainer.sources.prometheus_http import Connection
from node_anomaly_trainer.sources.raw_series import STALE_BITS, RawSeries, in_order

PATH = "/api/v1/export"
HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "Accept-Encoding": "identity"}
"""Packing takes the server longer than a local network needs for what it saves."""

_DIGITS = 13
"""Of a time in milliseconds between the years 2001 and 2286."""
_ENDED = ["null", "NaN"]
"""How it writes that a series ended: old releases say NaN where that is the first sample of a line."""
_VALUES, _TIMES, _END = b',"values":[', b'],"timestamps":[', b"]}\n"


def is_offered(connection: Connection) -> bool:
    """Whether the server has it: asked for nothing, it says what it misses, and others have no such page."""
    try:
        connection.get(PATH, {})
    except SourceError as error:
        return "match[]" in error.message
    return False


def read_raw(
    connection: Connection, selections: Sequence[Sequence[Match]], first_ms: int, last_ms: int
) -> list[list[RawSeries]]:
    """The series of each selection, samples from `first_ms` to `last_ms`. Raises SourceError."""
    found = []
    for selection in selections:
        body = export_request(selection, first_ms, last_ms)
        series = connection.post(PATH, body, HEADERS, read_export)
        found.append([part for one in series if (part := _between(one, first_ms, last_ms)).times.size])
    return found


def export_request(selection: Sequence[Match], first_ms: int, last_ms: int) -> bytes:
    """The form that asks for these series, with a millisecond to spare at each end: it counts in seconds."""
    selector = "{" + ",".join(map(str, selection)) + "}"
    form = {
        "match[]": selector,
        "start": f"{(first_ms - 1) / 1000:.3f}",
        "end": f"{(last_ms + 1) / 1000:.3f}",
    }
    return urllib.parse.urlencode(form).encode()


def read_export(content: bytes) -> list[RawSeries]:
    """The series of the answer. Raises ValueError for anything that is not such an answer, whole."""
    if content and not content.endswith(_END):
        raise ValueError("the last line is cut off")
    labels, value_texts, time_texts = [], [], []
    at = 0
    while at < len(content):
        stop = content.index(_END, at)
        values = content.find(_VALUES, at, stop)
        times = content.find(_TIMES, values, stop)
        if values < 0 or times < 0:
            raise ValueError(f"no series: {content[at : at + 60]!r}")
        labels.append(_labels(content[at:values]))
        value_texts.append(content[values + len(_VALUES) : times])
        time_texts.append(content[times + len(_TIMES) : stop])
        at = stop + len(_END)
    return [
        RawSeries(series, *in_order(*samples))
        for series, samples in zip(labels, _samples(time_texts, value_texts), strict=True)
    ]


def _labels(head: bytes) -> dict[str, str]:
    metric = json.loads(head + b"}")["metric"]
    return {name: str(value) for name, value in metric.items() if name != "__name__"}


def _samples(
    time_texts: Sequence[bytes], value_texts: Sequence[bytes]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Times and values of each series, out of numbers that commas separate."""
    sizes = [text.count(b",") + 1 for text in value_texts]
    if sizes != [text.count(b",") + 1 for text in time_texts]:
        raise ValueError("a series with more values than times")
    if not sizes:
        return
    times, values = _times(b",".join(time_texts)), _values(b",".join(value_texts))
    if not len(times) == len(values) == sum(sizes):
        raise ValueError("a series with an empty value or time")
    at = 0
    for size in sizes:
        yield times[at : at + size], values[at : at + size]
        at += size


def _values(text: bytes) -> NDArray[np.float64]:
    if b"I" in text:  # +Inf in old releases, "Infinity" in newer ones
        text = text.replace(b'"', b"").replace(b"+", b"")
    column = _parsed(text, pa.float64())
    values = np.array(column.to_numpy(), dtype=np.float64)
    values.view(np.uint64)[column.is_null().to_numpy()] = STALE_BITS
    return values


def _times(text: bytes) -> NDArray[np.int64]:
    if len(text) % (_DIGITS + 1) == _DIGITS:
        cells = np.frombuffer(text + b",", dtype=np.uint8).reshape(-1, _DIGITS + 1)
        digits = cells[:, :_DIGITS] - ord("0")
        if (cells[:, _DIGITS] == ord(",")).all() and (digits < 10).all():
            times = np.zeros(len(cells), dtype=np.int64)
            for place in range(_DIGITS):
                times *= 10
                times += digits[:, place]
            return times
    return np.array(_parsed(text, pa.int64()).to_numpy(), dtype=np.int64)


def _parsed(text: bytes, kind: pa.DataType) -> pa.ChunkedArray:
    """Numbers as one column of a CSV file, the fastest parser at hand; ArrowInvalid, a ValueError."""
    return pa.csv.read_csv(
        pa.py_buffer(text.replace(b",", b"\n")),
        read_options=pa.csv.ReadOptions(column_names=["number"], use_threads=False),
        parse_options=pa.csv.ParseOptions(ignore_empty_lines=False),
        convert_options=pa.csv.ConvertOptions(
            column_types={"number": kind}, null_values=_ENDED if pa.types.is_floating(kind) else []
        ),
    )["number"]


def _between(series: RawSeries, first_ms: int, last_ms: int) -> RawSeries:
    first, stop = np.searchsorted(series.times, [first_ms, last_ms + 1])
    return RawSeries(series.labels, series.times[first:stop], series.values[first:stop])
