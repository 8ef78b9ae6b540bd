"""One publisher at a time: a lock that the kernel lets go of when its owner dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_anomaly_core.errors import TrainingError

LOCK = ".publish.lock"
_PAUSE_S = 0.05
_MOST_OWNER_BYTES = 500


@contextmanager
def publishing(root: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock of a published directory or tree; the directory is made.

    The file stays for good, with its last owner in it: removing it would let two publishers each lock a file
    of their own. A lock whose owner was killed is free, because `flock` ends with its process.
    Raises TrainingError after `wait_s` seconds, with the owner, or if the directory cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise TrainingError(
            f"cannot publish to {root}: {error.strerror or error}",
            "choose a writable directory with free space: publish.directory, publish.tree",
        ) from error
    try:
        _acquire(descriptor, root, time.monotonic() + wait_s)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
        # A full disk must not stop a rollback: the name of the owner is only for people.
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode() + b"\n", 0)
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, root: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                owner = os.pread(descriptor, _MOST_OWNER_BYTES, 0).decode(errors="replace").strip()
                raise TrainingError(
                    f"{root} is being published to by another trainer: {owner or 'it has not said which'}",
                    "wait until it is done, or raise publish.wait",
                ) from None
            time.sleep(_PAUSE_S)
        else:
            return
