"""Remote-read's wire format: whatever a server may send decodes to the same bits, or is refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.expressions import Match
from node_anomaly_trainer.sources.remote_read import read_request, read_response
from promwrite import STALE, message, sample, series, varint

NOW = 1_767_571_200_000
LABELS = {"__name__": "up", "instance": "a:9100", "job": "node"}

bits = st.one_of(
    st.sampled_from([0, 1 << 63, 0x7FF8000000000001, 0x7FF0000000000002, 0x0710091007121012]),
    st.integers(0, (1 << 64) - 1),
)
times = st.lists(st.integers(0, 10_000_000), min_size=1, max_size=80, unique=True).map(sorted)


def packed(body):
    return bytes(pa.Codec("snappy").compress(body))


def one_result(*many):
    return packed(message(1, b"".join(message(1, one) for one in many)))


@given(times, st.data(), st.sampled_from([0, 1, NOW, 1 << 40, -5_000_000]))
def test_every_value_keeps_its_bits_and_its_time(offsets, data, base):
    """Zeros, negative zeros (sent as zeros), NaN and stale markers, times of any length."""
    at = [base + offset for offset in offsets]
    values = [data.draw(bits) for _ in at]
    body = series(LABELS, [], []) + b"".join(
        sample(when, value) for when, value in zip(at, values, strict=True)
    )
    ((found,),) = read_response(one_result(body))
    assert found.labels == {"instance": "a:9100", "job": "node"}
    assert found.times.tolist() == at
    expected = [0 if value == 1 << 63 else value for value in values]
    assert found.values.view(np.uint64).tolist() == expected


def test_stale_markers_are_told_from_other_nans():
    body = series(LABELS, [NOW, NOW + 1, NOW + 2], [1.0, np.nan, STALE])
    ((found,),) = read_response(one_result(body))
    assert found.stale.tolist() == [False, False, True]


def test_native_histograms_and_exemplars_are_skipped():
    mixed = series(LABELS, [NOW], [2.0]) + message(3, b"\x11" + b"\0" * 8) + message(4, varint(8) + b"\x05")
    only = series({**LABELS, "job": "other"}, [], []) + message(4, varint(8) + b"\x05")
    ((found,),) = read_response(one_result(only, mixed))
    assert found.values.tolist() == [2.0]


def test_each_query_has_its_own_result_and_an_empty_one_stays_empty():
    content = packed(message(1, b"") + message(1, message(1, series(LABELS, [NOW], [0.0]))))
    nothing, (found,) = read_response(content)
    assert nothing == []
    assert found.values.tolist() == [0.0]


@given(st.integers(0, 400), st.data())
def test_a_damaged_answer_is_refused_or_read_but_never_breaks(length, data):
    whole = message(1, message(1, series(LABELS, [NOW + 15 * i for i in range(12)], [1.5] * 12)))
    cut = bytearray(whole[: min(length, len(whole))])
    if cut:
        cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read_response(packed(bytes(cut)))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 12, b"hello, I am a proxy", varint(1 << 40), packed(b"abc")[:-1]],
    ids=["nothing", "endless number", "text", "too large", "half"],
)
def test_what_is_no_answer_is_refused(content):
    with pytest.raises(ValueError, match=r"."):
        read_response(content)


def test_samples_out_of_order_are_refused():
    with pytest.raises(ValueError, match="out of order"):
        read_response(one_result(series(LABELS, [NOW, NOW - 1], [1.0, 2.0])))


def test_a_request_names_range_and_matchers():
    body = read_request([[Match("__name__", "=", "up"), Match("job", "!~", "a|b")]], NOW, NOW + 60_000)
    plain = bytes(pa.Codec("snappy").decompress(body, decompressed_size=body[0]))
    assert plain == message(
        1,
        b"\x08" + varint(NOW) + b"\x10" + varint(NOW + 60_000)
        + message(3, b"\x08\x00" + message(2, b"__name__") + message(3, b"up"))
        + message(3, b"\x08\x03" + message(2, b"job") + message(3, b"a|b")),
    )  # fmt: skip
