"""Signatures: what a trusted key signed holds, in any order and beside any other line; nothing else does."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core import signing
from node_anomaly_core.errors import BundleError
from node_anomaly_core.signing import KeyFileError, PrivateKey, PublicKey

OLD, NEW, STRANGER = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
CONTENT = b'{"a": 1}\n'


def refused(content: bytes, signatures: bytes | None, *trusted: PublicKey) -> str:
    with pytest.raises(BundleError) as caught:
        signing.verify(content, signatures, trusted, "it")
    assert caught.value.reason == "signature"
    assert caught.value.hint
    return caught.value.message


def test_a_signature_of_a_trusted_key_holds_and_names_it():
    signed = signing.sign(CONTENT, [OLD])
    assert signing.verify(CONTENT, signed, [NEW.public, OLD.public], "it") == OLD.public.id


def test_while_keys_change_either_of_two_signatures_is_enough():
    signed = signing.sign(CONTENT, [OLD, NEW])
    assert signing.verify(CONTENT, signed, [OLD.public], "it") == OLD.public.id
    assert signing.verify(CONTENT, signed, [NEW.public], "it") == NEW.public.id


def test_a_signature_file_written_ahead_serves_the_document_before_and_after():
    before, after = b"before", b"after"
    both = signing.with_earlier(signing.sign(after, [OLD]), signing.sign(before, [OLD]))
    for content in (before, after):
        assert signing.verify(content, both, [OLD.public], "it") == OLD.public.id
    crowded = both
    for number in range(20):
        crowded = signing.with_earlier(signing.sign(bytes([number]), [OLD]), crowded)
    assert len(crowded) <= signing.MAX_SIGNATURE_BYTES
    assert signing.verify(bytes([19]), crowded, [OLD.public], "it")


def test_unsigned_strange_damaged_and_wrong_are_told_apart():
    assert "is not signed" in refused(CONTENT, None, OLD.public)
    message = refused(CONTENT, signing.sign(CONTENT, [STRANGER]), OLD.public)
    assert STRANGER.public.id in message
    assert OLD.public.id in message
    for damaged in (b"", b"ed25519 x y\n", b"\xff" * 100, signing.sign(CONTENT, [OLD])[:-10]):
        assert "damaged" in refused(CONTENT, damaged, OLD.public)
    assert "longer" in refused(CONTENT, b"x" * 3000, OLD.public)
    assert "is wrong" in refused(CONTENT + b" ", signing.sign(CONTENT, [OLD]), OLD.public)


@given(st.integers(0, len(CONTENT) * 8 - 1))
def test_no_bit_of_the_content_can_change(at):
    changed = bytearray(CONTENT)
    changed[at // 8] ^= 1 << at % 8
    refused(bytes(changed), signing.sign(CONTENT, [OLD]), OLD.public)


@given(st.binary(max_size=300))
def test_no_bytes_pass_for_a_signature(noise):
    refused(CONTENT, noise, OLD.public)


@given(st.integers(0, 64 * 8 - 1))
def test_no_bit_of_a_signature_can_change(at):
    word, key_id, encoded = signing.sign(CONTENT, [OLD]).split()
    raw = bytearray(base64.b64decode(encoded))
    raw[at // 8] ^= 1 << at % 8
    refused(CONTENT, b" ".join((word, key_id, base64.b64encode(raw))), OLD.public)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_another_implementation_agrees_about_keys_and_signatures(seed, content):
    ours, theirs = PrivateKey(seed), Ed25519PrivateKey.from_private_bytes(seed)
    raw = theirs.public_key().public_bytes_raw()
    assert ours.public.raw == raw
    line = signing.sign(content, [ours]).split()
    assert base64.b64decode(line[2]) == theirs.sign(content)
    spki = theirs.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    pkcs8 = theirs.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    assert signing.parse_public_key(spki.decode()) == ours.public
    assert signing.parse_private_key(pkcs8.decode()) == ours
    assert ours.public.pem().encode() == spki
    assert ours.pem().encode() == pkcs8
    assert signing.parse_public_key(ours.public.base64()) == ours.public


def test_a_key_of_the_wrong_kind_is_named_but_never_repeated():
    secret = OLD.pem()
    with pytest.raises(KeyFileError) as caught:
        signing.parse_public_key(secret)
    assert "got a private key" in caught.value.message
    shown = caught.value.message + caught.value.hint + repr(OLD)
    assert secret.splitlines()[1] not in shown
    assert "\\x01" not in shown
    for wrong in ("", "abc", "AAAA", "x" * 44, base64.b64encode(bytes(33)).decode(), "é"):
        with pytest.raises(KeyFileError):
            signing.parse_public_key(wrong)


def test_new_keys_differ_and_sign():
    one, two = signing.generate_key(), signing.generate_key()
    assert one != two
    assert signing.verify(b"x", signing.sign(b"x", [one]), [one.public], "it") == one.public.id
    with pytest.raises(ValueError, match="0 keys"):
        signing.sign(b"x", [])


def test_a_node_without_keys_never_loads_libsodium(tmp_path: Path):
    program = (
        "import sys; from node_anomaly_core.bundle import verify_bundle, starter_bundle;"
        "verify_bundle(starter_bundle()); print('nacl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
