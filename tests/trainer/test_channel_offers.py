"""What a channel says when a bundle is offered, and which archive counts: on a clock of our own."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import small_bundle
from node_anomaly_core.archive import archive_bundle
from node_anomaly_core.bundle import write_bundle
from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.channel_tree import (
    ARCHIVES,
    Archived,
    current,
    offer,
    read_archive,
    retire,
    share,
    versions,
)

NOW = 1_800_000_000.25


@pytest.fixture(scope="module")
def small() -> small_bundle.SmallBundle:
    return small_bundle.build()


def archived(
    root: Path, small: small_bundle.SmallBundle, number: int = 1, signature: bytes = b""
) -> Archived:
    manifest = replace(small.manifest, trained_at=1e9 + number)
    path = write_bundle(root, manifest, small.files, (lambda _content: signature) if signature else None)
    return Archived(path.name, manifest.trained_at, archive_bundle(path))


def dated(tree: Path, name: str, seconds: int) -> None:
    os.utime(tree / ARCHIVES / name, (seconds, seconds))


def test_an_offer_is_of_its_moment_and_so_is_every_change_of_its_share(
    tmp_path: Path, small: small_bundle.SmallBundle
) -> None:
    tree, one = tmp_path / "tree", archived(tmp_path, small)
    first = offer(tree, "stable", one, (), percent=10.0, clock=lambda: NOW)
    assert (first.sequence, first.published_at, first.salt) == (int(NOW), NOW, one.version)
    wider = share(tree, "stable", 50.0, (), clock=lambda: NOW + 60)
    assert (wider.sequence, wider.published_at, wider.percent) == (int(NOW) + 60, NOW + 60, 50.0)
    assert replace(wider, sequence=0, published_at=0.0, percent=0.0) == replace(
        first, sequence=0, published_at=0.0, percent=0.0
    )
    assert current(tree, "stable") == wider


def test_a_clock_that_was_set_back_does_not_set_back_the_sequence(
    tmp_path: Path, small: small_bundle.SmallBundle
) -> None:
    tree, one = tmp_path / "tree", archived(tmp_path, small)
    offer(tree, "stable", one, (), clock=lambda: NOW)
    assert share(tree, "stable", 50.0, (), clock=lambda: NOW - 3_600).sequence == int(NOW) + 1
    assert offer(tree, "stable", one, (), clock=lambda: NOW - 60).sequence == int(NOW) + 2


def test_nodes_are_drawn_anew_for_another_bundle_and_not_for_another_channel(
    tmp_path: Path, small: small_bundle.SmallBundle
) -> None:
    tree = tmp_path / "tree"
    one, two = (archived(tmp_path, small, number) for number in (1, 2))
    salts = [offer(tree, channel, it, ()).salt for channel, it in (("a", one), ("b", one), ("a", two))]
    assert salts[0] == salts[1] != salts[2]


def test_of_a_version_that_was_archived_twice_the_latest_counts(
    tmp_path: Path, small: small_bundle.SmallBundle
) -> None:
    tree = tmp_path / "tree"
    older, newer = (archived(tmp_path / mark, small, signature=mark.encode()) for mark in ("older", "newer"))
    assert older.version == newer.version
    names = [Path(offer(tree, "stable", one, ()).archive).name for one in (older, newer)]
    for name, seconds in zip(names, (1_000, 2_000), strict=True):
        dated(tree, name, seconds)
    assert read_archive(tree, older.version) == newer
    (tree / ARCHIVES / names[1]).write_bytes(newer.content[:-2_000])
    dated(tree, names[1], 2_000)
    assert read_archive(tree, older.version) == older, "the latest of those that hold"


def test_an_archive_under_the_name_of_another_version_is_not_taken_for_it(
    tmp_path: Path, small: small_bundle.SmallBundle
) -> None:
    tree, one = tmp_path / "tree", archived(tmp_path, small)
    offer(tree, "stable", one, ())
    (tree / ARCHIVES / f"{one.version}.tar").rename(tree / ARCHIVES / f"{'0' * 16}.tar")
    assert read_archive(tree, "0" * 16) is None
    assert read_archive(tree, one.version) is None


def test_the_oldest_archives_go_and_with_a_version_all_that_it_was_archived_as(
    tmp_path: Path, small: small_bundle.SmallBundle
) -> None:
    tree = tmp_path / "tree"
    made = [archived(tmp_path, small, number) for number in range(4)]
    again = archived(tmp_path / "signed", small, 3, b"signed")
    names = [Path(offer(tree, "stable", one, ()).archive).name for one in (*made, again)]
    for seconds, name in enumerate(names, 1):
        dated(tree, name, seconds)
    assert versions(tree) == tuple(one.version for one in reversed(made))
    assert retire(tree, 1) == tuple(sorted(names[:2])), "what was offered before stays to go back to"
    assert sorted(path.name for path in (tree / ARCHIVES).iterdir()) == sorted(names[2:])


def test_a_share_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="channel stable offers nothing yet"):
        share(tmp_path, "stable", 50.0, ())
