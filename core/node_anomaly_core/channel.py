"""A channel: which bundle a fleet is to run now, as one small document in a tree of static files.

`<base>/<channel>/current.json` names a version and the archive that holds it (`<base>/<archive>`), and says
who is to take it: a percentage of nodes by a stable hash of their names. With keys configured it is signed
like a manifest, in `current.json.sig`, and verified before it is parsed. `sequence` grows with every change
of the document, a change of the percentage included, so an older document is recognised whatever its date.
See docs/distribution.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from node_anomaly_core.archive import MAX_ARCHIVE_BYTES
from node_anomaly_core.errors import BundleError
from node_anomaly_core.manifest_reader import MAX_NUMBER

FORMAT_VERSION = 1
DOCUMENT = "current.json"
DOCUMENT_SIGNATURE = "current.json.sig"
MAX_DOCUMENT_BYTES = 16 << 10
MAX_SEQUENCE = 2**53 - 1

_CHANNEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SALT = re.compile(r"[A-Za-z0-9._-]{0,64}")


@dataclass(frozen=True, slots=True)
class Channel:
    """What a channel offers now.

    Attributes:
        channel: its name.
        sequence: grows by at least 1 with every change of the document.
        published_at: unix seconds.
        version: the bundle's.
        trained_at: the bundle's, in unix seconds.
        archive: path of the archive below the base URL: plain segments, no `..`.
        archive_size: bytes.
        archive_sha256: hex.
        previous: the version before it, or empty.
        percent: share of nodes that take it, 0 to 100; the others stay with what they have.
        salt: chooses other nodes first for the same percentage.
        rollback: whether going back to an older bundle is meant.
    """

    channel: str
    sequence: int
    published_at: float
    version: str
    trained_at: float
    archive: str
    archive_size: int
    archive_sha256: str
    previous: str = ""
    percent: float = 100.0
    salt: str = ""
    rollback: bool = False

    def to_bytes(self) -> bytes:
        """Canonical JSON, one key a line.

        Raises BundleError("manifest") for a document that no agent would read.
        """
        content = (
            json.dumps(
                {
                    "format_version": FORMAT_VERSION,
                    "channel": self.channel,
                    "sequence": self.sequence,
                    "published_at_seconds": self.published_at,
                    "version": self.version,
                    "trained_at_seconds": self.trained_at,
                    "archive": {
                        "path": self.archive,
                        "size": self.archive_size,
                        "sha256": self.archive_sha256,
                    },
                    "previous": self.previous,
                    "rollout": {"percent": self.percent, "salt": self.salt},
                    "rollback": self.rollback,
                },
                indent=1,
                sort_keys=True,
                allow_nan=False,
            ).encode()
            + b"\n"
        )
        parse_channel(content)
        return content


def parse_channel(content: bytes) -> Channel:
    """Parse a document, whose signature has been checked where one is asked for.

    Raises BundleError("format" or "manifest"), and nothing else, whatever the bytes are.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        raise _wrong("the document", f"is larger than {MAX_DOCUMENT_BYTES >> 10} KiB")
    try:
        document = json.loads(content.decode())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _wrong("the document", "is not JSON") from error
    if not isinstance(document, dict):
        raise _wrong("the document", "must be an object")
    if document.get("format_version") != FORMAT_VERSION:
        raise BundleError(
            "format",
            f"{DOCUMENT}: format version {str(document.get('format_version'))[:20]} is not known; "
            f"this agent reads version {FORMAT_VERSION}",
            "upgrade the agent, or publish with a trainer of the agent's version",
        )
    archive, rollout = document.get("archive"), document.get("rollout")
    if not isinstance(archive, dict):
        raise _wrong("archive", "must be an object")
    if not isinstance(rollout, dict):
        raise _wrong("rollout", "must be an object")
    previous = document.get("previous")
    rollback = document.get("rollback")
    if not isinstance(rollback, bool):
        raise _wrong("rollback", "must be true or false")
    return Channel(
        channel=_text(document.get("channel"), "channel", _CHANNEL),
        sequence=_whole(document.get("sequence"), "sequence", MAX_SEQUENCE),
        published_at=_number(document.get("published_at_seconds"), "published_at_seconds", MAX_NUMBER),
        version=_text(document.get("version"), "version", _VERSION),
        trained_at=_number(document.get("trained_at_seconds"), "trained_at_seconds", MAX_NUMBER),
        archive=_path(archive.get("path")),
        archive_size=_whole(archive.get("size"), "archive.size", MAX_ARCHIVE_BYTES),
        archive_sha256=_text(archive.get("sha256"), "archive.sha256", _SHA256),
        previous="" if previous == "" else _text(previous, "previous", _VERSION),
        percent=_number(rollout.get("percent"), "rollout.percent", 100.0),
        salt=_text(rollout.get("salt"), "rollout.salt", _SALT),
        rollback=rollback,
    )


def is_channel_name(name: str) -> bool:
    """Whether a channel may be called so: it is a folder's name in the published tree."""
    return _CHANNEL.fullmatch(name) is not None and ".." not in name


def bucket(node: str, salt: str = "") -> float:
    """Where a node stands between 0 and 100, the same at both ends and in every release."""
    digest = hashlib.sha256(f"{salt}\n{node}".encode(errors="surrogateescape")).digest()
    # 53 bits, which a double holds exactly: 64 would round the last of them up to 100.
    return (int.from_bytes(digest[:8]) >> 11) / 2**53 * 100.0


def in_rollout(node: str, channel: Channel) -> bool:
    """Whether a node takes the bundle now. Whoever takes it at 10 % also does at every larger share."""
    return bucket(node, channel.salt) < channel.percent


def _text(value: object, key: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _wrong(key, f"must match {pattern.pattern}")
    return value


def _path(value: object) -> str:
    if (
        not isinstance(value, str)
        or len(value) > 300
        or not all(_SEGMENT.fullmatch(part) for part in value.split("/"))
    ):
        raise _wrong("archive.path", "must be plain names with slashes between them, below the base URL")
    return value


def _number(value: object, key: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise _wrong(key, f"must be a number from 0 to {most:g}")
    return float(value)


def _whole(value: object, key: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise _wrong(key, f"must be a whole number from 1 to {most}")
    return value


def _wrong(key: str, what: str) -> BundleError:
    return BundleError("manifest", f"{DOCUMENT}: {key} {what}", "publish the channel again")
