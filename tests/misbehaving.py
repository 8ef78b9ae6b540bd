"""A tiny HTTP server that plays a Prometheus with one node, or one that misbehaves."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

STEP = 15
METRICS = ("node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes")


class Misbehaving:
    """`respond(handler, number)` answers the request of that number; what was asked is kept."""

    def __init__(self, respond, context=None):
        self.requests: list[dict[str, list[str]]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            body = b""

            def do_GET(self):
                outer.requests.append(parse_qs(urlsplit(self.path).query))
                outer.paths.append(urlsplit(self.path).path)
                outer.headers.append(dict(self.headers))
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    respond(self, len(outer.requests))

            def do_POST(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.do_GET()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            # A handshake that is refused is what some tests are about, not something to print.
            self._server.handle_error = lambda *_: None
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def answer(handler, status=200, body="", kind="application/json", **headers):
    data = body if isinstance(body, bytes) else body.encode()
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    for name, value in {"Content_Length": str(len(data)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def always(status=200, body="", kind="application/json"):
    return lambda handler, _number: answer(handler, status, body, kind)


def data(value):
    return json.dumps({"status": "success", "data": value})


def result(*series):
    return data({"resultType": "matrix", "result": list(series)})


def surveyed(handler):
    """Answer what a survey asks, as a server with one node would; False if it is another question."""
    parts = urlsplit(handler.path)
    query = parse_qs(parts.query).get("query", [""])[0]
    if parts.path.endswith("/label/__name__/values"):
        answer(handler, body=data(list(METRICS)))
    elif "/label/" in parts.path:
        answer(handler, body=data(["a"]))
    elif parts.path.endswith("/query"):
        answer(handler, body=result({"metric": {}, "value": [0, str(time.time())]}))
    elif query.startswith("count"):
        answer(handler, body=result())
    else:
        return False
    return True


def then(respond):
    """A server that can be surveyed, and answers all else by `respond`."""
    return lambda handler, number: surveyed(handler) or respond(handler, number)


GOOD = result({"metric": {"instance": "a"}, "values": [[STEP * 10, "0.5"], [STEP * 11, "0.25"]]})
good = then(always(body=GOOD))


def hang(handler, number):
    time.sleep(3.0)


def half(handler, number):
    answer(handler, body='{"status": "success", "da', Content_Length="5000")
    handler.wfile.flush()
    handler.connection.close()
