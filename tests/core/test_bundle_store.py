"""A bundle is read whole and unchanged or refused with a reason, and is written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_bundle
from node_anomaly_core.bundle_store import (
    CURRENT,
    DIGEST,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    activate,
    read_bundle,
    resolve_current,
    write_bundle,
)
from node_anomaly_core.errors import BundleError
from node_anomaly_core.signing import PrivateKey, sign

FOREST = "isolation_forest.safetensors"


def reason(path: Path) -> str:
    """Why a bundle is refused; every refusal says what and what next."""
    with pytest.raises(BundleError) as refused:
        read_bundle(path)
    assert refused.value.message
    assert refused.value.hint
    return refused.value.reason


# ------------------------------------------------------------------------------------------ write and read


def test_what_was_written_is_what_is_read(written: Path, small: small_bundle.SmallBundle) -> None:
    bundle = read_bundle(written)
    assert dict(bundle.files) == dict(small.files)
    assert bundle.version == written.name
    assert len(bundle.version) == 16
    assert bundle.origin == "trained"
    assert [f.name for f in bundle.manifest.features] == [f.name for f in small_bundle.FEATURES]


def test_equal_content_has_the_equal_version(
    written: Path, small: small_bundle.SmallBundle, tmp_path: Path
) -> None:
    reordered = dict(reversed(small.files.items()))
    assert write_bundle(tmp_path, small.manifest, reordered).name == written.name


def test_a_changed_byte_is_another_version(
    written: Path, small: small_bundle.SmallBundle, tmp_path: Path
) -> None:
    other = write_bundle(tmp_path, small.manifest, {**small.files, "more.bin": b"x"})
    assert other.name != written.name


def test_a_bundle_that_is_there_already_is_kept(small: small_bundle.SmallBundle, tmp_path: Path) -> None:
    first = write_bundle(tmp_path, small.manifest, small.files)
    before = first.stat().st_ino
    assert write_bundle(tmp_path, small.manifest, small.files) == first
    assert first.stat().st_ino == before
    assert [entry.name for entry in tmp_path.iterdir()] == [first.name]


def test_other_users_may_read_what_was_written(written: Path) -> None:
    assert written.stat().st_mode & 0o777 == 0o755


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 20 kB: the write of a forest fails as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_nothing_behind(small: small_bundle.SmallBundle, tmp_path: Path) -> None:
    assert len(small.files[FOREST]) > 20_000
    with full_disk(), pytest.raises(OSError, match="too large"):
        write_bundle(tmp_path, small.manifest, small.files)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ".hidden", "a/b", "", "a\0b", "ä", "n" * 101])
def test_a_file_outside_the_bundle_is_not_written(
    small: small_bundle.SmallBundle, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BundleError) as refused:
        write_bundle(tmp_path / "root", small.manifest, {name: b"x"})
    assert refused.value.reason == "path"
    assert list((tmp_path / "root").iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["root"]


# ------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def damaged(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that is damaged and mended again and again."""
    return Path(shutil.copytree(written, tmp_path_factory.mktemp("damaged") / written.name))


@settings(max_examples=150)
@given(st.data())
def test_one_flipped_bit_anywhere_is_found_before_anything_is_parsed(
    damaged: Path, data: st.DataObject
) -> None:
    file = damaged / data.draw(st.sampled_from(sorted(entry.name for entry in damaged.iterdir())))
    whole = file.read_bytes()
    end = 64 if file.name == DIGEST else len(whole)  # what follows the digest is a name for `sha256sum -c`
    position, bit = data.draw(st.integers(0, end - 1)), data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[position] ^= 1 << bit
    file.write_bytes(bytes(changed))
    try:
        assert reason(damaged) == "digest"
    finally:
        file.write_bytes(whole)


@settings(max_examples=60)
@given(st.data())
def test_a_file_of_another_length_is_refused(damaged: Path, data: st.DataObject) -> None:
    file = damaged / data.draw(st.sampled_from(sorted(entry.name for entry in damaged.iterdir())))
    whole = file.read_bytes()
    end = 63 if file.name == DIGEST else len(whole) - 1
    file.write_bytes(whole[: data.draw(st.integers(0, end))])
    try:
        assert reason(damaged) == ("digest" if file.name in (MANIFEST, DIGEST) else "size")
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", [MANIFEST, DIGEST, FOREST, "lstm.tflite"])
def test_a_missing_file_is_missing(copied: Path, name: str) -> None:
    (copied / name).unlink()
    assert reason(copied) == "missing"


def test_more_behind_the_end_of_a_file_is_refused(copied: Path) -> None:
    with (copied / FOREST).open("ab") as file:
        file.write(b"\0")
    assert reason(copied) == "size"


