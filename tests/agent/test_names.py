"""An exporter's name and its many addresses cost a tick no more than the deadline."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from node_anomaly_agent.collectors import names
from node_anomaly_agent.collectors.http_get import HttpGet
from node_anomaly_agent.collectors.names import Names
from node_anomaly_core.errors import SourceError


class Slow:
    """A name server that answers when it is told to."""

    def __init__(self, found):
        self.answers = threading.Event()
        self.asked = 0
        self.found = found

    def __call__(self, host, port, *, flags=0, **kind):
        if flags & socket.AI_NUMERICHOST:
            return socket.getaddrinfo(host, port, flags=flags, **kind)
        self.asked += 1
        assert self.answers.wait(20)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture
def slow(monkeypatch):
    made = Slow([(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9100))])
    monkeypatch.setattr(names, "getaddrinfo", made)
    yield made
    made.answers.set()


def test_an_address_is_looked_up_nowhere(slow):
    (found,) = Names("127.0.0.1", 80).addresses(0.0)
    assert found[4] == ("127.0.0.1", 80)
    assert slow.asked == 0


def test_a_name_server_that_does_not_answer_costs_the_deadline_and_one_thread(slow):
    fetch = HttpGet("http://exporter:9100/metrics", 0.2)
    for _ in range(3):
        begun = time.monotonic()
        with pytest.raises(SourceError, match=r"did not answer within 0\.2 s"):
            fetch()
        assert time.monotonic() - begun < 2.0
    assert slow.asked == 1
    assert sum(thread.name == "name-lookup" for thread in threading.enumerate()) == 1


def test_an_answer_that_came_late_is_used_and_kept_until_an_address_does_not_accept(slow):
    known = Names("exporter", 9100)
    with pytest.raises(TimeoutError):
        known.addresses(0.05)
    slow.answers.set()
    assert known.addresses(5.0) == slow.found
    assert known.addresses(5.0) == slow.found
    assert slow.asked == 1
    known.forget()
    known.addresses(5.0)
    assert slow.asked == 2


def test_while_a_name_server_is_gone_the_old_address_serves_and_has_the_time_that_is_left(slow):
    known = Names("exporter", 9100)
    slow.answers.set()
    known.addresses(5.0)
    slow.answers.clear()
    known.forget()
    begun = time.monotonic()
    assert known.addresses(10.0) == slow.found
    assert time.monotonic() - begun < 2.0


def test_a_name_server_that_refuses_costs_no_address_that_was_known(slow):
    known = Names("exporter", 9100)
    slow.answers.set()
    known.addresses(5.0)
    slow.found, found = socket.gaierror(-3, "Temporary failure in name resolution"), slow.found
    known.forget()
    assert known.addresses(5.0) == found


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name not known"), UnicodeError("too long")])
def test_a_name_that_there_is_not_is_said(slow, error):
    slow.found = error
    slow.answers.set()
    with pytest.raises(SourceError, match="cannot be read"):
        HttpGet("http://exporter:9100/metrics", 5.0)()


def test_a_name_that_no_codec_takes_is_a_failure_and_no_crash():
    with pytest.raises(SourceError, match="cannot be read"):
        HttpGet(f"http://{'x' * 70}:9100/metrics", 5.0)()


def test_many_addresses_that_do_not_accept_share_the_deadline(monkeypatch):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        monkeypatch.setattr(names, "getaddrinfo", Slow([]))
        fetch = HttpGet(f"http://exporter:{port}/", 0.4)
        fetch._names._known, fetch._names._until = [address] * 4, time.monotonic() + 60.0
        begun = time.monotonic()
        with pytest.raises(SourceError):
            fetch()
        assert time.monotonic() - begun < 1.5
        for filler in fillers:
            filler.close()
