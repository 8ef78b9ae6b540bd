"""What the agent tells systemd, by the protocol of sd_notify(3): ready, reloading, alive, stopping.

Everything is derived from the published snapshot, between two waits of the loop. Without `NOTIFY_SOCKET`
in the environment all of it does nothing.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import time
from collections.abc import Mapping

from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.snapshot import Snapshot

SEND_PATIENCE_S = 0.5
"""A service manager that takes nothing for this long must not hold up a tick."""

WATCHDOG_TICKS = 10
"""The watchdog gives at least this many intervals, as liveness does: `WatchdogSec=` knows no interval."""

MAX_STATUS_CHARACTERS = 200


class NotifySocket:
    """A datagram socket of a service manager, by its path or (after `@`) its abstract name."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_PATIENCE_S)

    def send(self, *lines: str) -> None:
        """One message. Raises OSError if it could not be delivered."""
        self._socket.sendto("\n".join(lines).encode(), self._address)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


class ServiceManager:
    """Derives from each snapshot what there is to say. All methods belong to the loop's thread.

    Args:
        channel: where to say it, or None to say nothing.
        watchdog_s: within which time the service manager wants a sign of life, or None.
        interval_s: the tick.
        log: told once of each row of messages that could not be delivered.
    """

    def __init__(
        self, channel: NotifySocket | None, watchdog_s: float | None, interval_s: float, log: Log
    ) -> None:
        self._channel = channel
        self._watchdog_s = watchdog_s
        self._interval_s = interval_s
        self._log = log
        self._ready = False
        self._reloading = False
        self._requests = 0
        self._heartbeat: float | None = None
        self._failures = 0
        self._status = ""
        self._lost = False

    @classmethod
    def of(cls, environ: Mapping[str, str], interval_s: float, log: Log) -> ServiceManager:
        """As the environment has it: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            if address:
                log.warning("service manager is not told anything", reason="unknown kind of NOTIFY_SOCKET")
            return cls(None, None, interval_s, log)
        watchdog_s = _watchdog(environ)
        if watchdog_s is not None and not faulthandler.is_enabled():
            faulthandler.enable(sys.stderr)  # SIGABRT of the watchdog then leaves where the loop hung
        return cls(NotifySocket(address), watchdog_s, interval_s, log)

    def look(self, snapshot: Snapshot, requests: int, busy: bool) -> None:
        """Say what is new; called after a tick and whenever the loop has come round.

        Args:
            snapshot: the published one.
            requests: how many reloads have been asked for so far.
            busy: whether one of them has not come to its end.
        """
        if self._channel is None:
            return
        lines: list[str] = []
        if snapshot.heartbeat != self._heartbeat:  # only a tick changes it
            self._heartbeat = snapshot.heartbeat
            lines += self._after_tick(snapshot)
        if self._ready and requests != self._requests:
            self._requests = requests
            self._reloading = True
            # On its own: in one message with READY=1 the older news would be lost.
            self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        if self._reloading and not busy:
            self._reloading = False
            lines.append("READY=1")
        if lines and not self._say(*lines) and "READY=1" in lines:
            self._ready = False  # said again after the next tick, or the start or the reload would time out

    def stopping(self) -> None:
        """The end has begun."""
        if self._channel is not None:
            self._say("STOPPING=1", "STATUS=stopping")
            self._channel.close()
            self._channel = None

    def _after_tick(self, snapshot: Snapshot) -> list[str]:
        lines: list[str] = []
        if not self._ready:
            self._ready = True
            lines.append("READY=1")
            patience = WATCHDOG_TICKS * self._interval_s
            if self._watchdog_s is not None and self._watchdog_s < patience:
                lines.append(f"WATCHDOG_USEC={round(patience * 1e6)}")
        failures = sum(snapshot.counters.failures.values())
        succeeded, self._failures = failures == self._failures, failures
        if succeeded and self._watchdog_s is not None:
            lines.append("WATCHDOG=1")
        status = describe(snapshot, succeeded)
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        return lines

    def _say(self, *lines: str) -> bool:
        if self._channel is None:
            return True
        try:
            self._channel.send(*lines)
        except OSError as error:
            if not self._lost:
                self._lost = True
                self._log.warning("service manager cannot be told", error=str(error))
            return False
        self._lost = False
        return True


def describe(snapshot: Snapshot, succeeded: bool) -> str:
    """One line for `systemctl status`."""
    reason = snapshot.not_ready()
    if not succeeded:
        text = "the last evaluation failed, the log says why"
    elif reason:
        text = reason
    elif not snapshot.warm or snapshot.score is None:
        text = f"warming up, {snapshot.warmup_done} of {snapshot.warmup_ticks} ticks"
    else:
        text = f"score {snapshot.score.score:.1f}, 1 is the alarm threshold"
    if snapshot.bundle is not None:
        text += f"; bundle {snapshot.bundle.version} ({snapshot.bundle.origin})"
    return " ".join(text.split())[:MAX_STATUS_CHARACTERS]


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """The watchdog's period in seconds, if there is one and it is meant for this process."""
    period, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (period.isascii() and period.isdigit()) or int(period) == 0:
        return None
    if process and process != str(os.getpid()):
        return None
    return int(period) / 1e6
