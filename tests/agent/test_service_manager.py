"""What systemd is told, over a real datagram socket, and what it passes."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent_fakes import FakeLog, FakeScorer, make_candidate, make_rig, make_snapshot
from node_anomaly_agent.activation import ActivationError, listens_elsewhere, take_listener
from node_anomaly_agent.config import Address
from node_anomaly_agent.endpoints import Sources, endpoints
from node_anomaly_agent.service_manager import ServiceManager, describe
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import Counters, Snapshot
from node_anomaly_agent.web import Application
from node_anomaly_agent.web_server import WebServer
from node_anomaly_core.errors import BundleError


class FakeSystemd:
    """A socket as systemd's; `take` gives the messages since the last call, each as its lines."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "180000000"}

    def take(self) -> list[list[str]]:
        messages = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode().split("\n"))
        return messages

    def told(self) -> list[str]:
        return [line for message in self.take() for line in message if not line.startswith("STATUS=")]


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path) -> Iterator[FakeSystemd]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@node-anomaly-test-{os.getpid()}"
    fake = FakeSystemd(address)
    yield fake
    fake.socket.close()


def tick(snapshot: Snapshot, **counters: object) -> Snapshot:
    """The snapshot of the next tick."""
    changed = replace(snapshot.counters, **counters)
    return replace(snapshot, heartbeat=snapshot.heartbeat + 15.0, counters=changed)


def test_ready_is_said_once_with_the_first_tick_and_alive_with_each(systemd):
    manager = ServiceManager.of(systemd.environ, 15.0, FakeLog())
    snapshot = make_snapshot()
    manager.look(snapshot, 0, busy=False)
    manager.look(snapshot, 0, busy=False)
    assert systemd.told() == ["READY=1", "WATCHDOG=1"]
    manager.look(tick(snapshot), 0, busy=False)
    assert systemd.told() == ["WATCHDOG=1"]
    manager.stopping()
    manager.stopping()
    assert systemd.take() == [["STOPPING=1", "STATUS=stopping"]]


def test_a_tick_that_failed_is_no_sign_of_life(systemd):
    manager = ServiceManager.of(systemd.environ, 15.0, FakeLog())
    snapshot = make_snapshot()
    manager.look(snapshot, 0, busy=False)
    systemd.take()
    failed = tick(snapshot, failures={"sample": 1, "score": 0})
    manager.look(failed, 0, busy=False)
    [message] = systemd.take()
    bundle = "bundle 0123456789abcdef (trained)"
    assert message == [f"STATUS=the last evaluation failed, the log says why; {bundle}"]
    manager.look(tick(failed), 0, busy=False)
    assert "WATCHDOG=1" in systemd.told()


def test_a_reload_is_announced_with_its_time_and_ends_when_its_outcome_is_known(systemd):
    manager = ServiceManager.of(systemd.environ, 15.0, FakeLog())
    snapshot = make_snapshot()
    manager.look(snapshot, 0, busy=False)
    systemd.take()
    before = time.monotonic_ns() // 1000
    manager.look(snapshot, 1, busy=True)
    [[reloading, stamp]] = systemd.take()
    assert reloading == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    manager.look(snapshot, 1, busy=True)
    assert systemd.take() == []
    manager.look(snapshot, 1, busy=False)
    assert systemd.take() == [["READY=1"]]


def test_a_reload_that_ended_before_it_could_be_announced_is_still_both(systemd):
    manager = ServiceManager.of(systemd.environ, 15.0, FakeLog())
    manager.look(make_snapshot(), 0, busy=False)
    systemd.take()
    manager.look(make_snapshot(), 3, busy=False)
    announced, ended = systemd.take()
    assert announced[0] == "RELOADING=1"
    assert ended == ["READY=1"]


def test_the_watchdog_is_given_the_patience_that_a_long_interval_needs(systemd):
    manager = ServiceManager.of(systemd.environ, 60.0, FakeLog())
    manager.look(make_snapshot(interval_s=60.0), 0, busy=False)
    assert systemd.told() == ["READY=1", "WATCHDOG_USEC=600000000", "WATCHDOG=1"]


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}],
)
def test_without_a_watchdog_for_this_process_none_is_fed(tmp_path, watchdog):
    systemd = FakeSystemd(str(tmp_path / "notify"))
    environ = {"NOTIFY_SOCKET": systemd.environ["NOTIFY_SOCKET"], **watchdog}
    ServiceManager.of(environ, 15.0, FakeLog()).look(make_snapshot(), 0, busy=False)
    assert systemd.told() == ["READY=1"]
    systemd.socket.close()


def test_a_ready_that_was_lost_is_said_again_and_the_loss_is_logged_once(tmp_path):
    log = FakeLog()
    address = str(tmp_path / "notify")
    manager = ServiceManager.of({"NOTIFY_SOCKET": address}, 15.0, log)
    snapshot = make_snapshot()
    manager.look(snapshot, 0, busy=False)
    manager.look(tick(snapshot), 0, busy=False)
    assert log.events("warning") == ["service manager cannot be told"]
    systemd = FakeSystemd(address)
    manager.look(tick(tick(snapshot)), 0, busy=False)
    assert systemd.told() == ["READY=1"]
    systemd.socket.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_an_address_it_understands_nothing_is_said(address):
    log = FakeLog()
    manager = ServiceManager.of({"NOTIFY_SOCKET": address} if address else {}, 15.0, log)
    manager.look(make_snapshot(), 1, busy=False)
    manager.stopping()
    assert bool(log.events("warning")) == bool(address)


