"""Noticing, verifying and handing over bundles, with real directories, real events and real bundles."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers import Observer

import agent_bundle
from agent_fakes import FakeLog, make_candidate
from node_anomaly_agent import reload
from node_anomaly_agent.clock import SystemClock
from node_anomaly_agent.reload import Offer, Reloader, look
from node_anomaly_agent.scorer import Candidate, load_candidate
from node_anomaly_core.bundle import activate
from node_anomaly_core.errors import BundleError
from node_anomaly_core.features import CATALOGUE

POLL_S = 0.2


def load(path: Path) -> Candidate:
    return load_candidate(path, CATALOGUE, 15.0, "")


class Watched:
    """A reloader over a directory, polled by hand."""

    def __init__(
        self,
        root: Path,
        load: Callable[[Path], Candidate] = load,
        poll_s: float = 3600.0,
        look: Callable[[Path], Offer] = look,
    ) -> None:
        self.clock = SystemClock()
        self.log = FakeLog()
        self.reloader = Reloader(root, load, poll_s, self.clock, self.log, look)  # type: ignore[arg-type]

    def wait(self, seconds: float = 5.0) -> Candidate | BundleError | None:
        """Poll as the loop does until something comes or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.reloader.poll()
            if found is not None:
                return found
            self.clock.wait(min(self.reloader.next_check(), end) - time.monotonic())
        return None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "bundles"
    root.mkdir()
    return root


