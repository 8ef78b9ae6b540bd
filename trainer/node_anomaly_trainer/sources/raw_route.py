"""Raw samples from the server, features evaluated here: several times faster than asking for the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from node_anomaly_core.errors import SourceError
from node_anomaly_core.expressions import Match, Selector
from node_anomaly_trainer.sources.evaluate_expression import Semantics, can_evaluate, evaluate
from node_anomaly_trainer.sources.matchers import one_of
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
from node_anomaly_trainer.sources.prometheus_http import Connection
from node_anomaly_trainer.sources.raw_series import RawSeries
from node_anomaly_trainer.sources.routes import SHORTEST_PIECE_TICKS, Answer, Task, chunk_ranges
from node_anomaly_trainer.sources.wanted import Span, Wanted

SAMPLES_AT_ONCE = 600_000
"""Raw samples of one answer; some fifty bytes each while they are decoded and evaluated."""

Read = tuple[str, tuple[Match, ...]]
"""A metric, and which of its series."""


class ReadRaw(Protocol):
    """How raw samples are asked for: remote_read.read_raw or export.read_raw."""

    def __call__(
        self, connection: Connection, selections: Sequence[Sequence[Match]], first_ms: int, last_ms: int
    ) -> list[list[RawSeries]]:
        """The series of each selection, samples from `first_ms` to `last_ms`. Raises SourceError."""


class RawRoute:
    """One request for all that some features need, then each expression over what came back."""

    def __init__(
        self,
        name: str,
        read_raw: ReadRaw,
        api: Callable[[], PrometheusApi],
        matchers: Sequence[Match],
        semantics: Semantics,
        series_per_instance: Mapping[str, float],
        rules: str = "",
    ) -> None:
        """`series_per_instance`: metric -> how many series of it a node has, to bound each answer.

        `rules` names whose rules `semantics` are, where they are not the server's.
        """
        self.name, self._rules = name, rules
        self._read_raw, self._api, self._matchers = read_raw, api, tuple(matchers)
        self._semantics, self._series = semantics, series_per_instance

    def rules(self, wanted: Wanted) -> str:
        """By whose rules the numbers are made; "" for the server's."""
        return self._rules

    def tasks(self, wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> Iterator[Task]:
        """Features that need the same metrics together, so that nothing is read twice."""
        for group in _groups(wanted):
            metrics = {leaf[0] for leaf in reads(group)}
            series = sum(self._series.get(metric, 1.0) for metric in metrics) * max(len(instances), 1)
            limit = max(int(SAMPLES_AT_ONCE // series), SHORTEST_PIECE_TICKS)
            for first, stop in chunk_ranges(span.ticks, limit):
                yield Task(group, span.part(first, stop), tuple(instances))

    def read(self, task: Task) -> Answer:
        """Read all series of the task with their look-back, and evaluate."""
        span = task.span
        before = max(self._semantics.lookback_ms, 1000 * span.window_s)
        grid = span.milliseconds
        wanted = reads(task.wanted)
        selections = [self.selection(one, task.instances) for one in wanted]
        results = self.samples(selections, int(grid[0]) - before, int(grid[-1]))
        raw = {one: _by_labels(found) for one, found in zip(wanted, results, strict=True)}
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

    def samples(
        self, selections: Sequence[Sequence[Match]], first_ms: int, last_ms: int
    ) -> list[list[RawSeries]]:
        """The series of each selection, samples from `first_ms` to `last_ms`. Raises SourceError."""
        return self._read_raw(self._api().connection, selections, first_ms, last_ms)

    def selection(self, read: Read, instances: Sequence[str]) -> tuple[Match, ...]:
        """The matchers that select these series of these instances, or of all that match."""
        metric, where = read
        chosen = (one_of("instance", instances),) if instances else ()
        return (Match("__name__", "=", metric), *self._matchers, *where, *chosen)


def readable_raw(wanted: Wanted) -> bool:
    """Whether the feature can be evaluated over raw samples: not a PromQL text of the user's own."""
    return can_evaluate(wanted.expression)


def reads(wanted: Sequence[Wanted]) -> tuple[Read, ...]:
    """What to ask for: a metric as a whole where some selector wants that, else each of its selections."""
    leaves = dict.fromkeys(leaf for one in wanted for leaf in _leaves(one))
    return tuple(leaf for leaf in leaves if not leaf[1] or (leaf[0], ()) not in leaves)


def _leaves(wanted: Wanted) -> Iterator[Read]:
    for leaf in wanted.expression.leaves():
        # A folded count is told as METRIC:count, which only the node has.
        folded = leaf.metric.endswith(":count")
        yield (leaf.metric.removesuffix(":count"), () if folded else leaf.where)


def _groups(wanted: Sequence[Wanted]) -> list[tuple[Wanted, ...]]:
    """Features joined where they read the same series, in the order of the first of each group."""
    groups: list[tuple[set[Read], list[int]]] = []
    whole = {leaf[0] for one in wanted for leaf in _leaves(one) if not leaf[1]}
    for at, one in enumerate(wanted):
        needed = {(metric, () if metric in whole else where) for metric, where in _leaves(one)}
        members = [at]
        apart = []
        for other_reads, other_members in groups:
            if needed & other_reads:
                needed |= other_reads
                members = other_members + members
            else:
                apart.append((other_reads, other_members))
        groups = [*apart, (needed, members)]
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
