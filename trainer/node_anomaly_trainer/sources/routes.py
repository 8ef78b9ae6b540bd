"""The two ways to the same numbers: asking the server to evaluate a query, or evaluating raw samples here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Match, Selector
from node_anomaly_trainer.sources import remote_read
from node_anomaly_trainer.sources.evaluate_expression import Semantics, can_evaluate, evaluate
from node_anomaly_trainer.sources.matchers import joined, one_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi, Series
from node_anomaly_trainer.sources.raw_series import RawSeries
from node_anomaly_trainer.sources.wanted import Span, Wanted

Floats = NDArray[np.float64]

POINTS_AT_ONCE = 150_000
"""Points of one answer of the query API, all instances together: its JSON takes some hundred bytes each."""

SAMPLES_AT_ONCE = 600_000
"""Raw samples of one answer; some fifty bytes each while they are decoded and evaluated."""

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


class RemoteReadRoute:
    """Raw samples, evaluated here: several times faster, and the server has less to do."""

    name = "remote_read"

    def __init__(
        self,
        api: Callable[[], PrometheusApi],
        matchers: Sequence[Match],
        semantics: Semantics,
        series_per_instance: Mapping[str, float],
    ) -> None:
        """`series_per_instance`: metric -> how many series of it a node has, to bound each answer."""
        self._api, self._matchers, self._semantics = api, tuple(matchers), semantics
        self._series = series_per_instance

    def tasks(self, wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> Iterator[Task]:
        """Features that need the same metrics together, so that nothing is read twice."""
        for group in _groups(wanted):
            metrics = {leaf[0] for leaf in _reads(group)}
            series = sum(self._series.get(metric, 1.0) for metric in metrics) * max(len(instances), 1)
            limit = max(int(SAMPLES_AT_ONCE // series), SHORTEST_PIECE_TICKS)
            for first, stop in chunk_ranges(span.ticks, limit):
                yield Task(group, span.part(first, stop), tuple(instances))

    def read(self, task: Task) -> Answer:
        """One request for all metrics of the task, then every expression over what came back."""
        span = task.span
        before = max(self._semantics.lookback_ms, 1000 * span.window_s)
        reads = _reads(task.wanted)
        chosen = (one_of("instance", task.instances),) if task.instances else ()
        queries = [
            (Match("__name__", "=", metric), *self._matchers, *where, *chosen) for metric, where in reads
        ]
        grid = span.milliseconds
        body = remote_read.read_request(queries, int(grid[0]) - before, int(grid[-1]))
        results = self._api().connection.post(
            remote_read.PATH, body, remote_read.HEADERS, remote_read.read_response
        )
        if len(results) != len(queries):
            raise SourceError(
                f"{self._api().connection.url} answered {len(results)} of {len(queries)} remote-read queries",
                "set source.prometheus.route: api",
            )
        raw = {read: _by_labels(found) for read, found in zip(reads, results, strict=True)}
        samples = sum(len(series.times) for found in raw.values() for series in found)

        def select(selector: Selector) -> Sequence[RawSeries]:
            found = raw.get((selector.metric, selector.where))
            if found is not None:
                return found
            return [series for series in raw[selector.metric, ()] if _selects(selector.where, series)]

        columns = []
        for one in task.wanted:
            try:
                columns.append(evaluate(one.expression, select, grid, 1000 * span.window_s, self._semantics))
            except ValueError as error:
                raise SourceError(
                    f"{one.feature.name}: {error}, from {one.query(span.window_s, '')}",
                    "choose one of them with source.prometheus.matchers",
                ) from error
        return Answer(tuple(columns), samples)


class SplitRoute:
    """Each feature on the route that was chosen for it."""

    def __init__(self, fast: Route, slow: Route, on_slow: frozenset[str]) -> None:
        """`on_slow` names the features that `slow` reads."""
        self.name = f"{fast.name}, {len(on_slow)} features by {slow.name}"
        self._fast, self._slow, self._on_slow = fast, slow, on_slow

    def tasks(self, wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> Iterator[Task]:
        """The tasks of both."""
        yield from self._fast.tasks([one for one in wanted if not self._is_slow(one)], span, instances)
        yield from self._slow.tasks([one for one in wanted if self._is_slow(one)], span, instances)

    def read(self, task: Task) -> Answer:
        """By the route that made the task."""
        return (self._slow if self._is_slow(task.wanted[0]) else self._fast).read(task)

    def _is_slow(self, wanted: Wanted) -> bool:
        return wanted.feature.name in self._on_slow


def readable_raw(wanted: Wanted) -> bool:
    """Whether the feature can be evaluated over raw samples: not a PromQL text of the user's own."""
    return can_evaluate(wanted.expression)


Read = tuple[str, tuple[Match, ...]]


def _leaves(wanted: Wanted) -> Iterator[Read]:
    for leaf in wanted.expression.leaves():
        # A folded count is told as METRIC:count, which only the node has.
        folded = leaf.metric.endswith(":count")
        yield (leaf.metric.removesuffix(":count"), () if folded else leaf.where)


def _reads(wanted: Sequence[Wanted]) -> tuple[Read, ...]:
    """What to ask for: a metric as a whole where some selector wants that, else each of its selections."""
    leaves = dict.fromkeys(leaf for one in wanted for leaf in _leaves(one))
    return tuple(leaf for leaf in leaves if not leaf[1] or (leaf[0], ()) not in leaves)


def _groups(wanted: Sequence[Wanted]) -> list[tuple[Wanted, ...]]:
    """Features joined where they read the same series, in the order of the first of each group."""
    groups: list[tuple[set[Read], list[int]]] = []
    whole = {leaf[0] for one in wanted for leaf in _leaves(one) if not leaf[1]}
    for at, one in enumerate(wanted):
        reads = {(metric, () if metric in whole else where) for metric, where in _leaves(one)}
        members = [at]
        apart = []
        for other_reads, other_members in groups:
            if reads & other_reads:
                reads |= other_reads
                members = other_members + members
            else:
                apart.append((other_reads, other_members))
        groups = [*apart, (reads, members)]
    return [tuple(wanted[at] for at in sorted(members)) for _, members in groups]


def _selects(where: Sequence[Match], series: RawSeries) -> bool:
    return all(match.holds(series.labels.get(match.label, "")) for match in where)


def _by_labels(found: list[RawSeries]) -> list[RawSeries]:
    """Sorted as Prometheus sorts them, because a sum depends on the order of its parts."""
    keys = [sorted(series.labels.items()) for series in found]
    if all(before <= after for before, after in pairwise(keys)):
        return found
    order = sorted(range(len(found)), key=keys.__getitem__)
    return [found[at] for at in order]


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
