"""What this node remembers of bundles: the newest it accepted, those it left, what it was told to allow.

A small JSON file beside the state, written whole. It is read again before every decision, because
`anomaly-agent bundle activate` writes it too, from another process. Lost or damaged, it starts empty and says
so: then an older bundle can pass once, and signatures are all that stands against it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from node_anomaly_agent.bounded_file import read_bounded
from node_anomaly_agent.whole_file import write_whole
from node_anomaly_core.errors import BundleError

LEDGER_FILE = "bundles.json"
LOCK_FILE = f".{LEDGER_FILE}.lock"
MAX_LEDGER_BYTES = 64 << 10
MAX_LEFT = 32
MAX_CHANNELS = 8
PATIENCE_S = 1.0
"""A change takes milliseconds; a lock that is held for longer is held by a process that hangs."""

_LOOK_S = 0.02
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """The content of the ledger.

    Attributes:
        newest_trained_at: of all bundles accepted so far, unix seconds; a signed older one is a replay.
        sequences: highest accepted sequence of each source and channel.
        allowed: the one version that may come back although it is older.
        left: versions that raised more alarms here than they promised, oldest first.
        history: versions used here, latest last.
        since: when the latest was first used, unix seconds.
    """

    newest_trained_at: float = -math.inf
    sequences: Mapping[str, int] = field(default_factory=dict)
    allowed: str = ""
    left: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    since: float = 0.0

    def to_bytes(self) -> bytes:
        """JSON."""
        newest = None if math.isinf(self.newest_trained_at) else self.newest_trained_at
        document = {
            "format_version": _FORMAT_VERSION,
            "newest_trained_at_seconds": newest,
            "sequences": dict(self.sequences),
            "allowed": self.allowed,
            "left": list(self.left),
            "history": list(self.history),
            "since_seconds": self.since,
        }
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def parse_memory(content: bytes) -> Memory:
    """Read a ledger's content back. Raises ValueError, and nothing else, whatever the bytes are."""
    try:
        if len(content) > MAX_LEDGER_BYTES:
            raise ValueError(f"it is larger than {MAX_LEDGER_BYTES >> 10} KiB")
        document = json.loads(content.decode())
        if document["format_version"] != _FORMAT_VERSION:
            raise ValueError("another format version")
        newest = document["newest_trained_at_seconds"]
        sequences = {str(name): int(number) for name, number in document["sequences"].items()}
        return Memory(
            newest_trained_at=-math.inf if newest is None else _finite(newest),
            sequences=dict(list(sequences.items())[-MAX_CHANNELS:]),
            allowed=str(document["allowed"]),
            left=tuple(map(str, document["left"]))[-MAX_LEFT:],
            history=tuple(map(str, document["history"]))[-MAX_LEFT:],
            since=_finite(document["since_seconds"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"not a ledger of bundles ({error!r})") from error


def _finite(value: float) -> float:
    """Python reads NaN and Infinity in JSON, and nothing would write them again."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no time")
    return number


class Ledger:
    """The ledger of one state directory; None keeps it in memory only. Safe in any thread and process.

    Args:
        directory: where it is kept.
        complain: told what is wrong with the file, in words.
        patience_s: how long a change waits for another process that is at it.
    """

    def __init__(
        self,
        directory: Path | None,
        complain: Callable[[str], None] = lambda _text: None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._directory = directory
        self._complain = complain
        self._patience_s = patience_s
        self._memory = Memory()

    def read(self) -> Memory:
        """What is remembered now."""
        if self._directory is None:
            return self._memory
        path = self._directory / LEDGER_FILE
        try:
            self._memory = parse_memory(read_bounded(path, MAX_LEDGER_BYTES))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self._complain(f"{path}: {error}")
        return self._memory

    def update(self, change: Callable[[Memory], Memory]) -> Memory:
        """Change what is remembered. A file that cannot be written is complained of, and memory serves."""
        with self._lock():
            before = self.read()
            self._memory = change(before)
            if self._directory is not None and self._memory != before:
                try:
                    write_whole(self._directory / LEDGER_FILE, self._memory.to_bytes(), 0o644)
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or error
                    self._complain(f"{self._directory / LEDGER_FILE} cannot be written: {reason}")
        return self._memory

    def accepted(self, version: str, trained_at: float, now: float) -> Memory:
        """A bundle has been put to use. Returns what is remembered then."""

        def change(memory: Memory) -> Memory:
            if memory.history[-1:] == (version,):
                return memory
            history = (*(one for one in memory.history if one != version), version)[-MAX_LEFT:]
            newest = max(memory.newest_trained_at, trained_at)
            allowed = "" if trained_at > memory.newest_trained_at else memory.allowed
            return replace(memory, newest_trained_at=newest, history=history, allowed=allowed, since=now)

        return self.update(change)

    def reached(self, source: str, sequence: int) -> None:
        """A channel's document has been accepted."""

        def change(memory: Memory) -> Memory:
            sequences = {name: number for name, number in memory.sequences.items() if name != source}
            sequences[source] = max(sequence, memory.sequences.get(source, 0))
            return replace(memory, sequences=dict(list(sequences.items())[-MAX_CHANNELS:]))

        self.update(change)

    def allow(self, version: str) -> None:
        """Somebody who may asked for this version, whatever its age and its past here."""
        self.update(
            lambda memory: replace(
                memory, allowed=version, left=tuple(one for one in memory.left if one != version)
            )
        )

    def leave(self, version: str, back_to: str) -> None:
        """A bundle broke its promise here; the one before may come back."""
        self.update(
            lambda memory: replace(
                memory,
                allowed=back_to,
                left=(*(one for one in memory.left if one != version), version)[-MAX_LEFT:],
            )
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        try:
            if self._directory is None:
                raise FileNotFoundError
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield  # without a place to write there is nobody to be kept apart from
            return
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        """Take the lock, or go on without it and say so: whoever holds it for good must not hold up the loop.

        What another process writes at that moment can then be lost, which costs less than the agent does.
        """
        end = time.monotonic() + self._patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                held = isinstance(error, BlockingIOError)
                if held and time.monotonic() < end:
                    time.sleep(_LOOK_S)
                    continue
                reason = "another process holds it" if held else error.strerror
                self._complain(f"{LEDGER_FILE} cannot be locked ({reason}) and is changed all the same")
                return


def check(memory: Memory, version: str, trained_at: float, *, signed: bool, allowed: str = "") -> None:
    """Whether a verified bundle may be used here.

    Args:
        memory: what is remembered.
        version: the bundle's.
        trained_at: the bundle's, unix seconds.
        signed: whether keys are asked for. Without them whoever can write the directory can date a bundle
        as he likes, so its age proves nothing and going back stays as simple as switching a link.
        allowed: a version that the configuration allows.

    Raises BundleError("rolled_back" or "replay").
    """
    if version in (allowed, memory.allowed):
        return
    back = f"to use it all the same: anomaly-agent bundle activate {version}"
    if version in memory.left:
        raise BundleError(
            "rolled_back",
            f"bundle {version} raised more alarms on this node than it promises, and was left",
            back,
        )
    if signed and trained_at < memory.newest_trained_at:
        raise BundleError(
            "replay",
            f"bundle {version} is older than one that was accepted before",
            f"{back}, or publish it as a rollback",
        )
