"""One GET at a time, from a server that may be slow, hostile or broken.

Every answer has a limit in bytes and in seconds; a redirect may only lead to the same host by HTTPS; what a
server says is never logged. urllib.request underneath: it knows proxies (HTTPS_PROXY, NO_PROXY) and TLS,
and it is the standard library's, so an agent that fetches pays 1 MiB for it and one that does not pays
nothing.
"""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlsplit

from node_anomaly_agent.bounded_file import read_bounded
from node_anomaly_agent.fetch_errors import FetchError

SOCKET_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
DOWNLOAD_TIMEOUT_S = 900.0
MAX_RETRY_AFTER_S = 86400.0
MAX_TOKEN_BYTES = 8192
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """A small answer, whole: `status` is 200 or 304."""

    status: int
    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None
    agent: str = "anomaly-agent"


class Client:
    """Gets things from one host. Belongs to one thread."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._opener: urllib.request.OpenerDirector | None = None
        self._made_for: tuple[object, ...] = ()
        self._sockets: list[socket.socket] = []

    def get(self, url: str, limit: int, etag: str = "") -> Answer:
        """A small document of at most `limit` bytes. Raises FetchError."""
        headers = {"If-None-Match": etag} if etag else {}
        with self._open(url, headers, ANSWER_TIMEOUT_S) as response:
            if response.status == 304:
                return Answer(304, b"", etag)
            body = response.read(limit + 1)
            if len(body) > limit:
                raise FetchError("size", f"{url} is larger than {limit} bytes", "is the URL the right one?")
            promised = response.headers.get("Content-Length") or ""
            if promised.isdigit() and promised != str(len(body)):  # http.client does not mind
                raise FetchError("truncated", f"{url} ended after {len(body)} of {promised[:20]} bytes")
            return Answer(200, body, (response.headers.get("ETag") or "")[:256])

    def find(self, url: str, limit: int) -> bytes | None:
        """A small document, or None where there is none. Raises FetchError for all else."""
        try:
            return self.get(url, limit).body
        except FetchError as error:
            if error.reason == "not_found":
                return None
            raise

    def download(self, url: str, into: Path, size: int) -> None:
        """Exactly `size` bytes into a file, going on from what an earlier attempt left there.

        Raises FetchError; what has arrived by then stays for the next attempt.
        """
        start = _size_of(into)
        if start > size:
            into.unlink()
            start = 0
        if start == size:
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._open(url, headers, DOWNLOAD_TIMEOUT_S) as response:
            if response.status == 206:
                if not (response.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
                    raise FetchError("server", f"{url} answers with another range than was asked for")
            else:
                start = 0
            try:
                with into.open("ab" if start else "wb") as file:
                    while chunk := response.read(_CHUNK):
                        start += len(chunk)
                        if start > size:
                            raise FetchError("size", f"{url} is larger than the {size} bytes announced")
                        file.write(chunk)
            except OSError as error:
                if isinstance(error, TimeoutError | ssl.SSLError | ConnectionError):
                    raise
                raise FetchError(
                    "disk", f"{into} cannot be written: {error.strerror}", "free space"
                ) from error
        if start < size:
            raise FetchError(
                "truncated", f"{url} ended after {start} of {size} bytes", "it goes on from there"
            )

    @contextmanager
    def _open(self, url: str, headers: Mapping[str, str], deadline_s: float) -> Iterator[Any]:
        """An answer with status 200, 206 or 304, cut off after so many seconds."""
        request = urllib.request.Request(url, headers={**self._headers(), **headers})  # noqa: S310  # checked by the config
        cut = threading.Event()

        def cut_off() -> None:
            cut.set()
            for opened in list(self._sockets):
                with suppress(OSError):  # as a plain socket: TLS would want to say goodbye first
                    socket.socket.shutdown(opened, socket.SHUT_RDWR)

        timer = threading.Timer(deadline_s, cut_off)
        timer.daemon = True
        timer.start()
        try:
            with self._answer(request, url) as response:
                yield response
            if cut.is_set():
                raise FetchError("timeout", f"{url} took more than {deadline_s:g} s")
        except FetchError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            if cut.is_set():
                raise FetchError("timeout", f"{url} took more than {deadline_s:g} s") from error
            raise _explained(url, error) from error
        finally:
            timer.cancel()
            self._sockets.clear()

    def _answer(self, request: urllib.request.Request, url: str) -> Any:
        opener = self._current_opener()
        try:
            return opener.open(request, timeout=SOCKET_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 304:
                    return _NotModified(error)
                raise _status(url, error) from None

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": self._access.agent, "Accept-Encoding": "identity"}
        if self._access.token_file is not None:
            try:
                content = read_bounded(self._access.token_file, MAX_TOKEN_BYTES)[:MAX_TOKEN_BYTES]
                token = content.decode("ascii").strip()
            except (OSError, UnicodeDecodeError):
                token = ""
            if not token or not token.isprintable() or " " in token:
                raise FetchError(
                    "auth",
                    f"bundle.token-file: {self._access.token_file} does not hold a token",
                    "one line of printable ASCII that this user may read",
                )
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _current_opener(self) -> urllib.request.OpenerDirector:
        """Made again when a certificate, a key or a proxy has changed: they are renewed while agents run."""
        files = (self._access.ca_file, self._access.cert_file, self._access.key_file)
        proxies = urllib.request.getproxies()
        try:
            made_for = (*(path and path.stat().st_mtime_ns for path in files), tuple(sorted(proxies.items())))
            if self._opener is None or made_for != self._made_for:
                self._opener, self._made_for = _make_opener(self._access, proxies, self._sockets), made_for
        except (OSError, ssl.SSLError) as error:
            raise FetchError(
                "tls", f"bundle.tls-*: certificate or key cannot be used: {error}", "correct the files"
            ) from error
        return self._opener


class _NotModified:
    """A 304, which urllib takes for an error."""

    status = 304

    def __init__(self, error: urllib.error.HTTPError) -> None:
        self.headers = error.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to the same host by HTTPS (an http:// one of this machine may stay what it is)."""

    max_redirections = 3
    max_repeats = 2

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        try:
            same = after.hostname == before.hostname and after.port == before.port
        except ValueError:
            same = False
        if not same or after.scheme not in ("https", before.scheme) or after.username is not None:
            raise FetchError("redirect", f"{req.full_url} redirects to another place", "set bundle.url to it")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _make_opener(
    access: Access, proxies: dict[str, str], sockets: list[socket.socket]
) -> urllib.request.OpenerDirector:
    contexts: list[ssl.SSLContext] = []

    def context() -> ssl.SSLContext:
        """Made by the first request that needs it: reading the system's CAs costs 2 MiB."""
        if not contexts:
            contexts.append(_context(access))
        return contexts[0]

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Plain, req)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Secure, req, context=context())

    opener = urllib.request.OpenerDirector()  # not build_opener: that also speaks ftp, file and data
    for handler in (
        urllib.request.ProxyHandler(proxies),
        PlainHandler(),
        SecureHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _SameHost(),
    ):
        opener.add_handler(handler)
    return opener