def test_files_the_manifest_does_not_list_are_never_opened(copied: Path) -> None:
    os.mkfifo(copied / "junk")
    (copied / "notes.txt").write_text("hello")
    bundle = read_bundle(copied)
    assert bundle.version == copied.name
    assert {"junk", "notes.txt"}.isdisjoint(bundle.files)


def test_a_manifest_is_not_parsed_before_its_digest_fits(copied: Path) -> None:
    """Brackets that no JSON parser survives: with a wrong digest they are bytes, with a right one JSON."""
    (copied / MANIFEST).write_bytes(b"[" * 500_000)
    assert reason(copied) == "digest"
    small_bundle.reseal(copied, b"[" * 500_000)
    assert reason(copied) == "manifest"


@pytest.mark.parametrize("recorded", [b"", b"deadbeef", b"\xff" * 64, b"0" * 64, b"z" * 199])
def test_a_digest_that_is_none_is_refused(copied: Path, recorded: bytes) -> None:
    (copied / DIGEST).write_bytes(recorded)
    assert reason(copied) == "digest"


# ---------------------------------------------------------------------------------- what a manifest may claim


def claim(name: str, size: int = 5) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["files"].update({name: {"size": size, "sha256": "0" * 64}})


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "..", ".", ".ssh", "a/b", "a\\b", "", "a\0b", "n" * 101, "ä"]
)
def test_a_path_out_of_the_bundle_is_refused(copied: Path, name: str) -> None:
    (copied.parent / "secret").write_text("12345")
    assert reason(small_bundle.resealed(copied, claim(name))) == "path"


@pytest.mark.parametrize("size", [17 << 20, 10**12, 10**18, 10**299])
def test_a_huge_size_is_refused_before_anything_is_read(copied: Path, size: int) -> None:
    assert reason(small_bundle.resealed(copied, claim("huge.bin", size))) == "size"


def test_a_sparse_file_behind_a_small_claim_is_not_read(copied: Path) -> None:
    os.truncate(copied / FOREST, 1 << 32)
    assert reason(copied) == "size"


def test_a_manifest_beyond_its_limit_is_not_read(copied: Path) -> None:
    os.truncate(copied / MANIFEST, MAX_MANIFEST_BYTES + 1)
    assert reason(copied) == "size"


def test_a_model_without_its_file_is_refused(copied: Path) -> None:
    small_bundle.resealed(copied, lambda document: document["files"].pop(FOREST))
    assert reason(copied) == "manifest"


def test_a_format_version_of_the_future_is_refused(copied: Path) -> None:
    assert reason(small_bundle.resealed(copied, lambda d: d.update(format_version=99))) == "format"


# ---------------------------------------------------------------------------------- what stands in for a file


@pytest.mark.parametrize("name", [FOREST, MANIFEST, DIGEST])
def test_a_link_is_not_followed(copied: Path, name: str) -> None:
    elsewhere = copied.parent / "elsewhere"
    (copied / name).rename(elsewhere)
    (copied / name).symlink_to(elsewhere)
    assert reason(copied) == "path"


@pytest.mark.parametrize("name", [FOREST, MANIFEST, DIGEST])
@pytest.mark.timeout(10)
def test_a_pipe_does_not_make_the_agent_wait(copied: Path, name: str) -> None:
    (copied / name).unlink()
    os.mkfifo(copied / name)
    assert reason(copied) == "path"


def test_a_directory_in_a_files_place_is_refused(copied: Path) -> None:
    (copied / FOREST).unlink()
    (copied / FOREST).mkdir()
    assert reason(copied) == "path"


def test_a_socket_in_a_files_place_is_refused(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copied / FOREST).unlink()
    monkeypatch.chdir(copied)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(FOREST)
        assert reason(copied) == "io"


def test_what_is_no_directory_is_missing(tmp_path: Path) -> None:
    assert reason(tmp_path / "absent") == "missing"
    (tmp_path / "file").write_text("")
    assert reason(tmp_path / "file") == "missing"


def test_a_path_the_file_system_refuses_is_an_io_error(tmp_path: Path) -> None:
    assert reason(tmp_path / ("n" * 5_000)) == "io"
    with pytest.raises(BundleError) as refused:
        resolve_current(tmp_path / ("n" * 5_000))
    assert refused.value.reason == "io"


# ---------------------------------------------------------------------------------------------- current


@pytest.fixture
def two(small: small_bundle.SmallBundle, tmp_path: Path) -> tuple[Path, str, str]:
    """A root with two versions."""
    first = write_bundle(tmp_path, small.manifest, small.files)
    second = write_bundle(tmp_path, small.manifest, {**small.files, "more.bin": b"x"})
    return tmp_path, first.name, second.name


