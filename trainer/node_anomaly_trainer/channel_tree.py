"""The published tree of static files: channels that name a bundle, and its archive.

Layout and order of writing are described in docs/distribution.md: the archive first, then the signature with
the earlier ones, then the document, each whole under its name or not there. Whoever is killed between two of
them leaves a tree in which every document has its archive and its signature. The caller holds the lock.
"""

from __future__ import annotations

import hashlib
import io
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from node_anomaly_core.archive import unpack_archive
from node_anomaly_core.bundle import verify_bundle
from node_anomaly_core.channel import (
    DOCUMENT,
    DOCUMENT_SIGNATURE,
    MAX_DOCUMENT_BYTES,
    Channel,
    is_channel_name,
    parse_channel,
)
from node_anomaly_core.errors import BundleError, TrainingError
from node_anomaly_core.signing import PrivateKey, sign, with_earlier
from node_anomaly_trainer.whole_file import write_whole

ARCHIVES = "archives"
STABLE = "stable"
_ARCHIVE = re.compile(r"[0-9a-f]{16}(-[0-9a-f]{16})?\.tar")


@dataclass(frozen=True, slots=True)
class Archived:
    """One bundle as a file, and what its manifest says."""

    version: str
    trained_at: float
    content: bytes


def current(tree: Path, channel: str) -> Channel | None:
    """What a channel offers, or None where it has never offered anything or its document is damaged."""
    try:
        content = (tree / channel / DOCUMENT).read_bytes()[: MAX_DOCUMENT_BYTES + 1]
        return parse_channel(content)
    except (OSError, BundleError):
        return None


def channels(tree: Path) -> tuple[Channel, ...]:
    """Every channel of a tree that can be read, by name."""
    names = sorted(entry.name for entry in tree.iterdir() if entry.is_dir()) if tree.is_dir() else []
    found = [current(tree, name) for name in names if is_channel_name(name) and name != ARCHIVES]
    return tuple(channel for channel in found if channel is not None)


def offer(
    tree: Path,
    channel: str,
    archived: Archived,
    keys: Sequence[PrivateKey],
    *,
    percent: float = 100.0,
    rollback: bool = False,
    clock: Callable[[], float] = time.time,
) -> Channel:
    """Put the archive in its place and let a channel offer it. Raises OSError when the disk refuses."""
    before = current(tree, channel)
    path = _place(tree, archived)
    now = clock()
    other = before is not None and before.version != archived.version
    document = Channel(
        channel=channel,
        sequence=_next(before, now),
        published_at=now,
        version=archived.version,
        trained_at=archived.trained_at,
        archive=path,
        archive_size=len(archived.content),
        archive_sha256=hashlib.sha256(archived.content).hexdigest(),
        previous="" if before is None else before.version if other else before.previous,
        percent=percent,
        salt=archived.version,  # another bundle, other nodes first
        rollback=rollback,
    )
    _write(tree, document, keys)
    return document


def share(
    tree: Path,
    channel: str,
    percent: float,
    keys: Sequence[PrivateKey],
    clock: Callable[[], float] = time.time,
) -> Channel:
    """Change the share of nodes that take what a channel offers. Raises TrainingError without a document."""
    before = current(tree, channel)
    if before is None:
        raise TrainingError(
            f"{tree}: channel {channel} offers nothing yet", "publish to it, or name a version with --version"
        )
    now = clock()
    document = replace(before, sequence=_next(before, now), published_at=now, percent=percent)
    _write(tree, document, keys)
    return document


def read_archive(tree: Path, version: str) -> Archived | None:
    """The archive of a version, unpacked and verified as an agent would; None if there is none that holds.

    Where a version was archived twice, with other signatures, the latest counts.
    """
    found = sorted(_archives(tree, version), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in found:
        content = path.read_bytes()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                unpack_archive(io.BytesIO(content), Path(scratch))
                bundle = verify_bundle(Path(scratch))
            except BundleError:
                continue
        if bundle.version == version:
            return Archived(version, bundle.manifest.trained_at, content)
    return None


def versions(tree: Path) -> tuple[str, ...]:
    """Versions whose archives are there, the latest first."""
    found = sorted(_archives(tree), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return tuple(dict.fromkeys(path.name[:16] for path in found))


def retire(tree: Path, keep: int) -> tuple[str, ...]:
    """Remove all but the `keep` latest archives; what a channel offers, or offered before, stays."""
    offered = channels(tree)
    needed = {channel.version for channel in offered} | {channel.previous for channel in offered}
    kept = {*versions(tree)[:keep], *needed}
    removed = [path for path in _archives(tree) if path.name[:16] not in kept]
    for path in removed:
        path.unlink(missing_ok=True)
    return tuple(sorted(path.name for path in removed))


def _archives(tree: Path, version: str = "") -> list[Path]:
    """Of one version, or of all."""
    found = [path for path in (tree / ARCHIVES).glob("*.tar") if _ARCHIVE.fullmatch(path.name)]
    return [path for path in found if not version or path.name[:16] == version]


def _next(before: Channel | None, now: float) -> int:
    """A larger number than any before.

    The clock carries it over the loss of the tree: agents remember the highest that they have accepted.
    """
    return max(int(now), before.sequence + 1 if before else 1)


def _place(tree: Path, archived: Archived) -> str:
    """Write the archive unless it is there, and return its path below the tree.

    A path never changes its content, since somebody may be half through reading it: the same bundle signed by
    another key gets a path of its own.
    """
    digest = hashlib.sha256(archived.content).hexdigest()
    for name in (f"{archived.version}.tar", f"{archived.version}-{digest[:16]}.tar"):
        path = tree / ARCHIVES / name
        if not path.exists():
            write_whole(path, archived.content)
        elif path.read_bytes() != archived.content:
            continue
        return f"{ARCHIVES}/{name}"
    # Only a damaged file can have that name and other bytes.
    write_whole(path, archived.content)
    return f"{ARCHIVES}/{path.name}"


def _write(tree: Path, document: Channel, keys: Sequence[PrivateKey]) -> None:
    folder = tree / document.channel
    content = document.to_bytes()
    signature = folder / DOCUMENT_SIGNATURE
    if keys:
        earlier = signature.read_bytes() if signature.exists() else b""
        write_whole(signature, with_earlier(sign(content, keys), earlier))
    write_whole(folder / DOCUMENT, content)
    if not keys:
        signature.unlink(missing_ok=True)
