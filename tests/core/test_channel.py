"""The channel's document: strict, canonical, and the same share of nodes everywhere."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.channel import Channel, bucket, in_rollout, is_channel_name, parse_channel
from node_anomaly_core.errors import BundleError

CHANNEL = Channel(
    channel="stable",
    sequence=7,
    published_at=1_700_000_000.0,
    version="0123456789abcdef",
    trained_at=1_699_990_000.0,
    archive="archives/0123456789abcdef.tar",
    archive_size=4096,
    archive_sha256="ab" * 32,
    previous="fedcba9876543210",
    percent=10.0,
    salt="7",
)


def test_what_is_written_is_read_back_and_equal_documents_are_equal_bytes():
    assert parse_channel(CHANNEL.to_bytes()) == CHANNEL
    assert replace(CHANNEL).to_bytes() == CHANNEL.to_bytes()
    first = replace(CHANNEL, previous="", percent=100.0, salt="", rollback=True)
    assert parse_channel(first.to_bytes()) == first


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("archive", "/absolute.tar"),
        ("archive", "../outside.tar"),
        ("archive", "a/../b.tar"),
        ("archive", "https://elsewhere/x.tar"),
        ("archive", "a//b.tar"),
        ("archive", "a?b"),
        ("archive", "a%2fb"),
        ("archive", ""),
        ("version", "0123"),
        ("version", "0123456789ABCDEF"),
        ("version", "../../etc/passwd"),
        ("sequence", 0),
        ("sequence", 2**60),
        ("sequence", True),
        ("archive_size", 0),
        ("archive_size", 1 << 40),
        ("archive_sha256", "00"),
        ("percent", 101.0),
        ("percent", -1.0),
        ("percent", "10"),
        ("salt", "a b"),
        ("salt", 3),
        ("rollback", "yes"),
        ("previous", "x"),
        ("previous", None),
        ("channel", "No"),
        ("channel", "a/b"),
        ("trained_at", None),
        ("published_at", -1.0),
    ],
)
def test_a_document_that_no_agent_would_read_is_not_written(key, value):
    with pytest.raises(BundleError):
        replace(CHANNEL, **{key: value}).to_bytes()


def test_another_format_version_is_named():
    document = json.loads(CHANNEL.to_bytes())
    with pytest.raises(BundleError, match="version 2 is not known") as caught:
        parse_channel(json.dumps({**document, "format_version": 2}).encode())
    assert caught.value.reason == "format"


@given(st.integers(0, len(CHANNEL.to_bytes()) - 1), st.integers(0, 255))
def test_no_changed_byte_gives_anything_but_a_document_or_a_named_refusal(at, byte):
    changed = bytearray(CHANNEL.to_bytes())
    changed[at] = byte
    reason = ""
    try:
        parse_channel(bytes(changed))
    except BundleError as error:
        reason = error.reason
    assert reason in ("", "format", "manifest")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_no_json_crashes_the_parser(document):
    with pytest.raises(BundleError):
        parse_channel(json.dumps(document).encode())


def test_nesting_beyond_python_is_refused():
    with pytest.raises(BundleError):
        parse_channel(b"[" * 10_000)


@given(st.text(max_size=50), st.text(max_size=10), st.floats(0, 100), st.floats(0, 100))
def test_who_is_in_at_a_share_is_in_at_every_larger_one(node, salt, one, other):
    smaller, larger = sorted((one, other))
    channel = replace(CHANNEL, salt=salt)
    assert in_rollout(node, replace(channel, percent=larger)) or not in_rollout(
        node, replace(channel, percent=smaller)
    )
    assert in_rollout(node, replace(channel, percent=100.0))
    assert not in_rollout(node, replace(channel, percent=0.0))


def test_the_share_of_a_fleet_is_the_percentage_and_the_salt_chooses_others():
    nodes = [f"node-{number}.example.org" for number in range(20_000)]
    for percent in (1.0, 10.0, 50.0):
        share = sum(bucket(node, "7") < percent for node in nodes) / len(nodes) * 100.0
        assert abs(share - percent) < 1.0
    first = {node for node in nodes if bucket(node, "a") < 10.0}
    second = {node for node in nodes if bucket(node, "b") < 10.0}
    assert len(first & second) < 0.02 * len(nodes)


def test_the_buckets_are_the_same_in_every_release():
    assert bucket("web-1", "") == pytest.approx(BUCKETS[0], abs=1e-9)
    assert bucket("web-1", "7") == pytest.approx(BUCKETS[1], abs=1e-9)


BUCKETS = (54.43450497727861, 44.20874512926517)


def test_names_of_channels_are_names_of_folders():
    assert is_channel_name("stable")
    assert not any(map(is_channel_name, ("", "..", "a..b", "A", "a/b", ".a", "x" * 80)))
