"""A host that has no more threads to give: what wanted one is counted, and the loop goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

import agent_bundle
from agent_fakes import START, FakeLog, make_candidate, make_rig, make_score, make_snapshot
from node_anomaly_agent.clock import SystemClock
from node_anomaly_agent.distribution import Distribution
from node_anomaly_agent.episode_store import EpisodeStore, episode_files, read_episode
from node_anomaly_agent.episodes import Episodes
from node_anomaly_agent.ledger import Ledger
from node_anomaly_agent.promise import Verdict
from node_anomaly_agent.reload import Reloader
from node_anomaly_agent.scorer import Candidate
from node_anomaly_agent.state import load_state
from node_anomaly_agent.threads import Errands, started
from node_anomaly_core.errors import BundleError


class Host:
    """Gives so many more threads and then none, as a full pids cgroup does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 1000
        start = threading.Thread.start

        def give(thread: threading.Thread) -> None:
            if self.left <= 0:
                raise RuntimeError("can't start new thread")
            self.left -= 1
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", give)


@pytest.fixture
def host(monkeypatch) -> Host:
    return Host(monkeypatch)


def soon(holds: Callable[[], object]) -> bool:
    end = time.monotonic() + 5.0
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False


def test_errands_are_done_one_after_the_other_by_one_thread_that_goes_when_it_is_let_go():
    ran: list[threading.Thread] = []
    errands = Errands("errands")
    for _ in range(3):
        assert errands.give(lambda: ran.append(threading.current_thread()))
    errands.end()
    assert soon(lambda: len(ran) == 3)
    assert len(set(ran)) == 1
    assert ran[0] is not threading.current_thread()
    assert soon(lambda: not ran[0].is_alive())
    errands.end()  # of nothing is no harm


def test_who_is_let_go_with_a_task_that_never_ends_keeps_nobody_from_the_next_one():
    stuck, done = threading.Event(), threading.Event()
    errands = Errands("errands")

    def wait() -> None:
        stuck.wait(30.0)

    assert errands.give(wait)
    errands.end()
    assert errands.give(done.set)
    assert done.wait(5.0)
    stuck.set()
    errands.end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_errand_that_ended_its_thread_is_followed_by_another():
    done = threading.Event()
    errands = Errands("errands")

    def last() -> None:
        raise SystemExit

    assert errands.give(last)
    assert soon(lambda: not any(thread.name == "errands" for thread in threading.enumerate()))
    assert errands.give(done.set)
    assert done.wait(5.0)
    errands.end()


def test_an_errand_that_finds_no_thread_is_not_done_later_behind_everybodys_back(host):
    ran: list[int] = []
    errands = Errands("errands")
    host.left = 0
    assert not errands.give(lambda: ran.append(1))
    host.left = 1
    assert errands.give(lambda: ran.append(2))
    errands.end()
    assert soon(lambda: ran)
    assert ran == [2]


def test_a_thread_that_cannot_be_had_is_an_answer_and_no_exception(host):
    ran = threading.Event()
    host.left = 1
    assert started(threading.Thread(target=ran.set))
    assert ran.wait(5.0)
    assert not started(threading.Thread(target=ran.set))


def test_a_state_that_no_thread_can_save_is_counted_and_said_once_and_the_loop_goes_on(host, tmp_path):
    rig = make_rig(first=make_candidate(), state=tmp_path)
    rig.daemon.start()
    host.left = 0
    rig.run_for(400)
    assert rig.daemon.snapshot.counters.state_failures["save"] >= 3
    assert rig.log.events("warning").count("state is not saved") == 1
    assert len(rig.sampler.times) == 27
    assert load_state(tmp_path) is None
    host.left = 10
    rig.run_for(120)
    assert soon(lambda: load_state(tmp_path) is not None)
    assert soon(lambda: rig.run_for(15) or "state is saved again" in rig.log.events("info"))


def test_the_last_state_is_saved_without_a_thread(host, tmp_path):
    rig = make_rig(first=make_candidate(), state=tmp_path)
    rig.daemon.start()
    host.left = 0
    rig.run_for(60)
    rig.daemon.stop()
    assert load_state(tmp_path).saved_at == rig.clock.time()


def test_a_bundle_that_no_thread_can_verify_is_refused_once_and_loaded_once_there_is_one(host, tmp_path):
    version = agent_bundle.publish(tmp_path)
    reloader = Reloader(tmp_path, lambda _path: make_candidate(version), 0.0, SystemClock(), FakeLog())
    host.left = 0
    refused = reloader.poll()
    assert isinstance(refused, BundleError)
    assert refused.reason == "io"
    assert refused.hint
    assert not reloader.busy
    assert reloader.poll() is None, "an offer is refused once"
    reloader.request()
    assert isinstance(reloader.poll(), BundleError), "who asks for it is told again"
    host.left = 100
    found: list[Candidate | BundleError | None] = []
    assert soon(lambda: found.append(reloader.poll()) or found[-1])
    assert isinstance(found[-1], Candidate)
    reloader.stop()


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_watch_that_lacks_a_thread_leaves_none_behind_and_the_poll_remains(host, tmp_path, left):
    log = FakeLog()
    reloader = Reloader(tmp_path, lambda _path: make_candidate(), 0.0, SystemClock(), log)
    before = threading.active_count()
    host.left = left
    reloader.start()
    for _ in range(3):
        assert reloader.poll() is None
    assert log.events() == ["bundle directory is only polled"]
    assert soon(lambda: threading.active_count() <= before)
    reloader.stop()


def test_an_earlier_bundle_that_no_thread_can_look_for_is_counted_and_the_bundle_stays(host, tmp_path):
    log = FakeLog()
    distribution = Distribution(Ledger(tmp_path), make_candidate, log, lambda: START, lambda: None)
    for version in ("a" * 16, "b" * 16):
        distribution.accepted(make_candidate(version).info)
    host.left = 0
    distribution._go_back(Verdict(alarms=9, expected=1.0, hours=24.0))
    assert distribution.take() is None
    assert distribution.status().rollbacks["failed"] == 1
    assert log.events("error") == ["bundle breaks its promise", "cannot go back"]


@pytest.fixture
def recorder(tmp_path) -> Episodes:
    log = FakeLog()
    store = EpisodeStore(tmp_path, 9, 1 << 20, log)
    return Episodes(store, 15.0, 60.0, 4, lambda: (), log)


def alarm(recorder: Episodes, ticks: int, begin: float = START):
    for tick in range(ticks):
        now = begin + tick * 15.0
        status = recorder.tick(now, make_snapshot(score=make_score(now, 2.0)))
    return status


def test_an_episode_begins_without_a_thread_and_is_written_once_there_is_one(host, recorder, tmp_path):
    host.left = 0
    status = alarm(recorder, 5)
    assert status.ongoing
    assert status.detected == 1
    assert len(status.recent) == 1
    assert status.failures["write"] >= 1
    assert sorted(recorder._log.events("warning")) == [
        "episode begins", "episode is not written", "processes are not recorded"
    ]  # fmt: skip
    host.left = 10
    alarm(recorder, 1, START + 75.0)
    assert soon(lambda: episode_files(tmp_path))


def test_the_last_episodes_are_written_without_a_thread(host, recorder, tmp_path):
    host.left = 0
    alarm(recorder, 5)
    recorder.stop()
    (path,) = episode_files(tmp_path)
    assert read_episode(path).ongoing
