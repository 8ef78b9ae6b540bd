"""Episodes on disk: one JSON file each, whole or not at all, the oldest of too many removed.

Writing happens on a thread: a sick disk may block for minutes, a tick may not. A file that cannot be written
or read is counted, and the agent goes on without it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from node_anomaly_agent.bounded_file import read_bounded
from node_anomaly_agent.episode import ID_PATTERN, MAX_EPISODE_BYTES, Episode, EpisodeError, decode, encode
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.threads import NO_THREAD, NO_THREAD_HINT, started
from node_anomaly_agent.whole_file import write_whole

EPISODES = "episodes"
"""The directory, within the state directory."""

MOST_WAITING = 4
"""Episodes that wait for a disk that does not answer; the oldest of more goes unwritten."""

STOP_PATIENCE_S = 0.5

_SUFFIX = ".json"


def episode_files(directory: Path) -> list[Path]:
    """Its files, oldest first; none if there is no such directory. Raises EpisodeError."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise EpisodeError(f"{directory} cannot be read: {error.strerror}", "check its owner") from error
    found = [name for name in names if name.endswith(_SUFFIX) and ID_PATTERN.fullmatch(name[: -len(_SUFFIX)])]
    return [directory / name for name in sorted(found)]


def read_episode(path: Path) -> Episode:
    """One file. Raises EpisodeError: unreadable, too large, damaged, or of another version."""
    return parse_episode(path, episode_content(path))


def episode_content(path: Path) -> bytes:
    """What is in one file, of at most MAX_EPISODE_BYTES. Raises EpisodeError."""
    try:
        content = read_bounded(path, MAX_EPISODE_BYTES)
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read: {error.strerror}", "check its owner") from error
    if len(content) > MAX_EPISODE_BYTES:
        raise EpisodeError(f"{path} is larger than {MAX_EPISODE_BYTES >> 20} MiB", "remove it")
    return content


def parse_episode(path: Path, content: bytes) -> Episode:
    """What the content of the file at `path` says. Raises EpisodeError: damaged, or of another version."""
    try:
        episode = decode(content)
    except EpisodeError as error:
        raise EpisodeError(f"{path} is of no use: {error.message}", "remove it") from error
    if path.name != episode.id + _SUFFIX:
        raise EpisodeError(f"{path} holds episode {episode.id}", "rename or remove it")
    return episode


def read_episodes(directory: Path, most: int) -> tuple[list[Episode], list[EpisodeError]]:
    """The latest `most` that can be read, oldest first, and why the others among them cannot."""
    found: list[Episode] = []
    errors: list[EpisodeError] = []
    for path in episode_files(directory)[-most:]:
        try:
            found.append(read_episode(path))
        except EpisodeError as error:
            errors.append(error)
    return found, errors


def write_episode(directory: Path, name: str, content: bytes) -> None:
    """Put a file in place, whole or not at all. Raises EpisodeError when the disk refuses."""
    path = directory / (name + _SUFFIX)
    try:
        write_whole(path, content, 0o640)  # names of processes are for the operators' group
    except OSError as error:
        raise EpisodeError(
            f"{path} cannot be written: {error.strerror}", "free space or correct state.directory"
        ) from error


def prune(directory: Path, max_count: int, max_bytes: int) -> None:
    """Remove what a killed agent left half written, and the oldest beyond the limits; keeps the latest."""
    with suppress(OSError):
        for staging in directory.glob(".*T*Z.*"):
            staging.unlink(missing_ok=True)
    files = episode_files(directory)
    sizes: list[int] = []
    for path in files:
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            sizes.append(0)
    total = sum(sizes)
    for at, path in enumerate(files[:-1]):
        if len(files) - at <= max_count and total <= max_bytes:
            break
        with suppress(OSError):
            path.unlink(missing_ok=True)
        total -= sizes[at]


class EpisodeStore:
    """Keeps episodes. The loop's thread alone.

    Args:
        directory: where, or None to keep none.
        max_count: files that are kept.
        max_bytes: what they may take together.
        log: told once of each row of failures.
    """

    def __init__(self, directory: Path | None, max_count: int, max_bytes: int, log: Log) -> None:
        self._directory = directory
        self._limits = (max_count, max_bytes)
        self._log = log
        self._waiting: dict[str, Episode] = {}
        self._writer: threading.Thread | None = None
        self._error: EpisodeError | None = None
        self._failing = False
        self.failures: Mapping[str, int] = {"load": 0, "write": 0}

    def load(self, most: int) -> list[Episode]:
        """The latest episodes, oldest first; what is damaged is counted and left where it is."""
        if self._directory is None:
            return []
        try:
            found, errors = read_episodes(self._directory, most)
        except EpisodeError as error:
            found, errors = [], [error]
        for one in errors:
            self._count("load")
            self._log.warning("episode is not loaded", error=one.message, hint=one.hint)
        return found

    def put(self, episode: Episode) -> None:
        """Have an episode written, soon and in place of what was there of it."""
        if self._directory is None:
            return
        self._waiting.pop(episode.id, None)
        self._waiting[episode.id] = episode
        while len(self._waiting) > MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
            self._count("write")
        self.work()

    def work(self) -> None:
        """Take note of what was written, and begin to write what waits. Costs nothing when idle."""
        self._work(last=False)

    def finish(self) -> None:
        """Write what waits, and wait for it, but not for long."""
        for _ in range(MOST_WAITING + 1):
            self._work(last=True)
            if self._writer is not None:
                self._writer.join(STOP_PATIENCE_S)
                if self._writer.is_alive():
                    return
            elif not self._waiting:
                return

    def _work(self, *, last: bool) -> None:
        if self._writer is not None:
            if self._writer.is_alive():
                return
            self._writer = None
            self._settle()
        if self._waiting and self._directory is not None:
            self._begin(self._directory, next(iter(self._waiting.values())), last=last)

    def _begin(self, directory: Path, episode: Episode, *, last: bool) -> None:
        """Write one on a thread. Without one it waits for the next tick, or at the `last` is written here."""
        writer = threading.Thread(
            target=self._write, args=(directory, episode), name="episode-writer", daemon=True
        )
        if started(writer):
            self._writer = writer
        elif last:
            self._write(directory, episode)
            self._settle()
        else:
            self._error = EpisodeError(NO_THREAD, NO_THREAD_HINT)
            self._settle()
            return
        del self._waiting[episode.id]

    def _write(self, directory: Path, episode: Episode) -> None:
        try:
            write_episode(directory, episode.id, encode(episode))
            prune(directory, *self._limits)
        except EpisodeError as error:
            self._error = error

    def _settle(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            self._count("write")
            if not self._failing:
                self._log.warning("episode is not written", error=error.message, hint=error.hint)
        elif self._failing:
            self._log.info("episodes are written again")
        self._failing = error is not None

    def _count(self, operation: str) -> None:
        self.failures = {**self.failures, operation: self.failures[operation] + 1}
