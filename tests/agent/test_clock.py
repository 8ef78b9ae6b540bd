"""The wait that can be ended."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from node_anomaly_agent.clock import SystemClock


@pytest.fixture
def clock():
    clock = SystemClock()
    yield clock
    clock.close()


def test_a_wait_ends_by_itself(clock):
    started = clock.monotonic()
    clock.wait(0.05)
    assert 0.04 < clock.monotonic() - started < 3
    clock.wait(-1.0)


def test_a_wake_up_before_the_wait_is_not_lost(clock):
    clock.wake()
    started = clock.monotonic()
    clock.wait(5)
    assert clock.monotonic() - started < 3
    clock.wait(0.01)


def test_another_thread_ends_a_wait(clock):
    threading.Timer(0.05, clock.wake).start()
    started = clock.monotonic()
    clock.wait(5)
    assert clock.monotonic() - started < 3


def test_a_signal_handler_ends_a_wait(clock):
    before = signal.signal(signal.SIGUSR1, lambda *_: clock.wake())
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        started = clock.monotonic()
        clock.wait(5)
        assert clock.monotonic() - started < 3
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_any_number_of_wake_ups_fits(clock):
    for _ in range(100_000):
        clock.wake()
    clock.wait(0)


def test_unix_time_is_now(clock):
    assert abs(clock.time() - time.time()) < 1
