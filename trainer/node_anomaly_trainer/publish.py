"""Hand an accepted bundle to the nodes: write it whole, switch `current`, retire the oldest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from node_anomaly_core.bundle import activate, resolve_current, write_bundle
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.manifest import Manifest

KEEP = 5
VERSION = re.compile(r"[0-9a-f]{16}")


def publish(root: Path, manifest: Manifest, files: Mapping[str, bytes], keep: int = KEEP) -> Path:
    """Write the bundle under `root`, make it current, and keep the newest `keep` versions.

    Returns the bundle's directory. A reader sees either the old or the new bundle, never a part of one.
    Raises TrainingError if the directory cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        path = write_bundle(root, manifest, files)
        activate(root, path.name)
    except OSError as error:
        raise TrainingError(
            f"cannot publish to {root}: {error.strerror or error}",
            "choose a writable directory with free space: --publish DIR",
        ) from error
    prune(root, keep)
    return path


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
