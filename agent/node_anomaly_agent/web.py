"""HTTP as an exporter has it: a WSGI application that finds the endpoint for a request.

What is no endpoint is 404: a server that answers every path with metrics would let every probe pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from node_anomaly_agent.endpoints import Endpoint
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.web_answer import Answer, Request, encode, problem, text_answer
from node_anomaly_agent.web_guard import WebGuard

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Application:
    """Routes requests to endpoints.

    Args:
        endpoints: what there is.
        log: told of a page that raised, once in a row.
        guard: who may ask; everybody where there is none.
    """

    def __init__(self, endpoints: Sequence[Endpoint], log: Log, guard: WebGuard | None = None) -> None:
        self._guard = guard
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints}
        self._log = log
        self._failing: set[str] = set()

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as PEP 3333 has it."""
        request = Request(environ)
        guard = self._guard
        answer = (guard.refuse(request) if guard else None) or self._answer(request)
        body, headers = encode(answer, request.header("ACCEPT_ENCODING"))
        if guard is not None and guard.headers:
            given = {name for name, _ in guard.headers}
            headers = [one for one in headers if one[0] not in given] + list(guard.headers)
        start_response(answer.status, headers)
        return [] if request.method == "HEAD" else [body]

    def _answer(self, request: Request) -> Answer:
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            return _no_such(request)
        if request.method not in endpoint.methods:
            return _wrong_method(request, endpoint)
        try:
            answer = endpoint.answer(request)
        except Exception:  # noqa: BLE001  # a page that fails is an answer, not an outage
            if endpoint.path not in self._failing:
                self._failing.add(endpoint.path)
                self._log.exception("page failed", path=endpoint.path)
            return text_answer("500: this page failed; see the agent's log", "500 Internal Server Error")
        self._failing.discard(endpoint.path)
        return answer


def _no_such(request: Request) -> Answer:
    if request.path.startswith("/api/"):
        return problem(
            "404 Not Found",
            "there is no such endpoint",
            request.path[:200],
            "see docs/http.md for those there are",
        )
    return text_answer("404: there is no such page; the status page is at /", "404 Not Found")


def _wrong_method(request: Request, endpoint: Endpoint) -> Answer:
    allowed = ", ".join(endpoint.methods)
    headers = (("Allow", allowed),)
    if endpoint.path.startswith("/api/"):
        return problem(
            "405 Method Not Allowed",
            f"{request.method[:20]} is not for this",
            endpoint.path,
            f"use {allowed}",
            headers,
        )
    return text_answer(f"405: only {allowed}", "405 Method Not Allowed", headers)