def test_the_status_line_says_what_an_operator_asks_first():
    bundle = "bundle 0123456789abcdef (trained)"
    assert describe(make_snapshot(), True) == f"score 0.4, 1 is the alarm threshold; {bundle}"
    warming = make_snapshot(score=None, warmup_done=3)
    assert describe(warming, True) == f"warming up, 3 of 20 ticks; {bundle}"
    nothing = Snapshot(started=0.0, interval_s=15.0, heartbeat=0.0, counters=Counters())
    refused = replace(nothing, reload=replace(nothing.reload, message="a\nREADY=1 " + "x" * 500))
    line = describe(refused, True)
    assert "\n" not in line, "a message could speak to systemd in our name"
    assert len(line) == 200


def test_the_loop_tells_what_happens(tmp_path):
    """A start, ticks, a failing tick and a reload reach the service manager in this order."""
    systemd = FakeSystemd(str(tmp_path / "notify"))
    scorer = FakeScorer()
    rig = make_rig(first=make_candidate(scorer=scorer))
    manager = ServiceManager.of(systemd.environ, 15.0, FakeLog())
    rig.tell = lambda snapshot, waiting: manager.look(snapshot, rig.reloader.requests, waiting)
    rig.daemon.start()
    rig.run_for(20)
    assert systemd.told() == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    scorer.error = RuntimeError("boom")
    rig.run_for(15)
    assert systemd.told() == []
    scorer.error = None
    rig.reloader.request()
    rig.reloader.results = [BundleError("digest", "damaged")]
    rig.run_for(20)
    told = [line for line in systemd.told() if not line.startswith("MONOTONIC_USEC=")]
    assert [line for line in told if line != "WATCHDOG=1"] == ["RELOADING=1", "READY=1"]
    assert "WATCHDOG=1" in told
    systemd.socket.close()


@contextlib.contextmanager
def passed(kind: int = socket.SOCK_STREAM, *, listening: bool = True) -> Iterator[socket.socket]:
    """A socket whose descriptor is as if systemd had passed it."""
    with socket.socket(socket.AF_INET, kind) as own:
        own.bind(("127.0.0.1", 0))
        if listening:
            own.listen()
        yield own


def variables(count: int = 1, process: int | None = None) -> dict[str, str]:
    names = ":".join(["node-anomaly-agent.socket"] * count)
    pid = str(os.getpid() if process is None else process)
    return {"LISTEN_PID": pid, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names, "HOME": "/"}


def test_a_passed_socket_is_served_on_and_left_open_for_the_next_process():
    with passed() as systemds:
        environ = variables()
        listener = take_listener(environ, None, first=os.dup(systemds.fileno()))
        assert listener is not None
        assert environ == {"HOME": "/"}, "nobody else shall take descriptor 3"
        sources = Sources(make_snapshot, Site("1"), lambda: 0.0, lambda: 1000.0)
        application = Application(endpoints(sources), FakeLog())
        web = WebServer(Address("", 0), application, listener)
        web.start()
        assert web.port == systemds.getsockname()[1]
        with socket.create_connection(systemds.getsockname()[:2], timeout=5) as client:
            client.sendall(b"GET /-/healthy HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := client.recv(4096):
                answer += piece
        assert b"200 OK" in answer
        web.stop()
        systemds.setblocking(False)
        assert systemds.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "systemd's socket was shut"


@pytest.mark.parametrize("environ", [{}, variables(process=1), {**variables(), "LISTEN_FDS": "x"}])
def test_sockets_for_nobody_or_for_another_process_are_left_alone(environ):
    assert take_listener(dict(environ), None) is None
    with pytest.raises(ActivationError, match="no socket was passed") as raised:
        take_listener(dict(environ), True)
    assert "socket unit" in raised.value.hint


def test_no_web_systemd_socket_leaves_a_passed_one_alone():
    assert take_listener(variables(), False) is None


def test_an_address_that_the_passed_socket_is_not_at_is_noticed():
    """Whoever configured loopback and has a socket unit on all addresses would be open without knowing."""
    with passed() as own:
        host, port = own.getsockname()
        assert not listens_elsewhere(own, Address(host, port))
        assert not listens_elsewhere(own, Address("", port))
        assert listens_elsewhere(own, Address(host, port + 1))
        assert listens_elsewhere(own, Address("127.0.0.2", port))


def test_two_sockets_are_refused_by_their_names():
    with pytest.raises(ActivationError, match=r"2 sockets .*node-anomaly-agent\.socket"):
        take_listener(variables(2), None)


@pytest.mark.parametrize("what", ["datagram", "connected", "file"])
def test_what_does_not_listen_on_tcp_is_refused(what, tmp_path: Path):
    with contextlib.ExitStack() as stack:
        if what == "file":
            descriptor = stack.enter_context((tmp_path / "file").open("w")).fileno()
        else:
            kind = socket.SOCK_DGRAM if what == "datagram" else socket.SOCK_STREAM
            descriptor = stack.enter_context(passed(kind, listening=False)).fileno()
        with pytest.raises(ActivationError, match="does not listen on TCP"):
            take_listener(variables(), None, first=descriptor)
