"""A static file server as bundles are published on, over TLS or not, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from node_anomaly_core.archive import archive_bundle
from node_anomaly_core.channel import Channel
from node_anomaly_core.signing import PrivateKey, sign, with_earlier

TLS = Path(__file__).parent / "fixtures" / "tls"


@dataclass
class Seen:
    """One request."""

    path: str
    status: int
    headers: dict[str, str]


@dataclass
class BundleServer:
    """Serves `files` by their path; `hooks` answer in place of a file."""

    files: dict[str, bytes] = field(default_factory=dict)
    hooks: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    tls: bool = False
    client_certificate: bool = False
    url: str = ""
    port: int = 0

    def start(self) -> BundleServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.answer(self)

            def do_CONNECT(self) -> None:
                owner.tunnel(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS / "server.pem")
            if self.client_certificate:
                context.load_verify_locations(TLS / "ca.pem")
                context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self._server.server_address[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def statuses(self, path: str = "") -> list[int]:
        return [one.status for one in self.seen if path in one.path]

    def answer(self, request: Any) -> None:
        path = request.path.partition("?")[0].lstrip("/")
        hook = self.hooks.get(path) or self.hooks.get("*")
        if hook is not None:
            self._saw(request, 0)
            hook(request)
            return
        body = self.files.get(path)
        if body is None:
            self.send(request, 404, b"no such file")
            return
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            self.send(request, 304, b"", ETag=etag)
            return
        span = request.headers.get("Range", "")
        if span.startswith("bytes=") and span.endswith("-"):
            start = int(span[6:-1])
            where = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send(request, 206, body[start:], **{"Content-Range": where})
            return
        self.send(request, 200, body, ETag=etag)

    def send(self, request: Any, status: int, body: bytes, **headers: str) -> None:
        if not request.headers.get("X-Hooked"):
            self._saw(request, status)
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        if status != 304:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _saw(self, request: Any, status: int) -> None:
        self.seen.append(Seen(request.path, status, dict(request.headers)))

    def tunnel(self, request: Any) -> None:
        """Be a proxy for HTTPS."""
        self._saw(request, 200)
        host, _, port = request.path.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            request.send_response(200)
            request.end_headers()
            near = request.connection
            copies = [
                threading.Thread(target=_copy, args=pair, daemon=True) for pair in ((near, far), (far, near))
            ]
            for copy in copies:
                copy.start()
            for copy in copies:
                copy.join(5)
        request.close_connection = True

    def publish(
        self,
        bundle: Path,
        trained_at: float,
        *,
        channel: str = "stable",
        sequence: int = 1,
        keys: list[PrivateKey] | None = None,
        **changes: Any,
    ) -> Channel:
        """Put a bundle's archive and a channel's document in place, as a publisher does."""
        archive = archive_bundle(bundle)
        document = Channel(
            channel=channel,
            sequence=sequence,
            published_at=time.time(),
            version=bundle.name,
            trained_at=trained_at,
            archive=f"archives/{bundle.name}.tar",
            archive_size=len(archive),
            archive_sha256=hashlib.sha256(archive).hexdigest(),
            **changes,
        )
        self.files[document.archive] = archive
        content = document.to_bytes()
        if keys:
            name = f"{channel}/current.json.sig"
            self.files[name] = with_earlier(sign(content, keys), self.files.get(name, b""))
        self.files[f"{channel}/current.json"] = content
        return document


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
