"""Notices a new bundle and gets it ready beside the loop.

Three things lead here: file system events (fast, but lost on network file systems and by some symlink
swaps), a poll of the manifest's digest (slow, but never fooled), and SIGHUP. Each only sets a flag. A
worker thread then verifies the bundle, replays its golden vectors and builds its scorer; the loop takes
the result between two ticks. Whatever goes wrong, the bundle in use stays in use. Looking at the directory
is a worker's task as well, because a network file system that does not answer would hold up every tick.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from node_anomaly_agent.bounded_file import read_bounded
from node_anomaly_agent.clock import Clock
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.scorer import Candidate
from node_anomaly_agent.threads import NO_THREAD, NO_THREAD_HINT, Errands, started
from node_anomaly_core.bundle import CURRENT, resolve_current
from node_anomaly_core.errors import BundleError

SETTLE_S = 0.5
"""Events come in bursts while a bundle is copied; look once they have stopped for this long."""

START_PATIENCE_S = 5.0
PATIENCE_S = 0.05
"""The loop waits so long for a look; a directory that is there takes a hundredth of it."""

_OWN_READS = frozenset({"opened", "closed_no_write"})  # verifying a bundle must not announce it again


@dataclass(frozen=True, slots=True)
class Offer:
    """What the bundle directory offers now: a directory to load, an error, or nothing."""

    path: Path | None
    error: BundleError | None
    fingerprint: tuple[object, ...]


def look(root: Path) -> Offer:
    """What is on offer, told apart by the recorded digest and by the files' sizes and times.

    The digest alone would not do: a copy that was still incomplete when it was refused keeps its digest.
    """
    try:
        path = resolve_current(root)
    except BundleError as error:
        return Offer(None, error, ("error", error.reason, error.message))
    except OSError as error:
        wrapped = BundleError("io", f"{root} cannot be read: {error.strerror}", "check its permissions")
        return Offer(None, wrapped, ("error", "io", error.errno))
    if path is None:
        return Offer(None, None, ())
    files: list[tuple[str, int, int]] = []
    digest = b""
    with suppress(OSError):  # a link that was set anew to the same version asks for it again
        files.append((CURRENT, 0, (root / CURRENT).lstat().st_mtime_ns))
    with suppress(OSError):  # whatever cannot be read is found and named by the verification
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                status = entry.stat()
                files.append((entry.name, status.st_size, status.st_mtime_ns))
        digest = read_bounded(path / "manifest.sha256", 200)[:200]
    return Offer(path, None, (str(path), digest, tuple(files)))


class Reloader:
    """Finds, verifies and hands over bundles. All methods but `request` belong to the loop's thread.

    `requests` is how often that was called so far.
    """

    def __init__(
        self,
        directory: Path,
        load: Callable[[Path], Candidate],
        poll_interval_s: float,
        clock: Clock,
        log: Log,
        look: Callable[[Path], Offer] = look,
    ) -> None:
        self._directory = directory
        self._load = load
        self._look = look
        self._poll_interval_s = poll_interval_s
        self._clock = clock
        self._log = log
        self.requests = 0
        self._forced = False
        self._event_at: float | None = None
        self._next_poll = clock.monotonic() + poll_interval_s
        self._handled: tuple[object, ...] = ()
        self._unverified = False  # what was handled last, for want of a thread
        self._errands = Errands("bundle-look")
        self._looker: _Looker | None = None  # of a directory that has not answered yet
        self._worker: threading.Thread | None = None
        self._result: Candidate | BundleError | None = None
        self._watch = _Watch(directory, self._on_event, log)

    def start(self) -> None:
        """Watch the directory, as soon as it exists; one that does not answer is watched when it does."""
        if self._looker is None:
            self._watch.renew()

    def stop(self) -> None:
        """Stop watching for good. A verification or a look that still runs is left to end by itself."""
        self._watch.end()
        self._errands.end()

    def load_now(self) -> Candidate | BundleError | None:
        """The bundle on offer, verified on this thread: for the start, when no tick can be late.

        A directory that does not answer is an error after a while, and looked at on.
        """
        looker = self._looker_for(forced=False)
        if not looker.wait(START_PATIENCE_S):
            self._looker = looker
            return self._no_answer(looker)
        offer = looker.answer()
        self._handled = offer.fingerprint
        if offer.path is None:
            return offer.error
        return self._try(offer.path)

    @property
    def busy(self) -> bool:
        """Whether something asked for has not come to its end."""
        return self._forced or self._worker is not None or self._looker is not None

    def request(self) -> None:
        """Look again, and load what is there even if it is nothing new. Safe in a signal handler."""
        self._forced = True
        self.requests += 1
        self._clock.wake()

    def next_check(self) -> float:
        """When `poll` wants to be called next, in monotonic seconds."""
        if self._worker is not None:
            return self._clock.monotonic() + self._poll_interval_s  # its end wakes the loop
        if self._looker is not None:
            now = self._clock.monotonic()
            if self._looker.over:
                return now
            return now + self._poll_interval_s if self._looker.told else max(self._next_poll, now)
        if self._forced:
            return self._clock.monotonic()
        if self._event_at is not None:
            return min(self._event_at + SETTLE_S, self._next_poll)
        return self._next_poll

    def poll(self) -> Candidate | BundleError | None:
        """Do what is due; waits PATIENCE_S at most.

        Returns a bundle that is ready, or why one was refused, or None.
        """
        if self._worker is not None:
            if self._result is None:
                return None
            result, self._result, self._worker = self._result, None, None
            return result
        if self._looker is not None and not self._looker.over:
            return self._unanswered()
        if self._looker is None and self.next_check() > self._clock.monotonic():
            return None
        if self._looker is None:
            forced, self._forced, self._event_at = self._forced, False, None
            self._next_poll = self._clock.monotonic() + self._poll_interval_s
            self._looker = self._looker_for(forced=forced)
            if not self._looker.wait(PATIENCE_S):
                return None
        looker, self._looker = self._looker, None
        offer, forced = looker.answer(), looker.forced
        again = offer.fingerprint == self._handled and not forced
        if again and not self._unverified:
            return None
        had_one, self._handled = bool(self._handled), offer.fingerprint
        self._unverified = False
        if offer.path is not None:
            refused = self._verify(offer.path)
            return None if again else refused  # each offer is refused once, however often it is tried
        if offer.error is None and (had_one or forced):
            return BundleError(
                "missing", f"{self._directory} holds no bundle", "publish one, or correct bundle.directory"
            )
        return offer.error

    def _unanswered(self) -> BundleError | None:
        """What to say of a directory that does not answer, once, when the next look would be due."""
        if self._looker is None or self._looker.told or self._clock.monotonic() < self._next_poll:
            return None
        return self._no_answer(self._looker)

    def _looker_for(self, *, forced: bool) -> _Looker:
        looker = _Looker(self._watch, self._look, self._directory, self._clock, forced=forced)
        if not self._errands.give(looker.run):
            looker.run()
        return looker

    def _no_answer(self, looker: _Looker) -> BundleError:
        looker.told = True
        self._handled = ("error", "io", "no answer")  # what it offers then is new, though it be the same
        return BundleError(
            "io",
            f"{self._directory} does not answer",
            "is it on a network file system whose server is gone? The bundle in use stays in use",
        )

    def _verify(self, path: Path) -> BundleError | None:
        """Begin to verify beside the loop. Without a thread it is refused, and due at the next poll."""
        self._result = None
        worker = threading.Thread(target=self._work, args=(path,), name="bundle-verifier", daemon=True)
        if started(worker):
            self._worker = worker
            return None
        self._unverified = True
        return BundleError("io", f"{NO_THREAD} to verify {path}", NO_THREAD_HINT)

    def _work(self, path: Path) -> None:
        self._result = self._try(path)
        self._clock.wake()

    def _try(self, path: Path) -> Candidate | BundleError:
        try:
            return self._load(path)
        except BundleError as error:
            return error
        except Exception as error:  # noqa: BLE001  # no bundle may stop the agent, whatever it provokes
            self._log.exception("bundle verification failed unexpectedly", path=str(path))
            return BundleError("model", f"{path} made the verification fail: {error!r}", "report this bundle")

    def _on_event(self) -> None:
        self._event_at = self._clock.monotonic()
        self._clock.wake()


class _Looker:
    """One look at the directory, beside the loop; on the loop's thread where no other is to be had."""

    def __init__(
        self,
        watch: _Watch,
        look: Callable[[Path], Offer],
        directory: Path,
        clock: Clock,
        *,
        forced: bool,
    ) -> None:
        self.forced = forced
        self.told = False
        self._offer = Offer(None, None, ())
        self._failed: Exception | None = None
        self._watch, self._look, self._directory, self._clock = watch, look, directory, clock
        self._awaited = True
        self._over = threading.Event()

    @property
    def over(self) -> bool:
        """Whether the directory has answered."""
        return self._over.is_set()

    def answer(self) -> Offer:
        """What was found, once it is over. Raises what the look raised."""
        if self._failed is not None:
            raise self._failed
        return self._offer

    def wait(self, seconds: float) -> bool:
        """Wait for the answer; without one in this time the loop is woken when it comes."""
        if self._over.wait(seconds):
            return True
        self._awaited = False
        return self.over  # it may have come just now, and then nobody is woken

    def run(self) -> None:
        """Look, and remember what was found or raised."""
        try:
            self._watch.renew()
            self._offer = self._look(self._directory)
        except Exception as error:  # noqa: BLE001  # it is raised where the loop takes the answer
            self._failed = error
        self._over.set()
        if not self._awaited:
            self._clock.wake()


