"""Load that moves every feature a little, bounded in size and time: CPU, disk, memory, sockets, network.

    python load.py KIND SECONDS FOLDER

Each kind is one process that works in waves (PERIOD_S long, hard in the first half, easy in the second) and
ends by itself after SECONDS or when the program that started it is gone. It writes below FOLDER only, and
talks on loopback and between two network namespaces of its own.

`network` and `peer` are the two ends of a veth pair, because neither end may count loopback as a network:
the peer waits in a namespace of its own until its end of the pair has arrived.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PERIOD_S = 36.0
HERE_DEVICE, PEER_DEVICE = "load0", "load1"
"""Names that the catalogue takes for physical interfaces, unlike veth*."""
HERE_ADDRESS, PEER_ADDRESS = "10.231.77.1", "10.231.77.2"
PORT = 7231
FILE_BYTES = 32 << 20
MEMORY_BYTES = 256 << 20
CHUNK = b"\xa5" * (64 << 10)
BACK_ONE_IN = 4
"""The peer sends one chunk back for so many."""
UNKNOWN_ETHERTYPE = 0x88B5
"""For local experiments (IEEE 802): nothing listens to it, so the kernel counts such a frame as dropped."""


def waves(seconds: float, step_s: float) -> Iterator[float]:
    """Every `step_s`, how hard to work now (1.0 or 0.3), until the time is up or the parent is gone."""
    begin, parent = time.monotonic(), os.getppid()
    at = begin
    while at - begin < seconds and os.getppid() == parent:
        yield 1.0 if (at - begin) % PERIOD_S < PERIOD_S / 2 else 0.3
        at += step_s
        time.sleep(max(at - time.monotonic(), 0.0))


def cpu(seconds: float, folder: Path) -> None:
    """Up to 60 % of one CPU, in slices of 50 ms, a little of it in the kernel."""
    for effort in waves(seconds, 0.05):
        until = time.monotonic() + 0.03 * effort
        while time.monotonic() < until:
            sum(range(500))
            for _ in range(20):
                folder.stat()


def disk(seconds: float, folder: Path) -> None:
    """Writes with fsync, reads past the page cache, and page faults that must read from disk."""
    path = folder / "load.bin"
    with path.open("w+b", buffering=0) as file:
        for _ in range(FILE_BYTES // len(CHUNK)):
            file.write(CHUNK)
        os.fsync(file.fileno())
        at = 0
        for effort in waves(seconds, 0.2):
            for _ in range(int(20 * effort)):
                os.pwrite(file.fileno(), CHUNK, at)
                at = (at + len(CHUNK)) % FILE_BYTES
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(file.fileno(), 16 * len(CHUNK), at)
            with mmap.mmap(file.fileno(), FILE_BYTES, access=mmap.ACCESS_READ) as view:
                view.madvise(mmap.MADV_RANDOM)
                for page in range(int(10 * effort)):
                    view[(at + (page + 40) * 131072) % FILE_BYTES]
    path.unlink()


def memory(seconds: float, folder: Path) -> None:
    """Holds between a third and all of MEMORY_BYTES, touched; dirties a few pages of a file besides."""
    path = folder / "dirty.bin"
    held = bytearray()
    for effort in waves(seconds, 1.0):
        wanted = int(MEMORY_BYTES * effort)
        if len(held) != wanted:
            held = bytearray(wanted)
            for page in range(0, wanted, mmap.PAGESIZE):
                held[page] = 1
        path.write_bytes(CHUNK * int(32 * effort))
    path.unlink(missing_ok=True)


def sockets(seconds: float, folder: Path) -> None:
    """Loopback connections that open, stay and close, a listen queue that overflows, files, processes."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        held: list[socket.socket] = []
        waiting: list[socket.socket] = []
        files: list[int] = []
        for turn, effort in enumerate(waves(seconds, 0.25)):
            for _ in range(int(10 * effort)):  # closed by us first: TIME_WAIT is ours
                client = socket.create_connection(server.getsockname())
                accepted, _ = server.accept()
                client.close()
                accepted.close()
            _resize(held, int(20 * effort), lambda: _pair(server))
            _resize_files(files, int(400 * effort))
            for _ in range(int(6 * effort)):
                subprocess.run(["/bin/true"], check=True)
            if turn % 8 == 0:
                _close(waiting)
                waiting = [_begin(full.getsockname()) for _ in range(int(20 * effort))]
        _close(waiting)
        _close(held)
        _resize_files(files, 0)


def _pair(server: socket.socket) -> list[socket.socket]:
    client = socket.create_connection(server.getsockname())
    return [client, server.accept()[0]]


def _begin(address: tuple[str, int]) -> socket.socket:
    """A connection that is under way: with the listen queue full, nobody answers."""
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(address)
    return client


def _resize(held: list[socket.socket], pairs: int, more: Callable[[], list[socket.socket]]) -> None:
    while len(held) < 2 * pairs:
        held.extend(more())
    _close(held[2 * pairs :])
    del held[2 * pairs :]


def _resize_files(files: list[int], count: int) -> None:
    while len(files) < count:
        files.append(os.open("/dev/null", os.O_RDONLY))
    while len(files) > count:
        os.close(files.pop())


def _close(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def network(seconds: float, folder: Path) -> None:
    """Up to 8 MB/s to the peer and a quarter of it back."""
    deadline = time.monotonic() + 10.0
    while True:
        try:
            connection = socket.create_connection((PEER_ADDRESS, PORT), timeout=2.0)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    with connection:
        connection.settimeout(5.0)
        for effort in waves(seconds, 0.1):
            for _ in range(max(1, int(3 * effort))):
                for _ in range(BACK_ONE_IN):
                    connection.sendall(CHUNK)
                back = len(CHUNK)
                while back:
                    back -= len(connection.recv(back))


def peer(seconds: float, folder: Path) -> None:
    """Takes what `network` sends, gives a quarter back, and sends a few frames that nobody wants."""
    deadline = time.monotonic() + 10.0
    while PEER_DEVICE not in (name for _, name in socket.if_nameindex()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{PEER_DEVICE} never arrived in the peer's namespace")
        time.sleep(0.05)
    set_up(PEER_DEVICE, PEER_ADDRESS)
    frame = b"\xff" * 12 + struct.pack("!H", UNKNOWN_ETHERTYPE) + bytes(50)
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw,
        socket.create_server((PEER_ADDRESS, PORT)) as server,
    ):
        raw.bind((PEER_DEVICE, 0))
        server.settimeout(15.0)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(5.0)
            owed = 0
            with contextlib.suppress(TimeoutError, ConnectionError):
                while data := connection.recv(1 << 20):
                    owed += len(data)
                    while owed >= BACK_ONE_IN * len(CHUNK):
                        connection.sendall(CHUNK)
                        owed -= BACK_ONE_IN * len(CHUNK)
                        raw.send(frame)


def set_up(device: str, address: str) -> None:
    """Give an interface of this namespace its address and switch it on."""
    subprocess.run(["ip", "addr", "add", f"{address}/24", "dev", device], check=True)
    subprocess.run(["ip", "link", "set", device, "up"], check=True)


KINDS: dict[str, Callable[[float, Path], None]] = {
    "cpu": cpu,
    "disk": disk,
    "memory": memory,
    "sockets": sockets,
    "network": network,
    "peer": peer,
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](float(sys.argv[2]), Path(sys.argv[3]))