@pytest.fixture
def watch(root: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(**options: object) -> Watched:
        watched = Watched(root, **options)  # type: ignore[arg-type]
        made.append(watched)
        return watched

    yield make
    for watched in made:
        watched.reloader.stop()


def test_the_current_bundle_is_loaded_at_the_start(root, watch):
    version = agent_bundle.publish(root)
    found = watch().reloader.load_now()
    assert isinstance(found, Candidate)
    assert found.info.version == version
    assert found.info.provenance == {"source": "a test"}


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_or_absent_directory_is_no_error(root, watch, exists):
    if not exists:
        root.rmdir()
    assert watch().reloader.load_now() is None


def test_an_event_brings_a_new_bundle_without_waiting_for_the_poll(root, watch):
    agent_bundle.publish(root)
    watched = watch()
    watched.reloader.load_now()
    watched.reloader.start()
    version = agent_bundle.publish(root, trained_at=1_700_000_001.0)
    found = watched.wait()
    assert isinstance(found, Candidate)
    assert found.info.version == version
    assert watched.wait(1.0) is None, "verifying it must not announce it again"


def test_the_poll_finds_what_no_event_announced(root, watch):
    """Network file systems have no events: the watch is never started here."""
    agent_bundle.publish(root)
    watched = watch(poll_s=POLL_S)
    watched.reloader.load_now()
    watched.reloader._watch.renew = lambda: None
    version = agent_bundle.publish(root, trained_at=1_700_000_001.0)
    found = watched.wait()
    assert isinstance(found, Candidate)
    assert found.info.version == version


def test_a_directory_that_appears_later_is_found_and_watched(root, watch):
    root.rmdir()
    watched = watch(poll_s=POLL_S)
    assert watched.reloader.load_now() is None
    watched.reloader.start()
    assert watched.wait(0.5) is None
    agent_bundle.publish(root)
    assert isinstance(watched.wait(), Candidate)
    assert watched.reloader._watch._observer is not None


def test_a_configmap_that_swaps_its_data_link_is_followed(root, watch, tmp_path):
    """Kubernetes writes ..2024_x/ and renames a new ..data link over the old one."""
    made = [agent_bundle.make_bundle(tmp_path / "made", trained_at=1.7e9 + n) for n in range(2)]
    for n, bundle in enumerate(made):
        shutil.copytree(bundle, root / f"..2024_{n}")
    (root / "..data").symlink_to("..2024_0")
    watched = watch()
    assert watched.reloader.load_now().info.version == made[0].name
    watched.reloader.start()
    (root / "..data_tmp").symlink_to("..2024_1")
    (root / "..data_tmp").rename(root / "..data")
    found = watched.wait()
    assert isinstance(found, Candidate)
    assert found.info.version == made[1].name


def test_a_bad_bundle_is_refused_once_and_not_at_every_poll(root, watch):
    agent_bundle.publish(root)
    attempts: list[Path] = []

    def counting(path: Path) -> Candidate:
        attempts.append(path)
        return load(path)

    watched = watch(load=counting, poll_s=POLL_S)
    watched.reloader.load_now()
    bad = agent_bundle.make_bundle(root, trained_at=1_700_000_001.0)
    forest = bad / "forest.safetensors"
    whole = forest.read_bytes()
    forest.write_bytes(whole[:-1])
    activate(root, bad.name)
    found = watched.wait()
    assert isinstance(found, BundleError)
    assert found.reason == "size"
    assert watched.wait(1.0) is None
    assert len(attempts) == 2
    # The rest of the file arrives, as after a copy that was not atomic: the digest is the same as before.
    forest.write_bytes(whole)
    found = watched.wait()
    assert isinstance(found, Candidate)
    assert found.info.version == bad.name


def test_a_request_loads_even_what_is_nothing_new(root, watch):
    version = agent_bundle.publish(root)
    watched = watch()
    watched.reloader.load_now()
    assert watched.wait(0.2) is None
    watched.reloader.request()
    found = watched.wait()
    assert isinstance(found, Candidate)
    assert found.info.version == version


def test_a_request_without_any_bundle_says_so(root, watch):
    watched = watch()
    watched.reloader.load_now()
    watched.reloader.request()
    found = watched.wait()
    assert isinstance(found, BundleError)
    assert found.reason == "missing"


def test_a_bundle_that_vanishes_is_told_once(root, watch):
    agent_bundle.publish(root)
    watched = watch(poll_s=POLL_S)
    watched.reloader.load_now()
    (root / "current").unlink()
    found = watched.wait()
    assert isinstance(found, BundleError)
    assert found.reason == "missing"
    assert watched.wait(0.6) is None


def test_a_link_that_leaves_the_directory_is_refused(root, watch, tmp_path):
    outside = agent_bundle.make_bundle(tmp_path / "outside")
    (root / "current").symlink_to(outside)
    found = watch().reloader.load_now()
    assert isinstance(found, BundleError)
    assert found.reason == "path"


def test_an_unexpected_exception_is_a_refusal_and_not_the_end(root, watch):
    agent_bundle.publish(root)

    def broken(path: Path) -> Candidate:
        raise ZeroDivisionError("surprise")

    watched = watch(load=broken)
    found = watched.reloader.load_now()
    assert isinstance(found, BundleError)
    assert "surprise" in found.message
    assert watched.log.events("exception")


@pytest.mark.alone
def test_the_verification_runs_beside_the_loop(root, watch):
    """While a bundle is verified, `poll` returns at once."""
    agent_bundle.publish(root)
    release = threading.Event()

    def slow(path: Path) -> Candidate:
        release.wait(5)
        return make_candidate()

    watched = watch(load=slow)
    watched.reloader.request()
    started = time.monotonic()
    assert watched.reloader.poll() is None
    assert watched.reloader.poll() is None
    assert time.monotonic() - started < 0.5
    release.set()
    assert isinstance(watched.wait(), Candidate)


class Stuck:
    """A look at a directory whose server is gone until it is `released`."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.looks = 0

    def __call__(self, root: Path) -> Offer:
        self.looks += 1
        assert self.released.wait(30.0)
        return look(root)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    made = Stuck()
    yield made
    made.released.set()


def test_a_directory_that_does_not_answer_holds_up_no_tick_and_is_told_once(root, watch, stuck):
    agent_bundle.publish(root)
    watched = watch(poll_s=POLL_S, look=stuck)
    begun = time.monotonic()
    told: list[object] = []
    turns = 0
    while time.monotonic() < begun + 4 * POLL_S:
        before, turns = time.monotonic(), turns + 1
        found = watched.reloader.poll()
        assert time.monotonic() - before < 0.5
        told += [found] if found is not None else []
        watched.clock.wait(watched.reloader.next_check() - time.monotonic())
    assert turns < 10, "the loop is not kept busy"
    (error,) = told
    assert isinstance(error, BundleError)
    assert str(error).endswith("bundles does not answer")
    assert error.reason == "io"
    assert stuck.looks == 1, "one thread waits, not one for each poll"
    assert watched.reloader.busy
    stuck.released.set()
    assert isinstance(watched.wait(), Candidate)


def test_a_reloader_that_is_stopped_leaves_no_thread_behind(root, watch):
    agent_bundle.publish(root)
    others = set(threading.enumerate())
    watched = watch(poll_s=POLL_S)
    assert isinstance(watched.wait(), Candidate)
    ours = [thread for thread in set(threading.enumerate()) - others if thread.name == "bundle-look"]
    assert ours
    watched.reloader.stop()
    for thread in ours:
        thread.join(5.0)
    assert not any(thread.is_alive() for thread in ours)


def test_what_was_asked_for_while_the_directory_did_not_answer_is_done_when_it_does(root, watch, stuck):
    agent_bundle.publish(root)
    watched = watch(poll_s=POLL_S, look=stuck)
    watched.reloader.request()
    assert watched.reloader.poll() is None
    stuck.released.set()
    assert isinstance(watched.wait(), Candidate)
    assert not watched.reloader.busy


def test_the_bundle_in_use_is_found_in_order_again_when_its_directory_answers(root, watch, stuck):
    """Or the failed reload would stand for ever, and its alert."""
    agent_bundle.publish(root)
    stuck.released.set()
    watched = watch(poll_s=POLL_S, look=stuck)
    assert isinstance(watched.reloader.load_now(), Candidate)
    stuck.released.clear()
    assert isinstance(watched.wait(), BundleError)
    stuck.released.set()
    assert isinstance(watched.wait(), Candidate)


def test_an_agent_starts_without_a_directory_that_does_not_answer(root, watch, stuck, monkeypatch):
    monkeypatch.setattr(reload, "START_PATIENCE_S", 0.05)
    agent_bundle.publish(root)
    watched = watch(look=stuck)
    error = watched.reloader.load_now()
    assert isinstance(error, BundleError)
    assert "does not answer" in str(error)
    watched.reloader.start()  # asks the directory nothing
    stuck.released.set()
    assert isinstance(watched.wait(), Candidate)


def test_without_events_the_poll_remains(root, watch, monkeypatch):
    agent_bundle.publish(root)
    watched = watch(poll_s=POLL_S)

    class NoWatches(Observer):
        def start(self):
            raise OSError("inotify watch limit reached")

    monkeypatch.setattr("node_anomaly_agent.reload.Observer", NoWatches)
    threads = threading.active_count()
    watched.reloader.start()
    watched.reloader.start()
    assert threading.active_count() == threads, "what is tried again at each poll leaves nothing behind"
    assert watched.log.events("warning") == ["bundle directory is only polled"]
    assert isinstance(watched.wait(), Candidate)


def test_a_directory_that_cannot_be_read_is_an_error_with_its_reason(root):
    loop = root / "current"
    loop.symlink_to("current")
    offer = look(root)
    assert offer.path is None


def test_a_digest_of_any_size_or_kind_does_not_hold_up_the_look(tmp_path):
    """It is read on the loop's thread, before anything is verified: 200 bytes, and no pipe is waited for."""
    root = tmp_path / "bundles"
    digest = root / agent_bundle.publish(root) / "manifest.sha256"
    digest.write_bytes(b"x" * 300)
    with digest.open("r+b") as file:
        file.truncate(1 << 40)  # a hole, which takes no room
    assert look(root).fingerprint[1] == b"x" * 200
    digest.unlink()
    os.mkfifo(digest)
    assert look(root).fingerprint[1] == b""


def test_a_link_that_is_set_anew_to_the_same_version_asks_for_it_again(root, watch):
    """So `bundle activate` brings back a version that the link has never left."""
    version = agent_bundle.publish(root)
    watched = watch(poll_s=POLL_S)
    watched.reloader.load_now()
    time.sleep(0.02)
    activate(root, version)
    assert isinstance(watched.wait(), Candidate)


def test_bytes_that_are_put_right_in_place_are_looked_at_again(root, watch):
    path = root / agent_bundle.publish(root) / "forest.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    watched = watch(poll_s=POLL_S)
    assert watched.reloader.load_now().reason == "digest"
    time.sleep(0.02)
    path.write_bytes(whole)
    assert isinstance(watched.wait(), Candidate)
