"""History from any server that answers Prometheus' HTTP API, read in bounded pieces."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.dataset import UNKNOWN, History, coverage
from node_anomaly_trainer.progress import Note, Report
from node_anomaly_trainer.sources.prometheus_api import BACKOFF_S, PrometheusApi, Series

RATE_WINDOW_INTERVALS = 4
"""The window of every rate, in intervals: the same on the node and in PromQL."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One query: ticks `first` <= i < `stop` of the grid for one feature."""

    feature: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Piece:
    """What one query yielded: per node the tick indices (k,) and the values (k,)."""

    chunk: Chunk
    nodes: Mapping[str, tuple[NDArray[np.intp], NDArray[np.float64]]]
    samples: int


def read_prometheus(
    config: PrometheusConfig,
    features: Sequence[Feature],
    interval_s: float,
    report: Report,
    note: Note,
    now: float | None = None,
    backoff_s: float = BACKOFF_S,
) -> History:
    """History of every instance that matches, one PromQL query per feature and chunk of the range.

    Every label `instance` is a node; labels are all unknown. A feature without any series is a column of NaN
    and is reported. Raises SourceError if the server fails, or holds no series at all.
    """
    step = round(interval_s)
    if step != interval_s:
        raise SourceError(
            f"an interval of {interval_s:g} s cannot be read from Prometheus", "use whole seconds"
        )
    end = int(
        (config.end if config.end is not None else now if now is not None else time.time()) // step * step
    )
    ticks = max(int(config.range // step), 1)
    start = end - (ticks - 1) * step
    reader = _Reader(config, features, start, step, backoff_s)
    # One cheap question first: a wrong URL or password must not cost a query per feature.
    reader.api().query("vector(1)", end)
    chunks = [
        Chunk(at, first, stop)
        for at, feature in enumerate(features)
        if feature.expression is not None
        for first, stop in chunk_ranges(ticks, config.points_per_query)
    ]
    columns: dict[str, NDArray[np.float64]] = {}
    begun, samples = time.monotonic(), 0
    for done, piece in enumerate(_in_parallel(reader, chunks, config.parallel), start=1):
        for node, (indices, values) in piece.nodes.items():
            if node not in columns:
                columns[node] = np.full((ticks, len(features)), np.nan)
            columns[node][indices, piece.chunk.feature] = values
        samples += piece.samples
        rate = samples / max(time.monotonic() - begun, 1e-3)
        report(done / len(chunks), f"{features[piece.chunk.feature].name}, {rate:,.0f} samples/s")
    if not columns:
        raise reader.nothing_found(end)
    history = _assemble(config, features, start, step, columns)
    for feature, missing in zip(features, coverage(history).missing.min(axis=0) == 1.0, strict=True):
        if missing:
            note(f"no series for {feature.name}: {_query(feature, config, step) or 'no PromQL known'}")
    return history


def chunk_ranges(ticks: int, limit: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges that cover 0..ticks once, of nearly equal size and at most `limit` each.

    The API's ranges include both ends, so the last point of a chunk is asked for as `stop - 1` and no sample
    is read twice.
    """
    count = -(-ticks // limit)
    for at in range(count):
        yield at * ticks // count, (at + 1) * ticks // count


class _Reader:
    """Turns chunks into pieces; usable by several threads, each with its own connection."""

    def __init__(
        self, config: PrometheusConfig, features: Sequence[Feature], start: int, step: int, backoff_s: float
    ) -> None:
        self._config, self._features = config, features
        self._start, self._step, self._backoff_s = start, step, backoff_s
        self._local = threading.local()
        self._stopped = threading.Event()

    def api(self) -> PrometheusApi:
        if not hasattr(self._local, "api"):
            self._local.api = PrometheusApi(self._config, self._backoff_s, self._pause)
        api: PrometheusApi = self._local.api
        return api

    def stop(self) -> None:
        """Let no query be tried again: the run has failed or was interrupted."""
        self._stopped.set()

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise SourceError("reading was stopped")

    def read(self, chunk: Chunk) -> Piece:
        query = _query(self._features[chunk.feature], self._config, self._step)
        first = self._start + chunk.first * self._step
        last = self._start + (chunk.stop - 1) * self._step
        nodes: dict[str, tuple[NDArray[np.intp], NDArray[np.float64]]] = {}
        samples = 0
        for series in self.api().query_range(query, first, last, self._step):
            node = _node(series, query)
            if node in nodes:
                raise SourceError(
                    f"{query} gives two series for instance {node}", "aggregate it: max by (instance) (...)"
                )
            times, values = _samples(series, query)
            indices = np.rint((times - self._start) / self._step).astype(np.intp)
            inside = (indices >= chunk.first) & (indices < chunk.stop)
            nodes[node] = indices[inside], values[inside]
            samples += len(times)
        return Piece(chunk, nodes, samples)

    def nothing_found(self, end: int) -> SourceError:
        """What was looked for and what the server does have."""
        jobs = sorted(
            str(series["metric"].get("job", ""))
            for series in self.api().query("count by (job) (last_over_time(up[1h]))", end)
        )
        known = ", ".join(jobs[:10]) + (", ..." if len(jobs) > 10 else "")
        names = ", ".join(feature.name for feature in self._features[:3])
        matchers = self._config.matchers or "none"
        example = next((_query(f, self._config, self._step) for f in self._features if f.expression), "")
        return SourceError(
            f"{self._config.url} holds no series for {len(self._features)} features ({names}, ...) "
            f"from {_iso(self._start)} to {_iso(end)} with matchers {matchers}; tried {example}",
            f"it scrapes the jobs {known}: set source.prometheus.matchers, range or end"
            if known
            else "it scrapes nothing then: set source.prometheus.range or end, or choose another server",
        )


def _in_parallel(reader: _Reader, chunks: Sequence[Chunk], parallel: int) -> Iterator[Piece]:
    """Pieces as they arrive; never more than two per worker are under way, so memory stays bounded."""
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="prometheus")
    waiting: set[Future[Piece]] = set()
    queue = iter(chunks)
    try:
        while True:
            for chunk in queue:
                waiting.add(pool.submit(reader.read, chunk))
                if len(waiting) >= 2 * parallel:
                    break
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        reader.stop()
        pool.shutdown(wait=False, cancel_futures=True)


def _assemble(
    config: PrometheusConfig,
    features: Sequence[Feature],
    start: int,
    step: int,
    columns: dict[str, NDArray[np.float64]],
) -> History:
    nodes = tuple(sorted(columns))
    ticks = len(columns[nodes[0]])
    values = np.empty((ticks, len(nodes), len(features)))
    for at, node in enumerate(nodes):
        values[:, at] = columns.pop(node)  # freed one by one: the history is never held twice
    return History(
        features=tuple(features),
        interval_s=float(step),
        nodes=nodes,
        timestamps=start + step * np.arange(ticks, dtype=np.float64),
        values=values,
        labels=np.full((ticks, len(nodes)), UNKNOWN, dtype=np.int8),
        origin={
            "source": "prometheus",
            "url": config.url,
            "matchers": config.matchers,
            "from": _iso(start),
            "to": _iso(start + (ticks - 1) * step),
        },
    )


def _query(feature: Feature, config: PrometheusConfig, step: int) -> str:
    if feature.expression is None:
        return ""
    return feature.promql(window=f"{RATE_WINDOW_INTERVALS * step}s", matchers=config.matchers)


def _node(series: Series, query: str) -> str:
    node = str(series["metric"].get("instance", ""))
    if not node:
        raise SourceError(
            f"{query} gives a series without the label instance", "every node needs its own instance label"
        )
    return node


def _samples(series: Series, query: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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


def _iso(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
