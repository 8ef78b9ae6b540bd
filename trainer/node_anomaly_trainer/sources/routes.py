"""The two ways to the same numbers: asking the server to evaluate a query, or evaluating raw samples here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.sources.matchers import joined, one_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi, Series
from node_anomaly_trainer.sources.wanted import Span, Wanted

Floats = NDArray[np.float64]

POINTS_AT_ONCE = 150_000
"""Points of one answer of the query API, all instances together: its JSON takes some hundred bytes each."""

SHORTEST_PIECE_TICKS = 240
"""Each piece also reads a look-back of five minutes, so pieces much shorter than an hour waste work."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one call reads: these features over these ticks; `instances` is empty for all that match."""

    wanted: tuple[Wanted, ...]
    span: Span
    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Per feature instance -> (t,), NaN where missing; and how many samples crossed the wire."""

    columns: tuple[Mapping[str, Floats], ...]
    samples: int


class Route(Protocol):
    """A way to read features; usable by several threads at once."""

    name: str

    def rules(self, wanted: Wanted) -> str:
        """By whose rules a feature's numbers are made, where that is not the server; "" where it is."""

    def tasks(self, wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> Iterator[Task]:
        """The work cut into bounded calls; `instances` are those expected, for their number."""

    def read(self, task: Task) -> Answer:
        """One call. Raises SourceError."""


class PerThread:
    """A connection for each thread that asks."""

    def __init__(self, open_api: Callable[[], PrometheusApi]) -> None:
        self._open = open_api
        self._local = threading.local()
        self._opened: list[PrometheusApi] = []

    def __call__(self) -> PrometheusApi:
        """The connection of this thread."""
        if not hasattr(self._local, "api"):
            self._local.api = self._open()
            self._opened.append(self._local.api)
        api: PrometheusApi = self._local.api
        return api

    def close(self) -> None:
        """Close all of them; one that is still asking ends by itself."""
        for api in self._opened:
            api.connection.session.close()


def chunk_ranges(ticks: int, limit: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover 0..ticks once, of nearly equal size and at most `limit` each.

    The API's ranges include both ends, so the last point of a chunk is asked for as `stop - 1` and no sample
    is read twice.
    """
    count = -(-ticks // limit)
    for at in range(count):
        yield at * ticks // count, (at + 1) * ticks // count


class ApiRoute:
    """Range queries: the server evaluates each feature. Works with everything that speaks the API."""

    name = "api"

    def __init__(self, api: Callable[[], PrometheusApi], matchers: str, points_per_query: int) -> None:
        self._api, self._matchers, self._points = api, matchers, points_per_query

    def rules(self, wanted: Wanted) -> str:
        """The server's."""
        return ""

    def tasks(self, wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> Iterator[Task]:
        """One feature at a time, within the server's limit of points for a series."""
        limit = min(self._points, max(POINTS_AT_ONCE // max(len(instances), 1), SHORTEST_PIECE_TICKS))
        for one in wanted:
            for first, stop in chunk_ranges(span.ticks, limit):
                yield Task((one,), span.part(first, stop), tuple(instances))

    def read(self, task: Task) -> Answer:
        """One range query."""
        (wanted,) = task.wanted
        span = task.span
        chosen = str(one_of("instance", task.instances)) if task.instances else ""
        query = wanted.query(span.window_s, joined(self._matchers, chosen))
        column: dict[str, Floats] = {}
        samples = 0
        for series in self._api().query_range(query, span.start, span.end, span.step):
            instance = str(series["metric"].get("instance", ""))
            if not instance:
                raise SourceError(
                    f"{query} gives a series without the label instance",
                    "every node needs its own instance label",
                )
            if instance in column:
                raise SourceError(
                    f"{query} gives two series for instance {instance}",
                    "aggregate it: max by (instance) (...)",
                )
            times, values = _samples(series, query)
            at = np.rint((times - span.start) / span.step).astype(np.intp)
            inside = (at >= 0) & (at < span.ticks)
            column[instance] = np.full(span.ticks, np.nan)
            column[instance][at[inside]] = values[inside]
            samples += len(times)
        return Answer((column,), samples)


class SplitRoute:
    """Each feature on the route that was chosen for it."""

    def __init__(self, fast: Route, slow: Route, on_slow: frozenset[str]) -> None:
        """`on_slow` names the features that `slow` reads."""
        self.name = f"{fast.name}, {len(on_slow)} features by {slow.name}"
        self._fast, self._slow, self._on_slow = fast, slow, on_slow

    def rules(self, wanted: Wanted) -> str:
        """Those of the route that reads it."""
        return self._of(wanted).rules(wanted)

    def tasks(self, wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> Iterator[Task]:
        """The tasks of both."""
        yield from self._fast.tasks([one for one in wanted if not self._is_slow(one)], span, instances)
        yield from self._slow.tasks([one for one in wanted if self._is_slow(one)], span, instances)

    def read(self, task: Task) -> Answer:
        """By the route that made the task."""
        return self._of(task.wanted[0]).read(task)

    def _of(self, wanted: Wanted) -> Route:
        return self._slow if self._is_slow(wanted) else self._fast

    def _is_slow(self, wanted: Wanted) -> bool:
        return wanted.feature.name in self._on_slow


def _samples(series: Series, query: str) -> tuple[Floats, Floats]:
    """Times and values of one series; an infinite value (a division by zero) is missing."""
    try:
        pairs = series["values"]
        times = np.array([pair[0] for pair in pairs], dtype=np.float64)
        values = np.array([float(pair[1]) for pair in pairs], dtype=np.float64)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(
            f"{query}: the server's samples cannot be read ({error})", "is this Prometheus' HTTP API?"
        ) from error
    return times, np.where(np.isfinite(values), values, np.nan)
