"""A fast route on trial: the same short range by it and by the query API, of some nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from node_anomaly_core.expressions import Match
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
from node_anomaly_trainer.sources.raw_route import RawRoute, readable_raw, reads
from node_anomaly_trainer.sources.raw_series import RawSeries, in_order
from node_anomaly_trainer.sources.routes import Route
from node_anomaly_trainer.sources.survey import Survey
from node_anomaly_trainer.sources.wanted import Span, Wanted, iso

TRIED_TICKS = 12
TRIED_INSTANCES = (3, 12, 48)
"""More are taken where the fewer ones have nothing to compare: nodes that are gone, for example."""
TOLERANCE = 1e-12
"""Relative: what rounding in another order may do."""

Compare = Callable[[Sequence[Wanted], Span, Sequence[str]], tuple[set[str], int]]
"""Names of the features that differ over a span and these instances, and how much there was to compare."""

Labels = tuple[tuple[str, str], ...]


def differing(survey: Survey, step: int, compare: Compare) -> set[str]:
    """The features that a raw route must not read: by `compare`, or because they are a user's own text.

    Raises ValueError where there is nothing to try it on.
    """
    raw = [one for one in survey.wanted if readable_raw(one)]
    unlike = {one.feature.name for one in survey.wanted if not readable_raw(one)}
    for source in dict.fromkeys(one.source for one in raw):
        end = survey.seen_at[source] // step * step
        span = Span(end - (TRIED_TICKS - 1) * step, step, TRIED_TICKS)
        chosen = [one for one in raw if one.source == source]
        for some in _samples([found[source] for found in survey.instances.values() if source in found]):
            found, compared = compare(chosen, span, some)
            if compared:
                unlike |= found
                break
        else:
            raise ValueError(f"no samples of {source} to try it on around {iso(span.end)}")
    return unlike


def _samples(instances: Sequence[str]) -> Iterator[list[str]]:
    for number in TRIED_INSTANCES:
        last = len(instances) - 1
        yield sorted({instances[at * last // (number - 1)] for at in range(number)})


def same_numbers(fast: Route, reference: Route) -> Compare:
    """Compares what both make of the features."""

    def compare(wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> tuple[set[str], int]:
        missing = np.full(span.ticks, np.nan)
        found = {}
        for route in (fast, reference):
            for task in route.tasks(wanted, span, instances):
                for one, column in zip(task.wanted, route.read(task).columns, strict=True):
                    values = [column.get(instance, missing) for instance in instances]
                    found[route.name, one.feature.name] = np.array(values)
        compared = 0
        unlike = set()
        for name in (one.feature.name for one in wanted):
            ours, theirs = found[fast.name, name], found[reference.name, name]
            compared += int(np.count_nonzero(~np.isnan(theirs)))
            if not np.allclose(ours, theirs, rtol=TOLERANCE, atol=0.0, equal_nan=True):
                unlike.add(name)
        return unlike, compared

    return compare


def same_samples(fast: RawRoute, api: PrometheusApi) -> Compare:
    """Compares the samples that features are made of with those that a range selector of the API shows."""

    def compare(wanted: Sequence[Wanted], span: Span, instances: Sequence[str]) -> tuple[set[str], int]:
        compared = 0
        unlike: set[str] = set()
        for read in reads(wanted):
            selection = fast.selection(read, instances)
            theirs = _shown(api, selection, span)
            # A range is open at its left end, or closed, as the release has it.
            ours = fast.samples([selection], 1000 * span.start + 1, 1000 * span.end)[0]
            compared += sum(len(series.times) for series in theirs)
            if _content(ours) != _content(theirs):
                metric, _ = read
                unlike |= {one.feature.name for one in wanted if metric in dict(reads((one,)))}
        return unlike, compared

    return compare


def _shown(api: PrometheusApi, selection: Sequence[Match], span: Span) -> list[RawSeries]:
    selector = "{" + ",".join(map(str, selection)) + "}"
    shown = []
    for series in api.query(f"{selector}[{span.end - span.start}s]", at=span.end):
        try:
            times = np.array([round(1000 * at) for at, _ in series["values"]], dtype=np.int64)
            values = np.array([float(text) for _, text in series["values"]])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the samples of {selector} cannot be read ({error})") from error
        labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
        inside = times > 1000 * span.start
        shown.append(RawSeries(labels, *in_order(times[inside], values[inside])))
    return [series for series in shown if series.times.size]


def _content(many: Sequence[RawSeries]) -> dict[Labels, tuple[list[int], list[float | None]]]:
    """By labels; NaN, of which there is but one kind in the API's text, as None."""
    return {
        tuple(sorted(one.labels.items())): (
            one.times.tolist(),
            [None if math.isnan(value) else value for value in one.values.tolist()],
        )
        for one in many
    }
