"""Every endpoint, in one table. All but two only render the last snapshot.

A subject with an endpoint of its own adds a row to `endpoints` and keeps the rest in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from node_anomaly_agent import api
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import choose_format
from node_anomaly_agent.page import render_page
from node_anomaly_agent.site import Site
from node_anomaly_agent.snapshot import Snapshot
from node_anomaly_agent.web_answer import Answer, Request, json_answer, text_answer

STALLED_TICKS = 10
STALLED_FLOOR_S = 60.0
"""Liveness fails when the loop has not come round for this many intervals, and for at least this long."""

READ = ("GET", "HEAD")

_UNAVAILABLE = "503 Service Unavailable"
_PAGE_HEADERS = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path, the methods it takes, and what answers; `answer` may be called from several threads at once."""

    path: str
    methods: tuple[str, ...]
    answer: Callable[[Request], Answer]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where answers come from.

    Attributes:
        snapshot: gives the last one.
        site: the agent that answers.
        time: unix seconds, for ages.
        monotonic: the clock of the snapshot's heartbeat.
        reload: has the reloader look for a bundle; None where nobody may ask for it by HTTP.
        predict: answers a request for scores of given rows; None where there is no loop to ask.
    """

    snapshot: Callable[[], Snapshot]
    site: Site
    time: Callable[[], float]
    monotonic: Callable[[], float]
    reload: Callable[[], None] | None = None
    predict: Callable[[Request], Answer] | None = None


def endpoints(sources: Sources) -> tuple[Endpoint, ...]:
    """The table."""
    snapshot = Shown(sources.snapshot, sources.monotonic)
    sources = replace(sources, snapshot=snapshot)
    table = [
        Endpoint("/", READ, lambda _request: _status(sources)),
        Endpoint(sources.site.telemetry_path, READ, _Metrics(sources)),
        Endpoint("/-/healthy", READ, lambda _request: _healthy(sources)),
        Endpoint("/-/ready", READ, lambda _request: _ready(sources)),
        Endpoint("/-/reload", ("POST", "PUT"), lambda _request: _reload(sources)),
        Endpoint("/api/v1/score", READ, lambda _request: json_answer(api.score_document(snapshot()))),
        Endpoint("/api/v1/explain", READ, lambda _request: json_answer(api.explain_document(snapshot()))),
        Endpoint("/api/v1/episodes", READ, lambda _request: json_answer(api.episodes_document(snapshot()))),
    ]
    if sources.predict is not None:
        table.append(Endpoint("/api/v1/predict", ("POST",), sources.predict))
    return tuple(table)


class Shown:
    """The last snapshot, without its score where the loop has stood still since. Any thread.

    A score that is not renewed would pass for the present one, and page somebody for a node's past.
    """

    def __init__(self, last: Callable[[], Snapshot], monotonic: Callable[[], float]) -> None:
        self._last = last
        self._monotonic = monotonic
        self._stalled: tuple[Snapshot, Snapshot] | None = None  # as it was, and what is shown of it

    def __call__(self) -> Snapshot:
        """The same object until there is something else to show."""
        snapshot, stalled = self._last(), self._stalled
        if not _silence(snapshot, self._monotonic()):
            return snapshot
        if stalled is None or stalled[0] is not snapshot:
            silent = replace(snapshot, score=None, forecast=replace(snapshot.forecast, forecast=None))
            stalled = self._stalled = (snapshot, silent)
        return stalled[1]


def _silence(snapshot: Snapshot, now: float) -> float:
    """Seconds since the last tick where that is too long ago, else 0."""
    silent = now - snapshot.heartbeat
    return silent if silent > max(STALLED_TICKS * snapshot.interval_s, STALLED_FLOOR_S) else 0.0


def _status(sources: Sources) -> Answer:
    page = render_page(sources.snapshot(), sources.site, sources.time())
    body = page.encode(errors="replace")  # a node's name or a path may be no UTF-8
    return Answer("200 OK", "text/html; charset=utf-8", body, _PAGE_HEADERS)


class _Metrics:
    """Renders each snapshot once in each format, however many scrape it. Any thread."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._rendered: dict[str, tuple[Snapshot, bytes]] = {}

    def __call__(self, request: Request) -> Answer:
        content_type = choose_format(request.header("ACCEPT"))
        snapshot = self._sources.snapshot()
        rendered = self._rendered.get(content_type)
        # Two threads may both render; each leaves a whole entry behind, and nobody waits for anybody.
        if rendered is None or rendered[0] is not snapshot:
            text = expose(snapshot, self._sources.site.version, content_type)
            rendered = self._rendered[content_type] = (snapshot, text.encode(errors="replace"))
        return Answer("200 OK", content_type, rendered[1], (("Vary", "Accept, Accept-Encoding"),))


def _healthy(sources: Sources) -> Answer:
    if silent := _silence(sources.snapshot(), sources.monotonic()):
        return text_answer(f"stalled: no tick for {silent:.0f} s", _UNAVAILABLE)
    return text_answer("healthy")


def _ready(sources: Sources) -> Answer:
    reason = sources.snapshot().not_ready()
    return text_answer(f"not ready: {reason}", _UNAVAILABLE) if reason else text_answer("ready")


def _reload(sources: Sources) -> Answer:
    if sources.reload is None:
        return text_answer(
            "403: this is not enabled; start the agent with --web.enable-lifecycle, or send it SIGHUP",
            "403 Forbidden",
        )
    sources.reload()
    return text_answer(
        "looking for a bundle; anomaly_agent_bundle_last_reload_successful says what came of it"
    )