def test_the_current_bundle_is_the_one_last_activated(two: tuple[Path, str, str]) -> None:
    root, first, second = two
    assert resolve_current(root) is None
    for version in (first, second, first):
        activate(root, version)
        assert resolve_current(root) == root.resolve() / version
        assert not (root / CURRENT).readlink().is_absolute()
    assert sorted(entry.name for entry in root.iterdir()) == sorted([first, second, CURRENT])


def test_a_reader_never_finds_no_bundle_while_it_is_swapped(two: tuple[Path, str, str]) -> None:
    root, first, second = two
    activate(root, first)
    done = threading.Event()

    def swap() -> None:
        for number in range(200):
            activate(root, (first, second)[number % 2])
        done.set()

    writer = threading.Thread(target=swap)
    writer.start()
    seen = set()
    while not done.is_set():
        found = resolve_current(root)
        assert found is not None
        seen.add(found.name)
    writer.join()
    assert seen == {first, second}


def test_a_version_that_is_not_there_is_not_activated(two: tuple[Path, str, str]) -> None:
    root, first, _ = two
    activate(root, first)
    for version, why in (("0" * 16, "missing"), ("../elsewhere", "path"), ("", "path")):
        with pytest.raises(BundleError) as refused:
            activate(root, version)
        assert refused.value.reason == why
    assert resolve_current(root) == root.resolve() / first


def test_what_a_crash_left_behind_is_no_obstacle(two: tuple[Path, str, str]) -> None:
    root, first, _ = two
    (root / f".{CURRENT}-{os.getpid()}").symlink_to("nowhere")
    activate(root, first)
    assert resolve_current(root) == root.resolve() / first


def test_a_directory_named_current_is_not_replaced(two: tuple[Path, str, str]) -> None:
    root, first, _ = two
    (root / CURRENT).mkdir()
    with pytest.raises(OSError, match="directory"):
        activate(root, first)
    assert not list(root.glob(f".{CURRENT}-*"))


def test_a_bundle_directory_is_its_own_root(copied: Path) -> None:
    assert resolve_current(copied) == copied.resolve()


def test_a_configmap_is_followed_to_its_data(copied: Path, tmp_path: Path) -> None:
    """Kubernetes: files are links through ..data, which is swapped to a new directory at once."""
    root = tmp_path / "mounted"
    root.mkdir()
    copied.rename(root / "..2024_01_01_00_00_00.1")
    (root / "..data").symlink_to("..2024_01_01_00_00_00.1")
    for file in (root / "..data").iterdir():
        (root / file.name).symlink_to(Path("..data") / file.name)
    found = resolve_current(root)
    assert found == root.resolve() / "..2024_01_01_00_00_00.1"
    assert read_bundle(found).manifest.origin == "trained"


@pytest.mark.parametrize("name", [CURRENT, "..data"])
def test_a_link_out_of_the_root_is_refused(copied: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / name).symlink_to(copied)
    with pytest.raises(BundleError) as refused:
        resolve_current(root)
    assert refused.value.reason == "path"


def test_links_that_lead_nowhere_offer_no_bundle(tmp_path: Path) -> None:
    (tmp_path / CURRENT).symlink_to(CURRENT)
    (tmp_path / "..data").symlink_to("gone")
    assert resolve_current(tmp_path) is None
    assert resolve_current(tmp_path / CURRENT) is None
    assert resolve_current(tmp_path / "absent") is None


def test_a_root_that_is_itself_a_link_is_followed(copied: Path, tmp_path: Path) -> None:
    activate(copied.parent, copied.name)
    (tmp_path / "link").symlink_to(copied.parent)
    assert resolve_current(tmp_path / "link") == copied.resolve()


def test_the_digest_file_can_be_checked_by_hand(written: Path) -> None:
    """`sha256sum -c manifest.sha256` works, and the manifest names every other file's digest."""
    digest, name = (written / DIGEST).read_text().split()
    assert name == MANIFEST
    assert digest.startswith(written.name)
    listed = json.loads((written / MANIFEST).read_bytes())["files"]
    assert set(listed) == {entry.name for entry in written.iterdir()} - {MANIFEST, DIGEST}


def test_a_bundle_that_is_there_already_gets_the_signature(
    written: Path, small: small_bundle.SmallBundle
) -> None:
    key = PrivateKey(b"k" * 32)
    again = write_bundle(written.parent, small.manifest, small.files, lambda content: sign(content, [key]))
    assert again == written
    assert read_bundle(written, [key.public]).signed_by == key.public.id
