"""A bundle as one file: an uncompressed tar that is a function of the bundle's content alone.

Any tar program can list and unpack it. Only what `write_archive` writes is read: a header must be, byte for
byte, the one that this module makes for its name and size. So links, devices, paths, sparse files, extended
headers, checksums that almost fit and whatever else tar has grown need no code here and no judgement.

Order: manifest.json, manifest.sha256, manifest.sig where there is one, then the rest by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from node_anomaly_core.bundle_store import (
    DIGEST,
    MANIFEST,
    MAX_BUNDLE_BYTES,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    SIGNATURE,
    read_bundle_bytes,
)
from node_anomaly_core.errors import BundleError
from node_anomaly_core.signing import MAX_SIGNATURE_BYTES

BLOCK = 512
MAX_MEMBERS = 40
MAX_ARCHIVE_BYTES = MAX_BUNDLE_BYTES + MAX_MANIFEST_BYTES + (MAX_MEMBERS + 2) * 2 * BLOCK
_CHUNK = 1 << 16
_FIRST = (MANIFEST, DIGEST, SIGNATURE)
_LIMITS: Mapping[str, int] = {MANIFEST: MAX_MANIFEST_BYTES, DIGEST: 200, SIGNATURE: MAX_SIGNATURE_BYTES}
_AGAIN = "publish the bundle again with anomaly-trainer"


def archive_bundle(path: Path) -> bytes:
    """The archive of a bundle directory whose digests hold. Raises BundleError for any other."""
    return write_archive(read_bundle_bytes(path))


def write_archive(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files. Raises BundleError for a set that `unpack_archive` would refuse."""
    names = [name for name in _FIRST if name in files] + sorted(set(files) - set(_FIRST))
    parts = []
    seen: set[str] = set()
    total = 0
    for name in names:
        data = files[name]
        total = _check(name, len(data), seen, total)
        parts += [_header(name, len(data)), data, bytes(-len(data) % BLOCK)]
    _check_complete(seen)
    return b"".join([*parts, bytes(2 * BLOCK)])


def unpack_archive(archive: BinaryIO, target: Path) -> tuple[str, ...]:
    """Write the files of an archive into an empty directory of the caller's, 64 KiB at a time.

    What is written is still unverified: read it with `verify_bundle`. Returns the names. Raises BundleError
    (`path`, `size`, `digest`) for whatever `write_archive` would not have written, and OSError of the target.
    """
    names = []
    for name, size in _members(archive):
        descriptor = os.open(target / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            left = size
            while left:
                chunk = _exactly(archive, min(left, _CHUNK))
                file.write(chunk)
                left -= len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if any(_exactly(archive, -size % BLOCK)):
            raise _damaged("has something between two files")
        names.append(name)
    return tuple(names)


def _members(archive: BinaryIO) -> Iterator[tuple[str, int]]:
    """Name and size of each file; the caller reads bytes and padding before it asks for the next."""
    seen: set[str] = set()
    total = 0
    while True:
        header = _exactly(archive, BLOCK)
        if not any(header):
            break
        name = header[:100].rstrip(b"\0").decode("ascii", errors="replace")
        digits = header[124:135]
        if not all(0x30 <= digit <= 0x37 for digit in digits):
            raise _damaged("has a header that is none of a bundle's")
        size = int(digits, 8)
        total = _check(name, size, seen, total)
        if header != _header(name, size):
            raise _damaged(f"has another header for {name} than a bundle's archive")
        yield name, size
    if any(_exactly(archive, BLOCK)) or archive.read(1):
        raise _damaged("goes on after its end")
    _check_complete(seen)


def _check(name: str, size: int, seen: set[str], total: int) -> int:
    """The bytes so far with this file, if it may come next."""
    plain = name and name[0] != "." and all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    if not plain or len(name) > 99:
        raise BundleError("path", f"the archive names a file {name!r} that is not a plain name", _AGAIN)
    if name in seen:
        raise BundleError("path", f"the archive holds {name} twice", _AGAIN)
    seen.add(name)
    total += size
    if size > _LIMITS.get(name, MAX_FILE_BYTES) or total > MAX_ARCHIVE_BYTES or len(seen) > MAX_MEMBERS:
        raise BundleError("size", f"the archive is beyond its limits at {name} ({size} bytes)", _AGAIN)
    return total


def _check_complete(seen: set[str]) -> None:
    if not {MANIFEST, DIGEST} <= seen:
        raise BundleError("missing", f"the archive has no {MANIFEST} with its {DIGEST}", _AGAIN)


def _exactly(archive: BinaryIO, size: int) -> bytes:
    data = archive.read(size)
    if len(data) != size:
        raise BundleError("size", "the archive ends too early", "fetch it again; publish it again")
    return data


def _header(name: str, size: int) -> bytes:
    """A ustar header (POSIX.1-1988): a regular file of root's, mode 0644, of no time."""
    zero = b"0000000\0"
    fields = (
        name.encode("ascii", errors="replace").ljust(100, b"\0"),
        b"0000644\0",
        zero,
        zero,
        b"%011o\0" % size,
        b"%011o\0" % 0,
        b" " * 8,
        b"0",
        bytes(100),
        b"ustar\x0000",
        bytes(64),
        zero,
        zero,
        bytes(167),
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _damaged(what: str) -> BundleError:
    return BundleError("digest", f"the archive {what}", _AGAIN)
