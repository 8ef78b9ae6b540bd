"""Basic authentication against bcrypt hashes: what exporter-toolkit does, with a bound on its work."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping

from node_anomaly_agent.web_answer import Answer, text_answer

REMEMBERED = 100
"""Outcomes kept, of right and of wrong credentials each: a login costs a tenth of a second of CPU."""

AT_ONCE = 2
"""Logins that may be computed at the same time, so that guessing takes neither the workers nor the CPU."""

_LONGEST_HEADER = 4096
_BCRYPT_READS = 72


class Users:
    """The users of one version of the file. Any thread."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        import bcrypt  # where there are no users, nobody needs it

        self._compare = bcrypt.checkpw
        self._hashes = {name.encode(): hashed.encode() for name, hashed in hashes.items()}
        # A name that nobody has takes as long as the slowest of those that somebody has.
        self._nobody = max(self._hashes.values(), key=lambda hashed: hashed[4:6])
        self._secret = os.urandom(32)
        self._outcomes: dict[bool, OrderedDict[bytes, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._lock = threading.Lock()
        self._computing = threading.BoundedSemaphore(AT_ONCE)

    def refuse(self, header: str) -> Answer | None:
        """Why a request with this Authorization header is not answered, or None if it is."""
        given = _credentials(header)
        if given is None:
            return _UNAUTHORIZED
        name, password = given
        key = hashlib.blake2b(len(name).to_bytes(4, "big") + name + password, key=self._secret).digest()
        with self._lock:
            for outcome, kept in self._outcomes.items():
                if key in kept:
                    kept.move_to_end(key)
                    return None if outcome else _UNAUTHORIZED
        if not self._computing.acquire(blocking=False):
            return _BUSY
        try:
            right = self._check(name, password)
        finally:
            self._computing.release()
        with self._lock:
            kept = self._outcomes[right]
            kept[key] = None
            if len(kept) > REMEMBERED:
                kept.popitem(last=False)
        return None if right else _UNAUTHORIZED

    def _check(self, name: bytes, password: bytes) -> bool:
        hashed = self._hashes.get(name)
        try:
            # Go's bcrypt, which the other exporters use, reads so much of a password.
            same = self._compare(password[:_BCRYPT_READS], self._nobody if hashed is None else hashed)
        except ValueError:
            return False
        return same and hashed is not None


def _credentials(header: str) -> tuple[bytes, bytes] | None:
    """User and password of an Authorization header, as RFC 7617 has it."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(header) > _LONGEST_HEADER:
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None


_UNAUTHORIZED = text_answer(
    "401: a user and a password are needed", "401 Unauthorized", (("WWW-Authenticate", "Basic"),)
)
_BUSY = text_answer("429: too many logins at once", "429 Too Many Requests", (("Retry-After", "1"),))
