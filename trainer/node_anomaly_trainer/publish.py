"""Hand an accepted bundle to the nodes: write it whole, switch `current`, retire the oldest."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from node_anomaly_core.bundle import (
    MANIFEST,
    Bundle,
    activate,
    add_signature,
    adopt_bundle,
    resolve_current,
    write_bundle,
)
from node_anomaly_core.bundle_store import CURRENT, STAGING, read_bundle_bytes
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.manifest import Manifest
from node_anomaly_trainer.whole_file import ABANDONED_S, write_whole

KEEP = 5
VERSION = re.compile(r"[0-9a-f]{16}")


def publish(
    root: Path,
    manifest: Manifest,
    files: Mapping[str, bytes],
    keep: int = KEEP,
    sign: Callable[[bytes], bytes] | None = None,
) -> Path:
    """Write the bundle under `root`, make it current, and keep the newest `keep` versions.

    `sign` makes manifest.sig from the manifest's bytes. Two of these at once are the caller's to prevent,
    see publish_lock.

    Returns the bundle's directory. A reader sees either the old or the new bundle, never a part of one.
    Raises TrainingError if the directory cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        path = write_bundle(root, manifest, files, sign)
        activate(root, path.name)
    except OSError as error:
        raise TrainingError(
            f"cannot publish to {root}: {error.strerror or error}",
            "choose a writable directory with free space: --publish DIR",
        ) from error
    with contextlib.suppress(OSError):  # the bundle is on offer; the next publish tries again
        prune(root, keep)
    return path


def publish_copy(
    root: Path,
    bundle: Bundle,
    keep: int = KEEP,
    sign: Callable[[bytes], bytes] | None = None,
) -> Path:
    """As `publish`, for a verified bundle from elsewhere: its bytes as they are, so its version stays."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        sweep(root)
        if bundle.path.resolve() != (root / bundle.version).resolve():
            staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=root))
            try:
                for name, data in read_bundle_bytes(bundle.path).items():
                    write_whole(staging / name, data)
                adopt_bundle(root, staging, bundle.version)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        path = root / bundle.version
        if sign is not None:
            add_signature(path, sign((path / MANIFEST).read_bytes()))
        activate(root, path.name)
    except OSError as error:
        raise TrainingError(
            f"cannot publish to {root}: {error.strerror or error}",
            "choose a writable directory with free space: publish.directory",
        ) from error
    with contextlib.suppress(OSError):
        prune(root, keep)
    return path


def sweep(root: Path) -> None:
    """Remove what publishers left that were killed: directories and links that never got their name."""
    for pattern in (f"{STAGING}*", ".removed-*", f".{CURRENT}-*"):
        for left in root.glob(pattern):
            if time.time() - left.lstat().st_mtime <= ABANDONED_S:
                continue
            if left.is_symlink():
                left.unlink(missing_ok=True)
            else:
                shutil.rmtree(left, ignore_errors=True)


def prune(root: Path, keep: int) -> tuple[str, ...]:
    """Remove all but the newest `keep` versions under `root`; the current one always stays.

    Returns the removed versions, oldest first.
    """
    if keep < 1:
        raise ValueError(f"keep {keep} versions: at least the current one stays")
    current = resolve_current(root)
    versions = [
        entry
        for entry in root.iterdir()
        if VERSION.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink()
    ]
    versions.sort(key=lambda entry: (entry.stat().st_mtime_ns, entry.name))
    kept = {current.name} if current else set()
    for entry in reversed(versions):
        if len(kept) < keep:
            kept.add(entry.name)
    removed = [entry for entry in versions if entry.name not in kept]
    for entry in removed:
        # Renamed first: a version that is half deleted must not be found under its name.
        doomed = entry.with_name(f".removed-{entry.name}")
        entry.rename(doomed)
        shutil.rmtree(doomed)
    return tuple(entry.name for entry in removed)
