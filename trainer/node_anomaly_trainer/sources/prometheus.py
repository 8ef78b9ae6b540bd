"""History from any server that answers Prometheus' HTTP API: surveyed, read in bounded pieces, and cached.

A run is: ask the server's clock, survey what it holds, find what the cache lacks, choose a route, read one
day of some nodes at a time, and write it to the cache. Memory depends on neither the range nor the fleet.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.dataset import UNKNOWN, History
from node_anomaly_trainer.progress import Note, Report
from node_anomaly_trainer.sources.admission import Admit, admit_any
from node_anomaly_trainer.sources.cache import Cache, Day, days
from node_anomaly_trainer.sources.choose_route import choose_route
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi
from node_anomaly_trainer.sources.prometheus_http import BACKOFF_S
from node_anomaly_trainer.sources.routes import Answer, PerThread, Route, Task
from node_anomaly_trainer.sources.survey import Survey, server_clock, survey
from node_anomaly_trainer.sources.wanted import Span, Wanted, iso, whole_span

CELLS_AT_ONCE = 12_000_000
"""Numbers of one day that are held at once, 8 bytes each."""

NODES_AT_ONCE = 64
"""Their names are spelt out in each query, and proxies limit the length of a URL."""

RULES = "  # by "
"""In the cache, between a query and whose rules its numbers were made by."""

SETTLING_S = 300
"""Samples younger than this may still be on their way into the server, so they are read again next time."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a run found and did."""

    span: Span
    survey: Survey
    features: tuple[Feature, ...]
    route: str
    """Name of the route, or "" where the cache had everything."""
    samples: int
    """Samples that crossed the wire."""
    seconds: float
    days_read: int
    """Days of nodes that were read, of `days_all`."""
    days_all: int
    missing: NDArray[np.float64]
    """Share of ticks without a value, (nodes, features) in the order of `survey.instances` and `features`."""


@dataclass(frozen=True, slots=True)
class Job:
    """A part of one day that some nodes lack for the same features."""

    day: Day
    first: int
    stop: int
    wanted: tuple[Wanted, ...]
    nodes: tuple[str, ...]


def read_prometheus(
    config: PrometheusConfig,
    features: Sequence[Feature],
    interval_s: float,
    report: Report,
    note: Note,
    now: float | None = None,
    backoff_s: float = BACKOFF_S,
    *,
    admit: Admit = admit_any,
) -> History:
    """History of every instance that matches; each is a node, labels are all unknown.

    A feature without any series is a column of NaN and is reported. Raises SourceError if the server fails,
    or holds no series at all; then what was read stays in `config.cache`, if there is one.
    """
    if config.cache:
        directory = Path(config.cache)
        return _history(config, features, interval_s, report, note, now, backoff_s, directory, admit)
    with tempfile.TemporaryDirectory(prefix="anomaly-history-") as scratch:
        return _history(config, features, interval_s, report, note, now, backoff_s, Path(scratch), admit)


def _history(
    config: PrometheusConfig,
    features: Sequence[Feature],
    interval_s: float,
    report: Report,
    note: Note,
    now: float | None,
    backoff_s: float,
    directory: Path,
    admit: Admit,
) -> History:
    fetched = fill_cache(config, features, interval_s, directory, report, note, now, backoff_s, admit=admit)
    span = fetched.span
    nodes = tuple(fetched.survey.instances)
    values = np.full((span.ticks, len(nodes), len(features)), np.nan)
    cache = Cache(directory, config, span.step)
    names = [feature.name for feature in features]
    for day, first, stop in days(span.start, span.end, span.step):
        at = (day.start - span.start) // span.step
        for place, node in enumerate(nodes):
            for name, column in cache.read(node, day, names).items():
                values[at + first : at + stop, place, names.index(name)] = column[first:stop]
    return History(
        features=tuple(features),
        interval_s=float(span.step),
        nodes=nodes,
        timestamps=span.start + span.step * np.arange(span.ticks, dtype=np.float64),
        values=values,
        labels=np.full((span.ticks, len(nodes)), UNKNOWN, dtype=np.int8),
        origin={
            "source": "prometheus",
            "url": config.url,
            "matchers": config.matchers,
            "from": iso(span.start),
            "to": iso(span.end),
            **origins(fetched.survey),
        },
    )