def _context(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if access.ca_file is None else str(access.ca_file))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if access.cert_file is not None:
            key_file = None if access.key_file is None else str(access.key_file)
            context.load_cert_chain(str(access.cert_file), key_file)
    except (OSError, ssl.SSLError) as error:
        raise FetchError(
            "tls", f"bundle.tls-*: certificate or key cannot be used: {error}", "correct the files"
        ) from error
    return context


def _status(url: str, error: urllib.error.HTTPError) -> FetchError:
    code = error.code
    reason = {401: "auth", 403: "auth", 404: "not_found", 410: "not_found"}.get(code, "server")
    if 300 <= code < 400:
        reason = "redirect"
    hint = {
        "auth": "check bundle.token-file and the client certificate",
        "not_found": "check bundle.url and bundle.channel",
    }.get(reason, "")
    return FetchError(reason, f"{url} answers with status {code}", hint, _retry_after(error.headers))


def _retry_after(headers: Any) -> float:
    """Seconds, from a number or a date; 0 for none and for nonsense."""
    text = str((headers.get("Retry-After") if headers is not None else None) or "")[:64].strip()
    seconds = 0.0
    if text.isascii() and text.isdigit():
        seconds = float(text)
    elif text:
        with suppress(TypeError, ValueError, IndexError, OverflowError):
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _explained(url: str, error: Exception) -> FetchError:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchError(
            "tls", f"{url}: {cause.verify_message}", "set bundle.tls-ca-file to the CA of that server"
        )
    if isinstance(cause, TimeoutError):
        return FetchError("timeout", f"{url} does not answer within {SOCKET_TIMEOUT_S:g} s")
    if isinstance(cause, http.client.IncompleteRead | ConnectionResetError | BrokenPipeError):
        return FetchError("truncated", f"{url}: the connection broke")
    if isinstance(cause, ssl.SSLError):
        return FetchError("tls", f"{url}: {cause.reason or 'TLS failed'}", "is it HTTPS, and which version?")
    if isinstance(cause, http.client.HTTPException | ValueError):
        return FetchError("server", f"{url} does not answer as HTTP does ({type(cause).__name__})")
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else type(cause).__name__
    if isinstance(cause, OSError) and cause.errno == errno.EAFNOSUPPORT:
        return FetchError(
            "connect",
            f"{url} cannot be reached: this service may open no connection ({text})",
            "under systemd install the drop-in network.conf (docs/install-systemd.md)",
        )
    return FetchError(
        "connect", f"{url} cannot be reached: {text}", "check the name, the route and the proxy"
    )


def _size_of(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
