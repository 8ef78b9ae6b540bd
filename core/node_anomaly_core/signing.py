"""Ed25519 signatures over a bundle's manifest and over a channel's document.

A signature file holds one line for each signature, `ed25519 <key id> <base64 of 64 bytes>`. Several lines
serve two changes that must not be seen half done: a change of keys (old and new key sign side by side) and
a change of the signed file beside it (its next signature is there before it is). One line that a trusted
key made over exactly these bytes is enough; lines of keys that are not known are passed over.

The key id is the first 16 hex digits of the sha256 of the raw public key. Keys are read in the forms that
`openssl genpkey -algorithm ed25519` writes (PEM), or as base64 of the 32 raw bytes.

The arithmetic is libsodium's, through PyNaCl, which is imported by the first verification: a node without
keys never has it in memory. See docs/adr/0014-signatures-by-libsodium.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from node_anomaly_core.errors import AnomalyError, BundleError

MAX_SIGNATURE_BYTES = 2048
MAX_SIGNATURES = 8
MAX_KEY_FILE_BYTES = 4096

_KEY_BYTES = 32
_LINE = re.compile(rb"ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)")
# What stands before the 32 bytes in DER (RFC 8410, sections 4 and 7): constant, as Ed25519 has no parameters.
_PUBLIC_DER = bytes.fromhex("302a300506032b6570032100")
_PRIVATE_DER = bytes.fromhex("302e020100300506032b657004220420")
_PEM = re.compile(r"-----BEGIN (PUBLIC|PRIVATE) KEY-----\s*([A-Za-z0-9+/=\s]+?)\s*-----END \1 KEY-----\s*")
_MAKE_ONE = "make a pair with anomaly-trainer keygen, or openssl genpkey -algorithm ed25519"


class KeyFileError(AnomalyError):
    """A key that cannot be read."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may be trusted: 32 raw bytes."""

    raw: bytes

    @property
    def id(self) -> str:
        """The first 16 hex digits of the sha256 of the raw key."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def pem(self) -> str:
        """The key as OpenSSL reads it."""
        return _pem("PUBLIC", _PUBLIC_DER + self.raw)

    def base64(self) -> str:
        """The key as one word, for a configuration file."""
        return base64.b64encode(self.raw).decode()


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """The trainer's key: 32 bytes of seed that never appear in a log or a repr."""

    seed: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """What agents are given."""
        from nacl.signing import SigningKey

        return PublicKey(bytes(SigningKey(self.seed).verify_key))

    def pem(self) -> str:
        """The key as OpenSSL reads it (PKCS #8, not encrypted): a secret."""
        return _pem("PRIVATE", _PRIVATE_DER + self.seed)


def generate_key() -> PrivateKey:
    """A new key from the system's randomness."""
    from nacl.signing import SigningKey

    return PrivateKey(bytes(SigningKey.generate()))


def parse_public_key(text: str) -> PublicKey:
    """A public key from PEM or base64.

    Raises KeyFileError without repeating the text: somebody may have pasted the private key.
    """
    return PublicKey(_raw(text, "PUBLIC", _PUBLIC_DER))


def parse_private_key(text: str) -> PrivateKey:
    """A private key from PEM (PKCS #8) or base64 of its seed.

    Raises KeyFileError without repeating the text.
    """
    return PrivateKey(_raw(text, "PRIVATE", _PRIVATE_DER))


def sign(content: bytes, keys: Sequence[PrivateKey]) -> bytes:
    """The signature file of these bytes: one line for each key.

    Raises ValueError for no key or more than MAX_SIGNATURES of them.
    """
    from nacl.signing import SigningKey

    if not 0 < len(keys) <= MAX_SIGNATURES:
        raise ValueError(f"{len(keys)} keys: from 1 to {MAX_SIGNATURES} can sign")
    lines = []
    for key in keys:
        signature = SigningKey(key.seed).sign(content).signature
        lines.append(b"ed25519 %s %s\n" % (key.public.id.encode(), base64.b64encode(signature)))
    return b"".join(lines)


def with_earlier(new: bytes, earlier: bytes) -> bytes:
    """A signature file for the new bytes that still holds the earlier lines, as many as fit.

    Written before the signed file is replaced, so that a reader finds a good signature before and after.
    """
    lines = new.splitlines()
    lines += [line for line in earlier.splitlines() if _LINE.fullmatch(line) and line not in lines]
    return b"\n".join(lines[:MAX_SIGNATURES]) + b"\n"


def verify(content: bytes, signatures: bytes | None, trusted: Iterable[PublicKey], what: str) -> str:
    """The id of the trusted key that signed these bytes.

    Args:
        content: exactly what was signed; nothing has parsed it yet.
        signatures: the signature file, or None where there is none.
        trusted: the keys to believe.
        what: how the signed thing is called in the error.

    Raises BundleError("signature").
    """
    keys = {key.id: key for key in trusted}
    if signatures is None:
        raise BundleError(
            "signature",
            f"{what} is not signed, and bundle.trusted-keys asks for a signature",
            "publish with a signing key, or take the keys out of the configuration",
        )
    if len(signatures) > MAX_SIGNATURE_BYTES:
        raise BundleError("signature", f"the signature of {what} is longer than any real one", _sign_again())
    found = [match for line in signatures.splitlines() if (match := _LINE.fullmatch(line))]
    if not found:
        raise BundleError("signature", f"the signature of {what} is damaged", _sign_again())
    known = [(match[1].decode(), match[2]) for match in found[:MAX_SIGNATURES] if match[1].decode() in keys]
    if not known:
        by = ", ".join(sorted({match[1].decode() for match in found[:MAX_SIGNATURES]}))
        raise BundleError(
            "signature",
            f"{what} is signed by {by}, which is not among the trusted keys ({', '.join(sorted(keys))})",
            "add that key to bundle.trusted-keys if it is yours, or sign with one that is trusted",
        )
    for key_id, encoded in known:
        if _holds(keys[key_id], content, base64.b64decode(encoded)):
            return key_id
    raise BundleError(
        "signature", f"the signature of {what} by {known[0][0]} is wrong: its bytes changed", _sign_again()
    )


def _holds(key: PublicKey, content: bytes, signature: bytes) -> bool:
    from nacl.exceptions import CryptoError
    from nacl.signing import VerifyKey

    try:
        VerifyKey(key.raw).verify(content, signature)
    except (CryptoError, ValueError):
        return False
    return True


def _sign_again() -> str:
    return "publish again; if nobody changed it on purpose, find out who wrote to the channel"


def _raw(text: str, kind: str, prefix: bytes) -> bytes:
    text = text.strip()
    expected = f"expected an Ed25519 {kind.lower()} key as PEM or as base64 of 32 bytes"
    match = _PEM.fullmatch(text)
    if match and match[1] != kind:
        raise KeyFileError(f"{expected}, got a {match[1].lower()} key", _MAKE_ONE)
    try:
        data = base64.b64decode("".join((match[2] if match else text).split()), validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileError(expected, _MAKE_ONE) from None
    if match:
        if not data.startswith(prefix):
            raise KeyFileError(f"{expected}, got a key of another type", _MAKE_ONE)
        data = data[len(prefix) :]
    if len(data) != _KEY_BYTES:
        raise KeyFileError(expected, _MAKE_ONE)
    return data


def _pem(kind: str, der: bytes) -> str:
    return f"-----BEGIN {kind} KEY-----\n{base64.b64encode(der).decode()}\n-----END {kind} KEY-----\n"
