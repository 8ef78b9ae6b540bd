"""Real faults of the host that this runs on, each a process of its own that ends when it is told to.

As a program: `python tests/host_faults.py sockets|disk|cpu [FOLDER]` says "provoked" once the fault is there
and holds it until its standard input ends, so that none outlives who started it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SPARE_FILES = 200
LEAKERS, CONNECTIONS = 3, 3_000
"""Processes, and what each leaks, or less where it may not open so many files; each end of one is a file."""
SPINNERS_PER_CPU = 12
WRITERS = 4
BLOCK, BLOCKS = 1 << 20, 32
"""What a writer makes safe on the disk at a time, in bytes, and how many of them its file holds."""


def leak_sockets(_folder: Path) -> None:
    """Open connections to oneself and never close one, as a client without a pool does."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _split(LEAKERS, lambda: _leak(min(CONNECTIONS, (most - SPARE_FILES) // 2)), lambda: time.sleep(0.1))


def fill_disk_queue(folder: Path) -> None:
    """Several writers who each wait for the disk after every block."""
    _split(WRITERS, _nothing, lambda: _write(folder / f"{os.getpid()}.block"))


def burn_cpu(_folder: Path) -> None:
    """Many more processes than CPUs, none of which ever waits."""
    _split(SPINNERS_PER_CPU * (os.cpu_count() or 1), _nothing, _spin)


FAULTS: dict[str, Callable[[Path], None]] = {
    "sockets": leak_sockets,
    "disk": fill_disk_queue,
    "cpu": burn_cpu,
}
FEATURES = {
    "sockets": ("tcp_established_count", "file_descriptors_count"),
    "disk": (
        "disk_written_bytes_per_second",
        "disk_busy_ratio",
        "pressure_io_waiting_ratio",
        "cpu_iowait_ratio",
    ),
    "cpu": (
        "cpu_busy_ratio",
        "cpu_user_ratio",
        "load1_per_cpu_ratio",
        "processes_running_per_cpu_ratio",
        "pressure_cpu_waiting_ratio",
    ),
}
"""What each shows itself in."""


@contextlib.contextmanager
def provoked(fault: str, folder: Path) -> Iterator[None]:
    """The host has this fault until the block ends."""
    command = [sys.executable, __file__, fault, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if said.strip() != b"provoked":
                message = f"the fault {fault!r} ended with {process.wait(10)} before it was there"
                raise RuntimeError(message)
            yield
        finally:
            process.communicate(timeout=30)  # closes its input


def _split(count: int, first: Callable[[], object], again: Callable[[], object]) -> None:
    """Let `count` children do the one, say so, and let them do the other until our input ends."""
    parent, children = os.getpid(), []
    reading, writing = os.pipe()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            held = first()
            os.write(writing, b".")
            while held is not None and os.getppid() == parent:  # one that was killed cannot stop us
                again()
            os._exit(0)
        children.append(child)
    os.close(writing)
    done = 0
    while done < count and (more := os.read(reading, count)):
        done += len(more)
    if done == count:
        sys.stdout.write("provoked\n")
        sys.stdout.flush()
        sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)


def _nothing() -> tuple[()]:
    return ()


def _leak(count: int) -> list[socket.socket]:
    at_once = struct.pack("ii", 1, 0)  # reset when closed: no TIME_WAIT outlives the fault
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(count):
            client = socket.create_connection(server.getsockname())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            held += [client, server.accept()[0]]
    return held


def _write(path: Path) -> None:
    block = os.urandom(BLOCK)
    with path.open("wb", buffering=0) as file:
        for _ in range(BLOCKS):
            file.write(block)
            os.fsync(file.fileno())


def _spin() -> None:
    for _ in range(1_000_000):
        pass


if __name__ == "__main__":
    FAULTS[sys.argv[1]](Path(sys.argv[2]))
