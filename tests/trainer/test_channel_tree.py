"""The published tree: every document has its archive and its signature, whoever is killed when."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

import small_bundle
from node_anomaly_core.archive import unpack_archive
from node_anomaly_core.bundle import read_bundle, resolve_current, verify_bundle
from node_anomaly_core.channel import parse_channel
from node_anomaly_core.errors import BundleError, ConfigError, TrainingError
from node_anomaly_core.signing import PublicKey, verify
from node_anomaly_trainer import channel_tree
from node_anomaly_trainer.config_delivery import PublishConfig
from node_anomaly_trainer.deliver import available, deliver, promote, roll_back
from node_anomaly_trainer.publish_lock import LOCK, publishing
from node_anomaly_trainer.settings import InvalidValueError
from node_anomaly_trainer.signing_keys import make_pair, read_keys
from node_anomaly_trainer.whole_file import write_whole


@pytest.fixture(scope="module")
def small():
    return small_bundle.build()


@pytest.fixture
def place(tmp_path):
    """A configuration that signs, publishes to a directory and to a tree, and does not wait for anybody."""
    pair = make_pair(tmp_path / "signing.key")
    config = PublishConfig(
        directory=str(tmp_path / "bundles"), tree=str(tmp_path / "tree"), key_file=str(pair.private), wait=0.0
    )
    return config, pair.key


def published(config, small, number, channel="stable", percent=100.0):
    config = replace(config, channel=channel, percent=percent)
    return deliver(config, replace(small.manifest, trained_at=1e9 + number), small.files)


def as_an_agent_reads(tree: Path, key: PublicKey, channel: str = "stable"):
    """Verify, parse, fetch, unpack, verify: what happens on a node; the document and the version inside."""
    folder = tree / channel
    content = (folder / "current.json").read_bytes()
    verify(content, (folder / "current.json.sig").read_bytes(), [key], "the document")
    document = parse_channel(content)
    archive = (tree / document.archive).read_bytes()
    assert len(archive) == document.archive_size
    assert hashlib.sha256(archive).hexdigest() == document.archive_sha256
    scratch = tree.parent / f"node-{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}"
    scratch.mkdir()
    unpack_archive(io.BytesIO(archive), scratch)
    bundle = read_bundle(scratch, [key])
    assert bundle.version == document.version
    return document


def test_what_is_published_is_what_an_agent_verifies(place, small):
    config, key = place
    done = published(config, small, 1)
    document = as_an_agent_reads(Path(config.tree), key)
    assert (document.version, document.percent, document.rollback) == (done.version, 100.0, False)
    assert verify_bundle(done.path, [key]).signed_by == key.id


def test_every_change_of_a_channel_has_a_larger_sequence_and_knows_what_was_before(place, small):
    config, key = place
    first = published(config, small, 1)
    second = published(config, small, 2, percent=10.0)
    wider = promote(config, "stable", percent=50.0)
    back = roll_back(config)
    sequences = [one.channel.sequence for one in (first, second, wider, back)]
    assert sequences == sorted(set(sequences))
    assert (second.channel.percent, wider.channel.percent) == (10.0, 50.0)
    assert second.channel.salt == wider.channel.salt != first.channel.salt
    assert second.channel.previous == first.version
    assert (back.version, back.channel.rollback, back.channel.percent) == (first.version, True, 100.0)
    assert resolve_current(Path(config.directory)).name == first.version
    assert as_an_agent_reads(Path(config.tree), key).version == first.version


def test_a_sequence_goes_on_after_the_tree_was_lost(place, small):
    config, _ = place
    before = published(config, small, 1).channel.sequence
    (Path(config.tree) / "stable" / "current.json").unlink()
    assert published(config, small, 2).channel.sequence >= before
    assert before > 1_700_000_000


def test_a_candidate_is_promoted_step_by_step(place, small):
    config, key = place
    old = published(config, small, 1)
    new = published(config, small, 2, channel="candidate")
    assert as_an_agent_reads(Path(config.tree), key).version == old.version
    promote(config, "stable", source="candidate", percent=25.0)
    document = as_an_agent_reads(Path(config.tree), key)
    assert (document.version, document.percent, document.rollback) == (new.version, 25.0, False)
    assert promote(config, "stable", version=old.version).channel.rollback


def test_rollback_reaches_any_version_that_is_kept_and_names_them_otherwise(place, small):
    config, _ = place
    versions = [published(config, small, number).version for number in range(4)]
    assert roll_back(config, versions[0]).version == versions[0]
    with pytest.raises(TrainingError, match="no whole bundle 0123456789abcdef") as caught:
        roll_back(config, "0123456789abcdef")
    assert versions[0] in caught.value.hint
    assert set(available(config)) == set(versions)


def test_a_version_that_is_only_in_the_tree_can_be_offered_again(tmp_path, place, small):
    config, key = place
    first = published(config, small, 1)
    published(config, small, 2)
    elsewhere = replace(config, directory=str(tmp_path / "another-machine"))
    assert roll_back(elsewhere, first.version).path is None
    assert as_an_agent_reads(Path(config.tree), key).version == first.version


def test_a_damaged_archive_is_never_offered_again(place, small):
    config, key = place
    first = published(config, small, 1)
    second = published(config, small, 2)
    archive = Path(config.tree) / "archives" / f"{first.version}.tar"
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(TrainingError, match="no whole bundle"):
        roll_back(replace(config, directory=config.directory + "-empty"), first.version)
    assert as_an_agent_reads(Path(config.tree), key).version == second.version
    roll_back(config, first.version)  # the directory still has it
    assert as_an_agent_reads(Path(config.tree), key).version == first.version


def test_as_many_archives_are_kept_as_configured_and_those_on_offer(place, small):
    config, key = place
    config = replace(config, keep=2)
    candidate = published(config, small, 0, channel="candidate")
    last = [published(config, small, number).version for number in range(1, 6)]
    kept = {path.name[:16] for path in (Path(config.tree) / "archives").iterdir()}
    assert kept == {candidate.version, *last[-2:]}
    assert as_an_agent_reads(Path(config.tree), key, "candidate").version == candidate.version


def test_the_same_bundle_under_another_key_gets_an_archive_of_its_own(tmp_path, place, small):
    config, _ = place
    published(config, small, 1)
    before = parse_channel((Path(config.tree) / "stable" / "current.json").read_bytes())
    other = make_pair(tmp_path / "other.key")
    published(replace(config, key_file=str(other.private)), small, 1)
    after = as_an_agent_reads(Path(config.tree), other.key)
    assert after.archive != before.archive
    old = (Path(config.tree) / before.archive).read_bytes()
    assert hashlib.sha256(old).hexdigest() == before.archive_sha256


class Killed(BaseException):
    """What a kill is to the code under test: nothing after it runs."""


def interrupted_at(monkeypatch, point: int, error: BaseException) -> list[int]:
    """Raise at the n-th file operation, counted over all kinds; the list holds how many there were."""
    count = [0]

    def wrap(owner, name):
        real = getattr(owner, name)

        def counted(*args, **kwargs):
            count[0] += 1
            if count[0] == point or (isinstance(error, Killed) and count[0] > point):
                raise error
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for name in ("fsync", "replace", "rename", "symlink"):
        wrap(os, name)
    if isinstance(error, Killed):  # a full disk refuses no unlink
        wrap(os, "unlink")
    return count


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["killed", "full"])
def test_the_tree_is_whole_whatever_operation_is_the_last(place, small, monkeypatch, kind):
    """Interrupt a publish at every file operation in turn; the old or the new bundle is on offer, whole."""
    config, key = place
    old = published(config, small, 0).version
    point, completed, new = 0, False, ""
    while not completed:
        point += 1
        assert point < 200
        error = Killed() if kind == "killed" else OSError(errno.ENOSPC, "No space left on device")
        with monkeypatch.context() as patched:
            interrupted_at(patched, point, error)
            try:
                new = published(config, small, point).version
            except (Killed, TrainingError, BundleError):
                completed = 0
            else:
                completed = 1
        document = as_an_agent_reads(Path(config.tree), key)
        current = resolve_current(Path(config.directory))
        assert read_bundle(current, [key])
        if completed:
            assert document.version == current.name == new
        else:
            assert document.version in {old, current.name}
        old = document.version
    assert point > 12  # there were that many operations to stop at


@pytest.mark.timeout(400)
def test_a_killed_process_leaves_a_whole_tree_and_a_free_lock(tmp_path, place, small):
    """SIGKILL a publishing process at random moments."""
    config, key = place
    published(config, small, 0)
    program = (
        "import sys\n"
        "from dataclasses import replace\n"
        "import small_bundle\n"
        "from node_anomaly_trainer.config_delivery import PublishConfig\n"
        "from node_anomaly_trainer.deliver import deliver\n"
        "small = small_bundle.build()\n"
        "config = PublishConfig(directory=sys.argv[1], tree=sys.argv[2], key_file=sys.argv[3])\n"
        "print('ready', flush=True)\n"
        "for number in range(1, 10_000):\n"
        "    deliver(config, replace(small.manifest, trained_at=2e9 + number), small.files)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [config.directory, config.tree, config.key_file]
    random.seed(4)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, env=environment
        )
        process.stdout.readline()
        time.sleep(random.uniform(0.01, 0.4))
        process.kill()
        process.wait()
        process.stdout.close()
        as_an_agent_reads(Path(config.tree), key)
        assert read_bundle(resolve_current(Path(config.directory)), [key])
    published(config, small, 9)  # wait is 0: the dead owner's lock is free at once


def test_who_publishes_is_named_to_whoever_comes_second(place, small):
    config, _ = place
    owner = rf'another trainer: .*"pid": {os.getpid()}'
    with publishing(Path(config.directory), 0.0), pytest.raises(TrainingError, match=owner):
        published(config, small, 1)
    assert (Path(config.directory) / LOCK).exists()
    published(config, small, 1)


def test_two_trainers_publish_one_after_the_other(place, small):
    config, key = place
    config = replace(config, wait=30.0)
    threads = [threading.Thread(target=published, args=(config, small, number)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = as_an_agent_reads(Path(config.tree), key)
    assert resolve_current(Path(config.directory)).name == document.version
    assert document.sequence >= 4


def test_what_a_killed_publisher_left_is_removed_once_it_is_old(place, small):
    config, _ = place
    root = Path(config.directory)
    published(config, small, 1)
    for name in (".writing-abc", ".removed-0123456789abcdef"):
        (root / name).mkdir()
        os.utime(root / name, (1, 1))
    (root / ".writing-new").mkdir()
    published(config, small, 2)
    assert [path.name for path in root.glob(".[wr]*")] == [".writing-new"]


def test_a_key_that_others_can_read_is_refused_before_anything_is_signed(tmp_path):
    pair = make_pair(tmp_path / "k")
    assert pair.private.stat().st_mode & 0o777 == 0o600
    assert read_keys(str(pair.private))[0].public == pair.key
    pair.private.chmod(0o644)
    with pytest.raises(ConfigError, match="read by others") as caught:
        read_keys(str(pair.private))
    assert "chmod 600" in caught.value.hint
    with pytest.raises(TrainingError, match="is there already"):
        make_pair(tmp_path / "k")
    with pytest.raises(ConfigError, match=r"publish\.key_file"):
        read_keys(str(tmp_path / "k.pub"))


def test_without_a_tree_there_are_no_channels(tmp_path, small):
    config = PublishConfig(directory=str(tmp_path / "bundles"))
    first = published(config, small, 1)
    assert first.channel is None
    published(config, small, 2)
    assert roll_back(config).version == first.version
    assert roll_back(config, first.version).path == first.path
    with pytest.raises(ConfigError, match=r"publish\.tree"):
        promote(config, "stable")
    with pytest.raises(InvalidValueError, match="no channel name"):
        PublishConfig(channel="../x")


def test_a_channel_that_offers_nothing_cannot_change_its_share(place):
    config, _ = place
    with pytest.raises(TrainingError, match="offers nothing yet"):
        promote(config, "stable", percent=5.0)
    with pytest.raises(TrainingError, match="channel candidate offers nothing"):
        promote(config, "stable", source="candidate")
    assert channel_tree.channels(Path(config.tree)) == ()
    assert available(config) == ()


def test_what_a_channel_offered_before_stays_to_go_back_to(place, small):
    config, _ = place
    config = replace(config, keep=1)
    first = published(config, small, 1)
    published(config, small, 2)
    assert roll_back(config).version == first.version


def test_publishing_the_same_bundle_again_does_not_forget_the_one_before(place, small):
    config, _ = place
    first = published(config, small, 1)
    for _ in range(2):
        published(config, small, 2)
    assert roll_back(config).version == first.version


def test_a_rollback_is_for_all_nodes_whatever_share_is_configured(place, small):
    config, _ = place
    config = replace(config, percent=10.0)
    for number in range(2):
        published(config, small, number, percent=10.0)
    assert roll_back(config).channel.percent == 100.0


def test_going_back_twice_without_a_tree_goes_back_two_versions(tmp_path, small):
    config = PublishConfig(directory=str(tmp_path / "bundles"), wait=0.0)
    versions = [published(config, small, number).version for number in range(3)]
    assert [roll_back(config).version, roll_back(config).version] == versions[1::-1]


def test_going_back_twice_in_a_channel_does_not_offer_again_what_it_left(place, small):
    config, _ = place
    versions = [published(config, small, number).version for number in range(3)]
    assert [roll_back(config).version, roll_back(config).version] == versions[1::-1]
    with pytest.raises(TrainingError, match=f"no version before {versions[0]}"):
        roll_back(config)
    assert roll_back(config, versions[2]).version == versions[2]


def test_a_channel_that_went_back_and_was_published_to_remembers_what_was_before(place, small):
    config, _ = place
    versions = [published(config, small, number).version for number in range(2)]
    roll_back(config)
    published(config, small, 2)
    assert roll_back(config).version == versions[0]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_so_is_its_name(tmp_path, monkeypatch):
    done, sync, move = [], os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda one, to: (done.append("move"), move(one, to)))
    write_whole(tmp_path / "current.json", b"{}")
    assert done == ["sync", "move", "sync"]


def test_an_unsigned_document_has_no_signature_of_an_earlier_one_beside_it(place, small):
    config, _ = place
    published(config, small, 1)
    published(replace(config, key_file=""), small, 2)
    assert [path.name for path in (Path(config.tree) / "stable").iterdir()] == ["current.json"]
