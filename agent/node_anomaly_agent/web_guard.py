"""Keeps the file of `--web.config.file` in force: re-read when it, or a file that it names, has changed.

The last good version stays in force when a new one is wrong: an agent that opened up, or shut down, for a
typing error would help nobody. The metrics say so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node_anomaly_agent.config import read_yaml
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.web_answer import Answer, Request
from node_anomaly_agent.web_auth import Users
from node_anomaly_agent.web_config import WebSettings, parse_web_settings
from node_anomaly_agent.web_status import WebStatus
from node_anomaly_core.errors import ConfigError

if TYPE_CHECKING:
    import ssl

LOOK_S = 1.0
"""Between two looks at the files."""

Fingerprint = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class InForce:
    """One good version of the file, ready to use."""

    settings: WebSettings
    tls: ssl.SSLContext | None
    users: Users | None


def load_in_force(path: Path) -> InForce:
    """Read the file and everything that it names. Raises ConfigError."""
    settings = parse_web_settings(read_yaml(path, "web.config.file"), path)
    context = None
    if settings.tls is not None:
        from node_anomaly_agent.web_tls import make_context  # OpenSSL is 4 MiB; only who has TLS pays

        try:
            context = make_context(settings.tls)
        except ConfigError as error:
            raise ConfigError(f"web.config.file {path}: {error.message}", error.hint) from None
    return InForce(settings, context, Users(settings.users) if settings.users else None)


def named_files(path: Path) -> tuple[Path, ...]:
    """What the file names besides, as far as it can be read."""
    try:
        return tuple(parse_web_settings(read_yaml(path, "web.config.file"), path).files)
    except ConfigError:
        return ()


class WebGuard:
    """Who may connect, and who may ask. Any thread.

    Raises ConfigError, when it is made, for a file that is wrong.
    """

    def __init__(self, path: Path, log: Log, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._log = log
        self._monotonic = monotonic
        self._looked = monotonic()
        self._lock = threading.Lock()
        self._in_force = load_in_force(path)
        self._named = self._in_force.settings.files
        self._seen = self._fingerprint()
        self.status = WebStatus(configured=True)

    def refuse(self, request: Request) -> Answer | None:
        """Why a request is not answered, or None if it is."""
        users = self.current().users
        return None if users is None else users.refuse(request.header("AUTHORIZATION"))

    def tls(self) -> tuple[ssl.SSLContext | None, frozenset[str]]:
        """The context of a new connection, None for plain HTTP, and the names that its client may have."""
        found = self.current()
        return found.tls, frozenset() if found.settings.tls is None else found.settings.tls.client_sans

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """To be sent with every answer."""
        return self._in_force.settings.headers

    def current(self) -> InForce:
        """The version in force, after a look at the files if there has been none for a second."""
        now = self._monotonic()
        if now - self._looked >= LOOK_S and self._lock.acquire(blocking=False):
            try:
                self._looked = now
                self._look()
            finally:
                self._lock.release()
        return self._in_force

    def _look(self) -> None:
        if self._fingerprint() == self._seen:
            return
        # Of a version that is refused its files are watched, too: one of them may be about to appear.
        self._named = tuple(dict.fromkeys((*self._in_force.settings.files, *named_files(self._path))))
        self._seen = self._fingerprint()
        try:
            self._in_force = load_in_force(self._path)
        except ConfigError as error:
            self.status = WebStatus(configured=True, successful=False, failures=self.status.failures + 1)
            self._log.error("web config refused, the last stays", error=error.message, hint=error.hint)
            return
        self._named = self._in_force.settings.files
        self._seen = self._fingerprint()
        self.status = WebStatus(configured=True, failures=self.status.failures)
        self._log.info("web config loaded", path=str(self._path))

    def _fingerprint(self) -> Fingerprint:
        found = []
        for path in (self._path, *self._named):
            try:
                status = path.stat()
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)
