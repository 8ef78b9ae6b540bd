"""Archives: what is written is read back, by tar too; all else is refused and writes nothing outside."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agent_bundle
from node_anomaly_core import signing
from node_anomaly_core.archive import BLOCK, archive_bundle, unpack_archive, write_archive
from node_anomaly_core.bundle import add_signature, adopt_bundle, verify_bundle
from node_anomaly_core.errors import BundleError

FILES = {
    "manifest.json": b"{}",
    "manifest.sha256": b"0" * 64,
    "b.safetensors": bytes(range(256)) * 5,
    "a.tflite": b"",
}
ARCHIVE = write_archive(FILES)
KEY = signing.PrivateKey(bytes(32))


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as directory:
        inside = Path(directory) / "inside"
        inside.mkdir()
        try:
            unpack_archive(io.BytesIO(archive), inside)
        finally:
            assert [path.name for path in Path(directory).iterdir()] == ["inside"]
            assert all(path.is_file() and not path.is_symlink() for path in inside.iterdir())
        return {path.name: path.read_bytes() for path in inside.iterdir()}


def refused(archive: bytes) -> str:
    with pytest.raises(BundleError) as caught:
        unpacked(archive)
    return caught.value.reason


def test_a_signed_bundle_travels_as_one_file_and_is_the_same_bundle(tmp_path):
    path = agent_bundle.make_bundle(tmp_path / "trainer")
    add_signature(path, signing.sign((path / "manifest.json").read_bytes(), [KEY]))
    archive = archive_bundle(path)
    assert archive == archive_bundle(path)
    root = tmp_path / "node"
    staging = root / ".writing-x"
    staging.mkdir(parents=True)
    names = unpack_archive(io.BytesIO(archive), staging)
    assert names[:3] == ("manifest.json", "manifest.sha256", "manifest.sig")
    assert verify_bundle(staging, [KEY.public]).signed_by == KEY.public.id
    adopted = adopt_bundle(root, staging, path.name)
    assert verify_bundle(adopted).version == path.name
    assert not staging.exists()


@settings(max_examples=40)  # each writes and syncs real files
@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True), st.binary(max_size=1500), max_size=5
    )
)
def test_what_is_written_is_read_back_whole_here_and_by_tar(more):
    files = {**FILES, **more}
    if len(files["manifest.sha256"]) > 200:
        files["manifest.sha256"] = b""
    archive = write_archive(files)
    assert unpacked(archive) == files
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {member.name: tar.extractfile(member).read() for member in tar} == files


@settings(max_examples=40)  # each writes and syncs real files
@given(st.integers(0, len(ARCHIVE)))
def test_no_archive_that_ends_early_is_taken(length):
    if length < len(ARCHIVE):
        assert refused(ARCHIVE[:length]) in ("size", "missing", "digest")


@settings(max_examples=40)  # each writes and syncs real files
@given(st.integers(0, len(ARCHIVE) * 8 - 1))
def test_a_changed_bit_is_refused_or_lies_in_a_file_whose_digest_tells(at):
    changed = bytearray(ARCHIVE)
    changed[at // 8] ^= 1 << at % 8
    try:
        found = unpacked(bytes(changed))
    except BundleError:
        return
    assert set(found) == set(FILES)
    assert sum(found[name] != FILES[name] for name in FILES) == 1


@settings(max_examples=40)  # each writes and syncs real files
@given(st.binary(max_size=3 * BLOCK))
def test_no_noise_is_an_archive(noise):
    refused(noise)


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("manifest.json")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "archive",
    [
        tar_of((link(tarfile.SYMTYPE), b"")),
        tar_of((link(tarfile.LNKTYPE), b"")),
        tar_of((link(tarfile.CHRTYPE), b"")),
        tar_of((link(tarfile.DIRTYPE), b"")),
        tar_of((tarfile.TarInfo("../manifest.json"), b"x")),
        tar_of((tarfile.TarInfo("/manifest.json"), b"x")),
        tar_of((tarfile.TarInfo("a/manifest.json"), b"x")),
        tar_of((tarfile.TarInfo(".hidden"), b"x")),
        tar_of((tarfile.TarInfo("x" * 150), b"x"), form=tarfile.PAX_FORMAT),
        tar_of((tarfile.TarInfo("x" * 150), b"x"), form=tarfile.GNU_FORMAT),
        ARCHIVE[: 2 * BLOCK] + ARCHIVE,
        ARCHIVE + b"\0",
        ARCHIVE + ARCHIVE,
        bytes(1024),
        write_archive(FILES)[:-1024] + bytes(512),
        ARCHIVE[: 2 * BLOCK] + bytes(1024),
    ],
)
def test_links_paths_doubles_and_other_dialects_are_refused(archive):
    refused(archive)


def test_sizes_are_refused_before_a_byte_of_the_file_is_read():
    class Endless(io.RawIOBase):
        def __init__(self, head: bytes) -> None:
            self.head, self.given = head, 0

        def read(self, size: int = -1) -> bytes:
            piece, self.head = self.head[:size], self.head[size:]
            self.given += size
            return piece + bytes(size - len(piece))

    info = tarfile.TarInfo("big.bin")
    info.size = 17 << 20
    endless = Endless(info.tobuf(tarfile.USTAR_FORMAT))
    with tempfile.TemporaryDirectory() as directory, pytest.raises(BundleError) as caught:
        unpack_archive(endless, Path(directory))
    assert caught.value.reason == "size"
    assert endless.given <= BLOCK
    with pytest.raises(BundleError, match="limits"):
        write_archive({**FILES, **{f"f{number}": b"" for number in range(60)}})
