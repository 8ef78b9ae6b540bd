"""What was read, kept as Parquet: one file for each node and day, so that the next run reads only the rest.

    DIR/<server>/node=<name>/day=2026-01-05/ticks.parquet

A file holds every tick of its day, one column per feature and NaN where there was nothing; its metadata says
for each feature by which query it was read, which ticks were asked for, and how many of those had a value.
Files appear whole or not at all: they are written beside their name, flushed, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.whole_file import write_whole

DAY_S = 86400
METADATA = b"node_anomaly"
FORMAT = 1
FILE = "ticks.parquet"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day on a grid of whole multiples of `step` seconds."""

    number: int
    step: int

    @property
    def start(self) -> int:
        """Unix second of the first tick."""
        return -(-self.number * DAY_S // self.step) * self.step

    @property
    def ticks(self) -> int:
        """How many ticks lie in the day."""
        return (-(-(self.number + 1) * DAY_S // self.step) * self.step - self.start) // self.step

    @property
    def name(self) -> str:
        """As in 2026-01-05."""
        return datetime.fromtimestamp(self.number * DAY_S, UTC).strftime("%Y-%m-%d")


@dataclass(frozen=True, slots=True)
class Covered:
    """Ticks `first` <= i < `stop` of a day that were read with `query`; `present` of them have a value."""

    query: str
    first: int
    stop: int
    present: int

    def missing(self, first: int, stop: int) -> tuple[tuple[int, int], ...]:
        """What is to be read so that this and `first`..`stop` become one unbroken range."""
        before, after = (first, self.first), (self.stop, stop)
        return tuple(part for part in (before, after) if part[0] < part[1])


class Cache:
    """The files of one server and one selection of its series, at one interval."""

    def __init__(self, directory: Path, config: PrometheusConfig, step: int) -> None:
        """Raises SourceError if the directory cannot be made."""
        identity = {
            "format": FORMAT,
            "url": config.url.rstrip("/"),
            "matchers": config.matchers,
            "interval": step,
        }
        # Headers choose the tenant on a shared server; they may hold secrets, so only their digest counts.
        digest = hashlib.sha256(json.dumps([identity, sorted(config.headers.items())]).encode())
        host = urllib.parse.urlsplit(config.url).hostname or "server"
        self.step = step
        self.root = directory / f"{host}-{digest.hexdigest()[:12]}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_whole(self.root / "about.json", json.dumps(identity, indent=2).encode())
        except OSError as error:
            raise SourceError(
                f"cannot write to the cache {directory}: {error.strerror}",
                "choose a writable directory with source.prometheus.cache",
            ) from error

    def path(self, node: str, day: Day) -> Path:
        """Where the day of a node is, or would be."""
        return self.root / f"node={urllib.parse.quote(node, safe='')}" / f"day={day.name}" / FILE

    def covered(self, node: str, day: Day) -> dict[str, Covered]:
        """Feature -> what is known of it; empty if there is no file, or one that cannot be read."""
        try:
            raw = pq.read_schema(self.path(node, day)).metadata[METADATA]
            known = json.loads(raw)
            if known["format"] != FORMAT or known["ticks"] != day.ticks:
                return {}
            return {name: Covered(**one) for name, one in known["features"].items()}
        except (OSError, KeyError, TypeError, ValueError):  # pyarrow's errors are among these
            return {}

    def read(self, node: str, day: Day, features: Sequence[str]) -> dict[str, Floats]:
        """Feature -> (day.ticks,), for those of `features` that the file holds."""
        names = [name for name in features if name in self.covered(node, day)]
        if not names:
            return {}
        table = pq.read_table(self.path(node, day), columns=names, partitioning=None)
        return {name: np.asarray(table[name].to_numpy(), dtype=np.float64) for name in names}

    def extend(
        self,
        node: str,
        day: Day,
        first: int,
        columns: Mapping[str, tuple[str, Floats]],
        settled: int | None = None,
    ) -> None:
        """Put what was read from tick `first` of the day on into the node's file.

        `columns`: feature -> (query, values (k,)). Values of the same query stay where they do not overlap;
        those of another query are replaced. Ticks from `settled` on are too young to be final: they are kept
        but count as not yet read. Raises SourceError if the disk refuses.
        """
        known = self.covered(node, day)
        values = self.read(node, day, tuple(known))
        for name, (query, fresh) in columns.items():
            stop = first + len(fresh)
            final = stop if settled is None else max(first, min(stop, settled))
            before = known.get(name)
            if before is None or before.query != query or first > before.stop or stop < before.first:
                values[name] = np.full(day.ticks, np.nan)
                before = Covered(query, first, final, 0)
            column = values[name] = values[name].copy()
            column[first:stop] = fresh
            low, high = min(before.first, first), max(before.stop, final)
            present = int(np.count_nonzero(~np.isnan(column[low:high])))
            known[name] = replace(before, first=low, stop=high, present=present)
        times = (day.start + self.step * np.arange(day.ticks)).astype("datetime64[s]")
        table = pa.table({"timestamp": times, **values})
        about = {
            "format": FORMAT,
            "ticks": day.ticks,
            "features": {
                name: {"query": one.query, "first": one.first, "stop": one.stop, "present": one.present}
                for name, one in known.items()
            },
        }
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata({METADATA: json.dumps(about).encode()}),
            sink,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
        )
        path = self.path(node, day)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, sink.getvalue().to_pybytes())
        except OSError as error:
            raise SourceError(
                f"cannot write to the cache {path.parent}: {error.strerror}",
                "free some space or choose another directory with source.prometheus.cache; "
                "what is there is complete, and the next run goes on from it",
            ) from error


def days(start: int, end: int, step: int) -> list[tuple[Day, int, int]]:
    """The days of the ticks start, start + step .. end (all multiples of step), each with first and stop."""
    found = []
    for number in range(start // DAY_S, end // DAY_S + 1):
        day = Day(number, step)
        first = max(-(-(start - day.start) // step), 0)
        stop = min((end - day.start) // step + 1, day.ticks)
        if first < stop:
            found.append((day, first, stop))
    return found
