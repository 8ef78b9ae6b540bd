"""Publishing: whole bundles, the right one current, old ones retired."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

import small_bundle
from node_anomaly_core.bundle import resolve_current, verify_bundle
from node_anomaly_core.bundle_store import SIGNATURE
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.publish import prune, publish, publish_copy


@pytest.fixture(scope="module")
def small():
    return small_bundle.build()


def published(root, small, number, keep=5):
    path = publish(root, replace(small.manifest, trained_at=1e9 + number), small.files, keep)
    os.utime(path, (number, number))
    return path


def test_the_published_bundle_is_current_and_verifies(tmp_path, small):
    path = published(tmp_path / "new" / "bundles", small, 1)
    assert resolve_current(tmp_path / "new" / "bundles") == path
    assert verify_bundle(path).version == path.name


def test_the_newest_versions_are_kept(tmp_path, small):
    paths = [published(tmp_path, small, number, keep=3) for number in range(5)]
    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert not list(tmp_path.glob(".removed-*"))


def test_the_current_version_stays_however_old(tmp_path, small):
    old, *_ = [published(tmp_path, small, number) for number in range(4)]
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(old.name)
    assert len(prune(tmp_path, keep=1)) == 3
    assert resolve_current(tmp_path) == old


def test_what_is_no_bundle_version_is_never_removed(tmp_path, small):
    (tmp_path / "notes").mkdir()
    (tmp_path / "0123456789abcdef.txt").touch()
    published(tmp_path, small, 1, keep=1)
    published(tmp_path, small, 2, keep=1)
    assert (tmp_path / "notes").is_dir()
    assert (tmp_path / "0123456789abcdef.txt").exists()


def test_publishing_the_same_bundle_again_changes_nothing(tmp_path, small):
    assert published(tmp_path, small, 1) == published(tmp_path, small, 1)
    assert len([entry for entry in tmp_path.iterdir() if not entry.is_symlink()]) == 1


def test_a_directory_that_cannot_be_written_is_an_error_with_a_hint(tmp_path, small):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match="cannot publish to") as caught:
        publish(tmp_path / "file", small.manifest, small.files)
    assert "--publish" in caught.value.hint


def test_keeping_no_version_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep 0"):
        prune(tmp_path, keep=0)


def copied(root, other, small, number, **options):
    """A bundle of another directory, published here as it is."""
    return publish_copy(root, verify_bundle(published(other, small, number)), **options)


def test_a_copy_has_its_version_and_the_signature_of_who_copies_it(tmp_path, small):
    path = copied(tmp_path / "here", tmp_path / "there", small, 1, sign=lambda content: b"of " + content[:1])
    assert (path / SIGNATURE).read_bytes() == b"of {"
    assert resolve_current(tmp_path / "here") == path
    assert verify_bundle(path).version == path.name == resolve_current(tmp_path / "there").name


def test_a_copy_into_its_own_directory_is_only_made_current(tmp_path, small):
    old, new = (published(tmp_path, small, number) for number in (1, 2))
    before = {entry.name: entry.stat().st_ino for entry in old.iterdir()}
    assert publish_copy(tmp_path, verify_bundle(old)) == old == resolve_current(tmp_path)
    assert {entry.name: entry.stat().st_ino for entry in old.iterdir()} == before
    assert new.exists()


def test_copies_retire_the_oldest_too(tmp_path, small):
    paths = []
    for number in range(3):
        paths.append(copied(tmp_path / "here", tmp_path / "there", small, number, keep=2))
        os.utime(paths[-1], (number, number))
    assert [path.exists() for path in paths] == [False, True, True]


def test_a_link_that_is_named_like_a_version_is_none(tmp_path, small):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "0123456789abcdef"
    link.symlink_to("elsewhere", target_is_directory=True)
    for number in (1, 2):
        published(tmp_path, small, number, keep=1)
    assert link.is_symlink()
    assert (tmp_path / "elsewhere").is_dir()
