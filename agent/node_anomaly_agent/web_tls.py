"""TLS below the pages: a context from the settings, and a connection whose handshake waits for nobody."""

from __future__ import annotations

import ssl
import time
from typing import Any

from node_anomaly_agent.web_config import TlsSettings
from node_anomaly_agent.web_server import REQUEST_S, Channel
from node_anomaly_core.errors import ConfigError

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """A server's context. Raises ConfigError for a file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.maximum_version = _VERSIONS[settings.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if settings.prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    if settings.ciphers:
        context.set_ciphers(":".join(settings.ciphers))
    # A key with a pass phrase would be asked for on the terminal; nobody may sit there.
    _load(
        "cert_file and key_file",
        lambda: context.load_cert_chain(settings.cert_file, settings.key_file, ""),
    )
    context.verify_mode = _CLIENT_AUTH[settings.client_auth]
    if settings.client_ca_file is not None:
        _load("client_ca_file", lambda: context.load_verify_locations(settings.client_ca_file))
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(key: str, load: Any) -> None:
    try:
        load()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        what = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"tls_server_config: {key} cannot be used: {what}",
            "both must be PEM, belong together, have no pass phrase, and be readable by this user",
        ) from None


class TlsChannel(Channel):
    """One connection with TLS. All of it happens when the client is ready, and under waitress' lock."""

    def __init__(
        self,
        context: ssl.SSLContext,
        sans: frozenset[str],
        server: Any,
        sock: Any,
        *others: Any,
        **options: Any,
    ) -> None:
        sock.setblocking(False)  # the standard library's own name for it
        wrapped = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._sans = sans
        self._greeted = False
        self._wants_write = False
        super().__init__(server, wrapped, *others, **options)
        self.begun = time.monotonic()  # the handshake has a request's time

    def readable(self) -> bool:
        """Whether there may be something to read for us."""
        return not self.will_close if not self._greeted else bool(super().readable())

    def writable(self) -> bool:
        """Whether there is something to write."""
        return self._wants_write or self.will_close or (self._greeted and bool(super().writable()))

    def late(self, now: float) -> bool:
        """As of any connection, but a handshake that is not done has no idle time."""
        return super().late(now) if self._greeted else now - self.begun > REQUEST_S

    def handle_write(self) -> None:
        """Go on with the handshake, or send what is left of an answer."""
        if self._greeted or self.will_close:
            super().handle_write()
        else:
            self._greet()

    def handle_read(self) -> None:
        """Go on with the handshake, or take in all that has been decrypted."""
        if not self._greeted and not self._greet():
            return
        while self.connected:
            try:
                with self.outbuf_lock:  # OpenSSL's object is not to be used by two threads at once
                    data = self.socket.recv(self.adj.recv_bytes)
                    more = self.socket.pending()
            except _WAITING:
                return
            except OSError:
                data, more = b"", 0
            if not data:
                self.handle_close()
                return
            self.last_activity = time.time()
            self.received(data)
            if not more:
                return

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send what fits; 0 if nothing does now."""
        try:
            return int(self.socket.send(data))
        except _WAITING:
            return 0
        except OSError:
            if do_close:
                self.handle_close()
            return 0

    def _greet(self) -> bool:
        """A step of the handshake; whether it is done."""
        self._wants_write = False
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLWantWriteError:
            self._wants_write = True
            return False
        except (OSError, ValueError):
            self.handle_close()
            return False
        if self._sans and self._sans.isdisjoint(_names(self.socket.getpeercert())):
            self.handle_close()
            return False
        self._greeted = True
        return True


def _names(certificate: Any) -> set[str]:
    """The subject alternative names of a verified certificate."""
    return {str(value) for _, value in (certificate or {}).get("subjectAltName", ())}
