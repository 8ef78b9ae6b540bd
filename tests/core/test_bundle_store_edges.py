"""Just how large a bundle may be, what a broken write leaves behind, and what is on disk when it is done."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

import small_bundle
from node_anomaly_core.bundle_store import (
    CURRENT,
    DIGEST,
    MANIFEST,
    MAX_FILE_BYTES,
    SIGNATURE,
    STAGING,
    activate,
    add_signature,
    adopt_bundle,
    read_bundle,
    read_bundle_bytes,
    read_signature,
    resolve_current,
    write_bundle,
)
from node_anomaly_core.errors import BundleError

FOREST = "isolation_forest.safetensors"
LONGEST = "n" * 100


def test_files_that_are_too_large_only_together_are_refused_before_one_is_read(copied: Path) -> None:
    def claim(document: dict[str, Any]) -> None:
        document["files"] |= {f"{n}.bin": {"size": MAX_FILE_BYTES, "sha256": "0" * 64} for n in range(3)}

    with pytest.raises(BundleError, match="claims more than 48 MiB") as refused:
        read_bundle(small_bundle.resealed(copied, claim))
    assert refused.value.reason == "size"


def test_a_file_as_large_and_a_name_as_long_as_they_may_be_are_read(copied: Path) -> None:
    (copied / LONGEST).touch()
    os.truncate(copied / LONGEST, MAX_FILE_BYTES)
    entry = {"size": MAX_FILE_BYTES, "sha256": hashlib.sha256(bytes(MAX_FILE_BYTES)).hexdigest()}
    small_bundle.resealed(copied, lambda document: document["files"].update({LONGEST: entry}))
    assert len(read_bundle(copied).files[LONGEST]) == MAX_FILE_BYTES


def test_a_file_that_grows_while_it_is_read_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, forest = os.fstat, (copied / FOREST).stat().st_ino

    def grow(descriptor: int) -> os.stat_result:
        status = asked(descriptor)
        if status.st_ino == forest:
            with (copied / FOREST).open("ab") as file:
                file.write(b"more")
        return status

    monkeypatch.setattr(os, "fstat", grow)
    with pytest.raises(BundleError, match="grew beyond"):
        read_bundle(copied)


def test_no_file_stays_open(written: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    read_bundle(written)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_all_bytes_of_a_bundle_are_its_files_and_what_vouches_for_them(copied: Path) -> None:
    assert set(read_bundle_bytes(copied)) == {*read_bundle(copied).files, MANIFEST, DIGEST}
    add_signature(copied, b"signed")
    assert read_bundle_bytes(copied)[SIGNATURE] == b"signed"


def test_a_signature_that_cannot_be_read_is_not_taken_for_none(copied: Path) -> None:
    assert read_signature(copied) is None
    (copied / SIGNATURE).symlink_to(MANIFEST)
    with pytest.raises(BundleError) as refused:
        read_signature(copied)
    assert refused.value.reason == "path"


def test_a_signature_that_cannot_be_written_leaves_nothing_behind(copied: Path) -> None:
    (copied / SIGNATURE).mkdir()
    before = sorted(copied.iterdir())
    with pytest.raises(OSError, match="directory"):
        add_signature(copied, b"signed")
    assert sorted(copied.iterdir()) == before


def test_a_broken_version_is_replaced_though_a_crash_left_an_older_one_half_removed(copied: Path) -> None:
    root, version = copied.parent, copied.name
    left = root / f"{STAGING}{version}-old"
    staging = root / f"{STAGING}new"
    for folder in (left, staging):
        folder.mkdir()
        (folder / MANIFEST).write_text("{}")
    assert adopt_bundle(root, staging, version) == copied
    assert [entry.name for entry in root.iterdir()] == [version]
    assert [entry.name for entry in copied.iterdir()] == [MANIFEST]


def test_a_version_that_is_no_plain_name_is_not_adopted(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "staging").mkdir(parents=True)
    with pytest.raises(BundleError) as refused:
        adopt_bundle(root, root / "staging", "../elsewhere")
    assert refused.value.reason == "path"
    assert [entry.name for entry in tmp_path.iterdir()] == ["root"]


def test_a_directory_without_a_manifest_is_neither_activated_nor_offered(tmp_path: Path) -> None:
    (tmp_path / "half" / MANIFEST).mkdir(parents=True)
    with pytest.raises(BundleError) as refused:
        activate(tmp_path, "half")
    assert refused.value.reason == "missing"
    (tmp_path / CURRENT).symlink_to("half")
    assert resolve_current(tmp_path) is None


def test_what_was_activated_goes_before_what_a_configmap_brought(copied: Path) -> None:
    root = copied.parent
    (root / "..brought").mkdir()
    (root / "..brought" / MANIFEST).write_text("{}")
    (root / "..data").symlink_to("..brought")
    activate(root, copied.name)
    assert resolve_current(root) == copied.resolve()


def test_every_file_and_its_directory_are_on_disk_before_a_bundle_has_its_name(
    small: small_bundle.SmallBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def record(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    target = write_bundle(tmp_path, small.manifest, small.files)
    *files, directory, root = synced
    assert sorted(path.name for path in files) == sorted(entry.name for entry in target.iterdir())
    assert {path.parent for path in files} == {directory}
    assert directory.name.startswith(STAGING)
    assert root == tmp_path.resolve()
