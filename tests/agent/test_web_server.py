"""The server below the pages, over real sockets, with clients that behave and clients that do not."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from node_anomaly_agent.config import Address
from node_anomaly_agent.web_server import MAX_BODY_BYTES, MAX_CONNECTIONS, WebError, WebServer
from web_site import Running, application


@pytest.fixture
def site() -> Iterator[Running]:
    with Running().started() as site:
        yield site


def connect(site: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.port), timeout=5)


def scrape_seconds(site: Running) -> float:
    """How long the slowest of ten scrapes takes."""
    slowest = 0.0
    for _ in range(10):
        started = time.monotonic()
        assert site.ask("/metrics")[0] == 200
        slowest = max(slowest, time.monotonic() - started)
    return slowest


def closed(connection: socket.socket, within: float = 3.0) -> bool:
    connection.settimeout(within)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


def test_a_port_that_is_taken_is_an_error_with_a_hint(site):
    other = WebServer(Address("127.0.0.1", site.server.port), application(site))
    with pytest.raises(WebError, match="cannot listen on 127") as caught:
        other.start()
    assert "--web.listen-address" in caught.value.hint


def test_a_host_that_is_not_ours_is_an_error(site):
    with pytest.raises(WebError, match="cannot listen on") as caught:
        WebServer(Address("192.0.2.1", 0), application(site)).start()
    assert "an address of this host" in caught.value.hint


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "bad\udcff", "no-such-host.invalid"], ids=ascii)
def test_a_name_that_does_not_resolve_is_an_error_that_says_so(site, host):
    with pytest.raises(WebError, match=r"cannot listen on .*:0: the name does not resolve: ") as caught:
        WebServer(Address(host, 0), application(site)).start()
    assert caught.value.hint == (
        "give --web.listen-address an address of this host, or none (:PORT) for all it has"
    )


def test_a_port_that_only_root_may_have_is_answered_with_those_that_all_may(site, monkeypatch):
    def refuse(_socket: socket.socket, _where: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(WebError, match="Permission denied") as caught:
        WebServer(Address("127.0.0.1", 80), application(site)).start()
    assert "from 1024 on" in caught.value.hint


def test_no_host_means_every_address(site):
    server = WebServer(Address("", 0), application(site))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(b"GET /-/ready HTTP/1.0\r\n\r\n")
            assert b" 200 " in connection.recv(1000)
    finally:
        server.stop()


def test_huge_headers_are_refused_and_the_next_request_is_served(site):
    hung_up = contextlib.suppress(ConnectionError)  # which may be before all of it is sent
    with hung_up, socket.create_connection(("127.0.0.1", site.server.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000)
        connection.sendall(b"\r\n\r\n")
        assert b" 200 " not in connection.recv(1000)
    assert site.ask("/-/ready")[0] == 200


@pytest.mark.parametrize(
    "noise", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"], ids=["binary", "short", "v9"]
)
def test_noise_does_not_disturb_the_next_request(site, noise):
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=5) as connection:
        connection.sendall(noise)
        connection.recv(1000)
    assert site.ask("/-/ready")[0] == 200


def test_parallel_scrapes_are_all_served(site):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: site.ask("/metrics")[0], range(100)))
    assert answers == [200] * 100


@pytest.mark.alone
def test_a_client_that_holds_on_does_not_hold_up_the_stop():
    server = WebServer(Address("127.0.0.1", 0), application(Running()))
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as idle:
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        time.sleep(0.1)
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 0.5


@pytest.mark.parametrize("host", ["127.0.0.1", "", "::1"])
@pytest.mark.alone
def test_a_stop_does_not_wait_for_the_next_look_at_idle_clients(host):
    """The accept loop sleeps much longer than a stop may take."""
    server = WebServer(Address(host, 0), application(Running()))
    server.start()
    port, started = server.port, time.monotonic()
    server.stop()
    assert time.monotonic() - started < 0.25
    with pytest.raises(OSError, match="refused"), socket.create_connection(("localhost", port), timeout=1):
        pass


def test_two_hundred_idle_connections_do_not_slow_a_scrape(site):
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(connect(site))
        assert scrape_seconds(site) < 1.0


def test_clients_that_send_a_byte_now_and_then_do_not_slow_a_scrape(site):
    """Forty requests that never end, ten times as many as there are workers."""
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(site)) for _ in range(40)]
        for at, connection in enumerate(slow):
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n" if at % 2 else b"POST / HTTP/1.1\r\n")
            if at % 2 == 0:
                connection.sendall(b"Host: x\r\nContent-Length: 1000\r\n\r\nabc")
        for _ in range(3):
            for connection in slow:
                connection.sendall(b"X")
            assert scrape_seconds(site) < 1.0


def test_a_request_that_takes_too_long_to_arrive_is_dropped_and_an_idle_connection_is_not(monkeypatch):
    monkeypatch.setattr("node_anomaly_agent.web_server.REQUEST_S", 0.3)
    monkeypatch.setattr("node_anomaly_agent.web_server.LOOK_S", 0.1)
    with Running().started() as site, connect(site) as slow, connect(site) as idle:
        idle.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert closed(slow, 5.0)
        idle.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.2)
        assert idle.recv(10_000).count(b"200 OK") == 2


def test_an_idle_connection_is_dropped_in_the_end_and_a_busy_one_is_kept(monkeypatch):
    monkeypatch.setattr("node_anomaly_agent.web_server.IDLE_S", 1.0)
    monkeypatch.setattr("node_anomaly_agent.web_server.LOOK_S", 0.1)
    with Running().started() as site:
        idle, busy = (http.client.HTTPConnection("127.0.0.1", site.port, timeout=5) for _ in range(2))

        def ask(connection: http.client.HTTPConnection) -> int:
            connection.request("GET", "/-/ready")
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert ask(idle) == ask(busy) == 200
        kept = busy.sock
        for _ in range(10):
            time.sleep(0.25)
            assert ask(busy) == 200
        assert busy.sock is kept
        assert closed(idle.sock)
        idle.close()
        busy.close()


def test_more_connections_than_there_is_room_for_push_out_the_one_that_was_silent_longest(site):
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(site)) for _ in range(MAX_CONNECTIONS + 10)]
        assert site.ask("/-/ready")[0] == 200
        assert closed(connections[0])
        connections[-1].sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connections[-1].recv(1000)


def test_connections_take_no_more_than_a_quarter_of_what_the_process_may_open(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (40, 4096))
    with Running().started() as site, ExitStack() as stack:
        connections = [stack.enter_context(connect(site)) for _ in range(12)]
        assert closed(connections[0])
        connections[-1].sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connections[-1].recv(1000)


class Exhausted(socket.socket):
    """A listener of a process that has no descriptor left, for as long as `error` is set."""

    error: int | None = None
    tries = 0

    def accept(self):
        self.tries += 1
        if self.error is not None:
            raise OSError(self.error, "too many open files")
        return super().accept()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_without_a_descriptor_the_server_rests_and_then_serves_who_has_waited(error):
    with Exhausted() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.error = error
        server = WebServer(Address("127.0.0.1", 0), application(Running()), listener)
        server.start()
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=5) as waiting:
                waiting.sendall(b"GET /-/ready HTTP/1.1\r\nHost: x\r\n\r\n")
                time.sleep(1.3)
                assert 1 <= listener.tries <= 4
                listener.error = None
                assert b"200 OK" in waiting.recv(1000)
        finally:
            server.stop()


def test_a_body_that_is_too_large_is_refused_before_it_is_read(site):
    with connect(site) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert b" 413 " in connection.recv(1000)
    assert site.ask("/-/ready")[0] == 200


def test_a_chunked_body_that_does_not_end_is_refused(site):
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with connect(site) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            connection.sendall(chunk)
        assert b" 413 " in connection.recv(1000)
    assert site.ask("/-/ready")[0] == 200


def test_half_sent_bodies_take_no_more_memory_than_all_together_may(site):
    body = b"x" * (MAX_BODY_BYTES - 1000)
    with ExitStack() as stack:
        for _ in range(40):
            connection = stack.enter_context(connect(site))
            with contextlib.suppress(ConnectionError):
                connection.sendall(
                    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1) + body
                )
        assert site.ask("/-/ready")[0] == 200
        assert site.held_bytes < 5 << 20


def test_a_client_that_asks_and_never_reads_holds_up_nobody(site):
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", site.port))
            connection.sendall(request)
        assert scrape_seconds(site) < 1.0


def test_a_client_that_sends_hundreds_of_requests_at_once_is_hung_up_on(site):
    with connect(site) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 300)
        assert closed(connection)
    assert site.ask("/-/ready")[0] == 200


def test_an_error_in_a_page_is_an_answer_and_the_next_request_is_served(site):
    good, site.snapshot = site.snapshot, None
    assert site.ask("/metrics")[0] == site.ask("/metrics")[0] == 500
    assert site.log.events() == ["page failed"]
    site.snapshot = good
    assert site.ask("/metrics")[0] == 200