def origins(found: Survey) -> dict[str, str]:
    """Where features come from -> how many of them."""
    sources = [one.source for one in found.wanted]
    return {f"from {source}": f"{sources.count(source)} features" for source in sorted(set(sources))}


def fill_cache(
    config: PrometheusConfig,
    features: Sequence[Feature],
    interval_s: float,
    directory: Path,
    report: Report,
    note: Note,
    now: float | None = None,
    backoff_s: float = BACKOFF_S,
    *,
    admit: Admit = admit_any,
) -> Fetched:
    """Read what the cache in `directory` lacks of the configured range.

    `admit` hears how much it will be before anything is read. Raises SourceError, and what `admit` raises.
    """
    whole_span(config, interval_s, now=0.0)  # refuses an odd interval before the server is asked
    begun = time.monotonic()
    stopped = threading.Event()

    def pause(seconds: float) -> None:
        if stopped.wait(seconds):
            raise SourceError("reading was stopped")

    with contextlib.closing(PerThread(lambda: PrometheusApi(config, backoff_s, pause))) as apis:
        clock = server_clock(apis(), note)
        span = whole_span(config, interval_s, clock if now is None else now)
        cache = Cache(directory, config, span.step)
        found = survey(apis(), config, features, span, note)
        counted = ", ".join(f"{number} {origin}" for origin, number in origins(found).items())
        note(f"{len(found.instances)} nodes; {counted}")
        admit(len(found.instances), span.ticks, len(features))
        jobs = list(_jobs(cache, found, span, config.matchers, None))
        route: Route | None = None
        samples = 0
        if jobs:
            route = choose_route(apis, config, found, span.step, note)
            jobs = list(_jobs(cache, found, span, config.matchers, route))
            settled = int(clock) - SETTLING_S
            samples = _work(route, cache, jobs, found, config, settled, stopped, report)
    return Fetched(
        span=span,
        survey=found,
        features=tuple(features),
        route=route.name if route else "",
        samples=samples,
        seconds=time.monotonic() - begun,
        days_read=len({(node, job.day.number) for job in jobs for node in job.nodes}),
        days_all=len(days(span.start, span.end, span.step)) * len(found.instances),
        missing=_missing(cache, found, features, span),
    )


