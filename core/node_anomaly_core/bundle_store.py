"""Bundles as files: read nothing before its digest, write nothing under its final name before it is whole.

Layout: `root/<version>/` holds manifest.json, manifest.sha256 and the files that the manifest lists;
`root/current` is a symlink to one version and is swapped atomically. The version is the first 16 hex digits
of the manifest's sha256, and the manifest holds the sha256 of every file, so the version names the content.
A signature over the manifest, in manifest.sig, therefore covers every byte.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from node_anomaly_core.errors import BundleError
from node_anomaly_core.manifest import FileEntry, Manifest, parse_manifest
from node_anomaly_core.signing import MAX_SIGNATURE_BYTES, PublicKey, verify

MANIFEST = "manifest.json"
DIGEST = "manifest.sha256"
SIGNATURE = "manifest.sig"
CURRENT = "current"
MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 16 << 20
MAX_BUNDLE_BYTES = 48 << 20
VERSION_DIGITS = 16
STAGING = ".writing-"
"""How the name of a directory begins that is not whole yet."""

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP})
"""What the system says of a path that leads nowhere."""

_AGAIN = "publish the bundle again with anomaly-trainer"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose every byte has been checked against its digest.

    Nothing in `files` has been parsed yet. `signed_by` is the id of the trusted key that signed it, and empty
    where no key was asked for.
    """

    path: Path
    version: str
    manifest: Manifest
    files: Mapping[str, bytes]
    signed_by: str = ""

    @property
    def origin(self) -> str:
        """Where it came from: `trained`, or `starter` for the one in the wheel."""
        return self.manifest.origin


def read_bundle(path: Path, trusted: Iterable[PublicKey] = ()) -> Bundle:
    """Read a bundle directory: sizes, digests, the signature, then the manifest.

    With `trusted` keys, one of them must have signed the manifest; without, a signature is not looked at.
    Raises BundleError, see BUNDLE_REASONS.
    """
    try:
        found = path.is_dir()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not found:
        raise BundleError(
            "missing", f"{path} is not a bundle directory", "point at a directory with a manifest.json"
        )
    recorded = _read(path, DIGEST, 200).decode("ascii", errors="replace").split()
    if not recorded or len(recorded[0]) != 64:
        raise BundleError("digest", f"{path / DIGEST} does not hold a sha256", _AGAIN)
    content = _read(path, MANIFEST, MAX_MANIFEST_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if digest != recorded[0]:
        raise BundleError("digest", f"{path / MANIFEST} does not match {DIGEST}", _AGAIN)
    keys = tuple(trusted)
    signed_by = verify(content, read_signature(path), keys, f"{path / MANIFEST}") if keys else ""
    manifest = parse_manifest(content)
    if sum(entry.size for entry in manifest.files.values()) > MAX_BUNDLE_BYTES:
        raise BundleError(
            "size", f"{path} claims more than {MAX_BUNDLE_BYTES >> 20} MiB", "train smaller models"
        )
    files = {}
    for name, entry in manifest.files.items():
        _check_name(path, name)
        if entry.size > MAX_FILE_BYTES:
            raise BundleError("size", f"{path / name} claims {entry.size} bytes", "train smaller models")
        data = _read(path, name, entry.size)
        if len(data) != entry.size:
            raise BundleError(
                "size", f"{path / name} has {len(data)} bytes, the manifest says {entry.size}", _AGAIN
            )
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise BundleError("digest", f"{path / name} does not match its sha256 in the manifest", _AGAIN)
        files[name] = data
    for model in manifest.models:
        if model.file not in files:
            raise BundleError("manifest", f"{path}: model {model.name} names no listed file", _AGAIN)
    return Bundle(path, digest[:VERSION_DIGITS], manifest, files, signed_by)


def read_bundle_bytes(path: Path) -> Mapping[str, bytes]:
    """Every file of a bundle directory whose digests hold, manifest, digest and signature included."""
    files = dict(read_bundle(path).files)
    files[MANIFEST] = _read(path, MANIFEST, MAX_MANIFEST_BYTES)
    files[DIGEST] = _read(path, DIGEST, 200)
    signature = read_signature(path)
    if signature is not None:
        files[SIGNATURE] = signature
    return files


def read_signature(path: Path) -> bytes | None:
    """The signature file of a bundle directory, unverified, or None if there is none."""
    try:
        return _read(path, SIGNATURE, MAX_SIGNATURE_BYTES)
    except BundleError as error:
        if error.reason == "missing":
            return None
        raise


def write_bundle(
    root: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    sign: Callable[[bytes], bytes] | None = None,
) -> Path:
    """Write `root/<version>/` whole or not at all and return it.

    `sign` makes the content of manifest.sig from the manifest's bytes (`signing.sign`). An equal bundle that
    is already there is kept, with the new signature. Raises OSError when the disk refuses; nothing is left
    behind then.
    """
    entries = {
        name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())
    }
    content = replace(manifest, files=entries).to_bytes()
    digest = hashlib.sha256(content).hexdigest()
    target = root / digest[:VERSION_DIGITS]
    signature = {} if sign is None else {SIGNATURE: sign(content)}
    if target.is_dir():
        if signature:
            add_signature(target, signature[SIGNATURE])
        return target
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=root))
    try:
        record = f"{digest}  {MANIFEST}\n".encode()
        for name, data in {**files, MANIFEST: content, DIGEST: record, **signature}.items():
            _check_name(root, name)
            _write(staging / name, data)
        adopt_bundle(root, staging, target.name)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return target