class _Watch:
    """Events for a directory that may appear, vanish and be replaced; without them the poll remains."""

    def __init__(self, directory: Path, notify: Callable[[], None], log: Log) -> None:
        self._directory = directory
        self._notify = notify
        self._log = log
        self._observer: Any = None  # watchdog's Observer is chosen per platform and has no static type
        self._identity: tuple[int, int] | None = None
        self._complained = False
        self._over = False

    def renew(self) -> None:
        """Watch what the path means now, if it is not what is watched already."""
        if self._over:
            return
        try:
            status = self._directory.stat()
        except OSError:
            self.stop()
            return
        identity = (status.st_dev, status.st_ino)
        if identity == self._identity:
            return
        self.stop()
        try:
            self._observer = _observer(self._directory, _Handler(self._notify))
            self._identity = identity
        except OSError as error:
            self._complain(str(error))
        except RuntimeError:
            # Not tried again in this directory: each watch that lacks a thread leaves descriptors behind.
            self._identity = identity
            self._complain(NO_THREAD)

    def end(self) -> None:
        """Stop watching, whatever a look that comes back wants."""
        self._over = True
        self.stop()

    def stop(self) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
        self._observer, self._identity = None, None

    def _complain(self, error: str) -> None:
        if not self._complained:
            self._log.warning("bundle directory is only polled", path=str(self._directory), error=error)
            self._complained = True


def _observer(directory: Path, handler: FileSystemEventHandler) -> Any:
    """A watch that runs, or nothing of it. Raises OSError, and RuntimeError where a thread is refused."""
    observer = Observer()
    observer.daemon = True
    try:
        observer.schedule(handler, str(directory), recursive=False)
        observer.start()
    except BaseException:
        observer.stop()  # it may have threads of its own already, and would leave them behind at each try
        raise
    return observer


class _Handler(FileSystemEventHandler):
    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _OWN_READS:
            self._notify()