def _jobs(cache: Cache, found: Survey, span: Span, matchers: str, route: Route | None) -> Iterator[Job]:
    """What is to be read, day by day: nodes that lack the same together, as many as memory allows.

    What was read by other rules than those of `route` lacks as a whole, because numbers of two kinds must not
    stand beside each other; without a route any rules will do.
    """
    for day, first, stop in days(span.start, span.end, span.step):
        alike: dict[tuple[int, int, tuple[int, ...]], list[str]] = {}
        for node in found.instances:
            known = cache.covered(node, day)
            lacking: dict[tuple[int, int], list[int]] = {}
            for number, one in enumerate(found.wanted):
                if not found.reads(node, one):
                    continue
                there = known.get(one.feature.name)
                usable = there is not None and _same_query(there.query, one, span, matchers, route)
                parts = there.missing(first, stop) if there is not None and usable else ((first, stop),)
                for part in parts:
                    lacking.setdefault(part, []).append(number)
            for part, numbers in lacking.items():
                alike.setdefault((*part, tuple(numbers)), []).append(node)
        for (begin, end, numbers_of), nodes in alike.items():
            wanted = tuple(found.wanted[number] for number in numbers_of)
            limit = min(max(CELLS_AT_ONCE // (len(wanted) * (end - begin)), 1), NODES_AT_ONCE)
            for at in range(0, len(nodes), limit):
                yield Job(day, begin, end, wanted, tuple(nodes[at : at + limit]))


def _query(wanted: Wanted, span: Span, matchers: str, route: Route) -> str:
    """What the cache knows a number by: its query, and by whose rules if not the server's."""
    rules = route.rules(wanted)
    return wanted.query(span.window_s, matchers) + (RULES + rules if rules else "")


def _same_query(known: str, wanted: Wanted, span: Span, matchers: str, route: Route | None) -> bool:
    if route is None:
        return known.partition(RULES)[0] == wanted.query(span.window_s, matchers)
    return known == _query(wanted, span, matchers, route)


def _work(
    route: Route,
    cache: Cache,
    jobs: Sequence[Job],
    found: Survey,
    config: PrometheusConfig,
    settled: int,
    stopped: threading.Event,
    report: Report,
) -> int:
    """Do all jobs; how many samples crossed the wire."""
    begun, samples, done = time.monotonic(), 0, 0
    total = sum(len(job.wanted) * len(job.nodes) * (job.stop - job.first) for job in jobs)
    pool = ThreadPoolExecutor(config.parallel, thread_name_prefix="prometheus")
    try:
        for job in jobs:
            span = Span(job.day.start, job.day.step, job.day.ticks).part(job.first, job.stop)
            block = np.full((len(job.nodes), len(job.wanted), span.ticks), np.nan)
            for task, answer in _in_parallel(pool, route, _tasks(route, job, span, found), config.parallel):
                _place(block, job, span, task, answer, found)
                samples += answer.samples
                done += len(task.wanted) * len(task.instances) * task.span.ticks
                spent, share = max(time.monotonic() - begun, 1e-3), min(done / total, 1.0)
                left = spent * (1.0 - share) / share
                rate = f"{samples / 1e6:,.1f} M samples, {samples / spent:,.0f}/s"
                report(share, f"{job.day.name}, {rate}, {left:,.0f} s left")
            queries = [_query(one, span, config.matchers, route) for one in job.wanted]
            _write(pool, cache, job, block, queries, settled)
            del block  # or two days would be held while the next one's is made
    finally:
        stopped.set()  # let no query be tried again: all is done, or the run has failed
        pool.shutdown(wait=False, cancel_futures=True)
    return samples


def _tasks(route: Route, job: Job, span: Span, found: Survey) -> Iterator[Task]:
    for source in dict.fromkeys(one.source for one in job.wanted):
        wanted = [one for one in job.wanted if one.source == source]
        yield from route.tasks(wanted, span, [found.instances[node][source] for node in job.nodes])


def _in_parallel(
    pool: ThreadPoolExecutor, route: Route, tasks: Iterator[Task], parallel: int
) -> Iterator[tuple[Task, Answer]]:
    """Answers as they arrive; never more than one per worker waits, so memory stays bounded."""
    waiting: dict[Future[Answer], Task] = {}
    while True:
        for task in tasks:
            waiting[pool.submit(route.read, task)] = task
            if len(waiting) >= parallel + 1:
                break
        if not waiting:
            return
        finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            yield waiting.pop(future), future.result()


def _place(
    block: NDArray[np.float64], job: Job, span: Span, task: Task, answer: Answer, found: Survey
) -> None:
    first = (task.span.start - span.start) // span.step
    for one, column in zip(task.wanted, answer.columns, strict=True):
        at = job.wanted.index(one)
        for place, node in enumerate(job.nodes):
            values = column.get(found.instances[node].get(one.source, ""))
            if values is not None:
                block[place, at, first : first + task.span.ticks] = values


def _write(
    pool: ThreadPoolExecutor,
    cache: Cache,
    job: Job,
    block: NDArray[np.float64],
    queries: Sequence[str],
    settled: int,
) -> None:
    young = (settled - job.day.start) // job.day.step + 1

    def write(place: int) -> None:
        columns = {
            one.feature.name: (query, block[place, at])
            for at, (one, query) in enumerate(zip(job.wanted, queries, strict=True))
        }
        cache.extend(job.nodes[place], job.day, job.first, columns, young)

    for _ in pool.map(write, range(len(job.nodes))):
        pass


def _missing(cache: Cache, found: Survey, features: Sequence[Feature], span: Span) -> NDArray[np.float64]:
    """Share of ticks without a value, (nodes, features), from what the cache's files say of themselves."""
    counted: Mapping[str, int] = {feature.name: at for at, feature in enumerate(features)}
    present = np.zeros((len(found.instances), len(features)))
    asked = np.zeros_like(present)
    for day, _, _ in days(span.start, span.end, span.step):
        for place, node in enumerate(found.instances):
            for name, one in cache.covered(node, day).items():
                if name in counted:
                    present[place, counted[name]] += one.present
                    asked[place, counted[name]] += one.stop - one.first
    return np.where(asked > 0, 1.0 - present / np.maximum(asked, 1.0), 1.0)