def add_signature(path: Path, signature: bytes) -> None:
    """Put manifest.sig into a bundle directory, whole; raises OSError when the disk refuses."""
    beside = path / f".{SIGNATURE}-{os.getpid()}"
    try:
        _write(beside, signature)
        beside.replace(path / SIGNATURE)
    finally:
        beside.unlink(missing_ok=True)
    _sync_directory(path)


def adopt_bundle(root: Path, staging: Path, version: str) -> Path:
    """Give a whole and verified directory below `root` its version's name in one step, and return it.

    A version that is there already is replaced: it may be what a broken copy left. Raises OSError.
    """
    _check_name(root, version)
    target = root / version
    staging.chmod(0o755)  # a temporary directory is private; agents read it as another user
    _sync_directory(staging)
    if target.is_dir():
        doomed = root / f"{STAGING}{version}-old"
        shutil.rmtree(doomed, ignore_errors=True)
        target.rename(doomed)
        staging.rename(target)
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        staging.rename(target)
    _sync_directory(root)
    return target


def activate(root: Path, version: str) -> None:
    """Point `root/current` at a version in one atomic step.

    Raises BundleError("missing") if it is not there, OSError when the disk refuses.
    """
    _check_name(root, version)
    if not (root / version / MANIFEST).is_file():
        raise BundleError(
            "missing", f"{root} holds no bundle {version}", "list the directory for its versions"
        )
    staging = root / f".{CURRENT}-{os.getpid()}"
    staging.unlink(missing_ok=True)
    staging.symlink_to(version, target_is_directory=True)
    try:
        staging.replace(root / CURRENT)
    except OSError:
        staging.unlink(missing_ok=True)
        raise
    _sync_directory(root)


def resolve_current(root: Path) -> Path | None:
    """The real directory of the bundle that a root offers now, or None.

    Tried in order: `current`, a ConfigMap's `..data`, the root itself. Raises BundleError("path") when a
    link leaves the root, and BundleError("io") when the file system refuses to say.
    """
    for name in (CURRENT, "..data", ""):
        candidate = root / name
        if _is_file(candidate, f"{root}/{name}/{MANIFEST}"):
            real, target = root.resolve(), candidate.resolve()
            if target != real and real not in target.parents:
                raise BundleError(
                    "path", f"{candidate} leads out of {root}", "link to a directory inside the root"
                )
            return target
    return None


def _is_file(of: Path, path: str) -> bool:
    """Whether there is a file; asked at every poll, so without a Path for each."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise _unreadable(of, error) from error


def starter_bundle() -> Path:
    """The bundle in the wheel, trained on the synthetic fleet, with which a fresh install scores at once."""
    return Path(__file__).parent / "starter"


def _unreadable(path: Path, error: OSError) -> BundleError:
    return BundleError("io", f"{path} cannot be read: {error.strerror}", "check the path and its permissions")


def _check_name(path: Path, name: str) -> None:
    plain = name and name[0] != "." and all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    if not plain or len(name) > 100:
        raise BundleError(
            "path", f"{path} names a file {name!r} that is not a plain name in its directory", _AGAIN
        )


def _read(directory: Path, name: str, limit: int) -> bytes:
    """At most limit + 1 bytes of a regular file, following no link."""
    path = directory / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise BundleError("missing", f"{path} is missing", _AGAIN) from error
    except OSError as error:
        reason = "path" if path.is_symlink() else "io"
        raise BundleError(
            reason, f"{path} cannot be opened: {error.strerror}", "check its permissions"
        ) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BundleError("path", f"{path} is not a regular file", _AGAIN)
        if status.st_size > limit:
            raise BundleError("size", f"{path} has {status.st_size} bytes, more than {limit}", _AGAIN)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise BundleError(
            "io", f"{path} cannot be read: {error.strerror}", "check the file system"
        ) from error
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise BundleError("size", f"{path} grew beyond {limit} bytes while it was read", _AGAIN)
    return data


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
