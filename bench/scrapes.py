"""How long a scrape takes when many come at once, on an idle host and on an ill one.

    python bench/scrapes.py [--rounds 60] [--scrapers 20] [--json]

Starts the agent as it ships, evaluating once a second, waits until it is warm, and has all scrapers ask at
the same instant, twice a second, each over a connection that is kept and as Prometheus asks (gzip).
A scrape's time is from that instant until its last byte. Meanwhile the host is idle, or two busy processes
for each CPU take what they can get, or clients misbehave.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import rig  # noqa: E402 -- a free port

WARM_WITHIN_S = 150.0
EVERY_S = 0.5
ASKED = (
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0\r\n\r\n"
)
PREDICTED_ROWS = 300


@dataclass(frozen=True)
class Measured:
    """One situation: milliseconds of all scrapes, what became of the ticks, the agent's CPU by scrape."""

    situation: str
    scrapes: int
    median_ms: float
    p99_ms: float
    slowest_ms: float
    ticks: float
    skipped: float
    tick_ms: float
    cpu_ms: float


def read_answer(connection: socket.socket, begun: bytes) -> bytes | None:
    """What has arrived so far, or None when the answer is whole."""
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the agent closed a scraper's connection")
    begun += data
    head, ended, body = begun.partition(b"\r\n\r\n")
    if not ended:
        return begun
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode(errors="replace"))
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return None if len(body) >= length else begun


def scrape_together(connections: list[socket.socket]) -> list[float]:
    """All at once; the seconds each took."""
    selector = selectors.DefaultSelector()
    for connection in connections:
        selector.register(connection, selectors.EVENT_READ, b"")
    started = time.perf_counter()
    for connection in connections:
        connection.sendall(ASKED)
    took: list[float] = []
    while len(took) < len(connections):
        for key, _ in selector.select(30.0):
            arrived = read_answer(cast("socket.socket", key.fileobj), key.data)
            if arrived is None:
                took.append(time.perf_counter() - started)
                selector.unregister(key.fileobj)
            else:
                selector.modify(key.fileobj, selectors.EVENT_READ, arrived)
    selector.close()
    return took


def counters(port: int) -> dict[str, float]:
    """Samples of one scrape by series."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {series: float(value) for series, _, value in samples}


def tick_counters(port: int) -> tuple[float, float, float]:
    """Ticks, skipped ticks, and seconds spent in ticks so far."""
    found = counters(port)

    def total(start: str) -> float:
        return sum(
            value for name, value in found.items() if name.startswith(f"anomaly_agent_evaluation_{start}")
        )

    skipped, spent = total("skipped_total"), total("duration_seconds_sum")
    return found["anomaly_agent_evaluations_total"], skipped, spent


def cpu_s(pid: int) -> float:
    """User + system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(situation: str, port: int, pid: int, scrapers: int, rounds: int) -> Measured:
    """Scrape for so many rounds."""
    with ExitStack() as stack:
        where = ("127.0.0.1", port)
        opened = (socket.create_connection(where, timeout=30) for _ in range(scrapers))
        connections = [stack.enter_context(one) for one in opened]
        scrape_together(connections)
        before, cpu = tick_counters(port), cpu_s(pid)
        times: list[float] = []
        due = time.perf_counter()
        for _ in range(rounds):
            due = max(due + EVERY_S, time.perf_counter())
            time.sleep(max(0.0, due - time.perf_counter()))
            times += scrape_together(connections)
        after, cpu = tick_counters(port), cpu_s(pid) - cpu
    ticks, skipped, spent = (late - early for late, early in zip(after, before, strict=True))
    ordered = sorted(1e3 * one for one in times)
    return Measured(
        situation,
        len(ordered),
        statistics.median(ordered),
        ordered[int(0.99 * len(ordered))],
        ordered[-1],
        ticks,
        skipped,
        1e3 * spent / max(ticks, 1.0),
        1e3 * cpu / len(ordered),
    )


def burn() -> None:
    """Take all the CPU there is."""
    while True:
        pass


@contextmanager
def busy_host() -> Iterator[None]:
    """Two busy processes for each CPU."""
    processes = [multiprocessing.Process(target=burn, daemon=True) for _ in range(2 * (os.cpu_count() or 1))]
    for process in processes:
        process.start()
    yield
    for process in processes:
        process.kill()
        process.join()


@contextmanager
def idle_connections(port: int) -> Iterator[None]:
    """Two hundred that never ask."""
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        yield


@contextmanager
def slow_clients(port: int) -> Iterator[None]:
    """A hundred that send a byte of a header each second, and connect again when they are dropped."""
    ended = threading.Event()

    def drip() -> None:
        connections: list[socket.socket] = []
        while not ended.wait(1.0):
            while len(connections) < 100:
                connection = socket.create_connection(("127.0.0.1", port))
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ")
                connections.append(connection)
            for connection in list(connections):
                try:
                    connection.sendall(b"x")
                except OSError:
                    connections.remove(connection)
        for connection in connections:
            connection.close()

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


@contextmanager
def predictions(port: int) -> Iterator[None]:
    """One request for scores of rows after the other."""
    ended = threading.Event()
    body = json.dumps({"rows": [{"features": {"cpu_user_ratio": 0.2}}] * PREDICTED_ROWS, "reasons": 0})

    def ask() -> None:
        while not ended.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/api/v1/predict", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
            connection.close()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


@contextmanager
def agent() -> Iterator[tuple[int, int]]:
    """A warm agent; its port and process."""
    port = rig.free_port()
    with tempfile.TemporaryDirectory() as state:
        command = [
            sys.executable,
            "-m",
            "node_anomaly_agent",
            f"--web.listen-address=127.0.0.1:{port}",
            "--interval=1s",
            f"--state.directory={state}",
            "--log.level=error",
        ]
        process = subprocess.Popen(command)
        try:
            end = time.monotonic() + WARM_WITHIN_S
            while True:
                with contextlib.suppress(OSError):
                    if counters(port).get("anomaly_agent_warm"):
                        break
                if time.monotonic() > end:
                    raise TimeoutError("the agent does not become warm")
                time.sleep(1.0)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def main() -> int:
    """Measure every situation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--scrapers", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with agent() as (port, pid):
        many = arguments.scrapers
        situations: list[tuple[str, int, Callable[[], contextlib.AbstractContextManager[None]]]] = [
            ("one scraper, idle host", 1, contextlib.nullcontext),
            (f"{many} scrapers at once, idle host", many, contextlib.nullcontext),
            (f"{many} at once, every CPU busy twice over", many, busy_host),
            (f"{many} at once, 200 idle connections", many, lambda: idle_connections(port)),
            (f"{many} at once, 100 clients that send a byte a second", many, lambda: slow_clients(port)),
            (f"{many} at once, one prediction after the other", many, lambda: predictions(port)),
        ]
        results = []
        for name, scrapers, situation in situations:
            with situation():
                results.append(measure(name, port, pid, scrapers, arguments.rounds))
    if arguments.json:
        print(json.dumps([asdict(one) for one in results], indent=1))
        return 0
    print("| situation | median, ms | p99, ms | slowest, ms | ticks | skipped | a tick takes, ms | CPU, ms |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for one in results:
        figures = (one.median_ms, one.p99_ms, one.slowest_ms, one.ticks, one.skipped, one.tick_ms, one.cpu_ms)
        places = (1, 1, 1, 0, 0, 1, 2)
        cells = (f"{value:.{digits}f}" for value, digits in zip(figures, places, strict=True))
        print(f"| {one.situation} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
