"""Sockets that systemd has opened for us, by the protocol of sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from node_anomaly_agent.config_values import Address
from node_anomaly_core.errors import AnomalyError

FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivationError(AnomalyError):
    """What the service manager passed cannot be served on."""


def take_listener(
    environ: MutableMapping[str, str], wanted: bool | None, first: int = FIRST_FD
) -> socket.socket | None:
    """The listening TCP socket that was passed to this process, or None; the variables are taken away.

    Args:
        environ: the process's own environment.
        wanted: whether to take one; None takes it if there is one.
        first: the descriptor that counting begins at.

    Raises ActivationError: more than one was passed, or something that is no listening TCP socket, or none
    although one is wanted.
    """
    process, count, names = (environ.pop(variable, "") for variable in _VARIABLES)
    passed = int(count) if count.isascii() and count.isdigit() and process == str(os.getpid()) else 0
    if passed == 0 or wanted is False:
        if wanted:
            raise ActivationError(
                "web.systemd-socket: no socket was passed to this process",
                "start it by its socket unit (systemctl restart node-anomaly-agent.socket), "
                "or leave the setting out",
            )
        return None
    if passed > 1:
        shown = ", ".join(names.split(":")[:8]) or "unnamed"
        raise ActivationError(
            f"web.systemd-socket: {passed} sockets were passed ({shown}), and one is served",
            "give the socket unit one ListenStream=; [::]:9917 takes IPv4 too",
        )
    listener = _listener(first)
    if listener is None:
        raise ActivationError(
            f"web.systemd-socket: {names or 'the socket'} does not listen on TCP",
            "let the socket unit have ListenStream= with a port, and Accept=no",
        )
    return listener


def listens_elsewhere(listener: socket.socket, address: Address) -> bool:
    """Whether the socket that was passed is not at the configured address: who set that must be told."""
    host, port = listener.getsockname()[:2]
    everywhere = address.host in ("", "::", "0.0.0.0")  # noqa: S104  # compared with, not listened on
    return port != address.port or (not everywhere and host != address.host)


def _listener(descriptor: int) -> socket.socket | None:
    """The socket of a descriptor, if it listens on TCP."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return None
    tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
    if not (tcp and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        found.detach()
        return None
    found.set_inheritable(False)
    return found
