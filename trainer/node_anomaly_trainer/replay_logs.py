"""Old log files to log features on a grid of ticks, by the code that counts them on a node."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_anomaly_core.catalogue import CATALOGUE
from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import FeatureEvaluator
from node_anomaly_core.log_counters import LogCounters
from node_anomaly_trainer.log_lines import LogLine, read_lines
from node_anomaly_trainer.moment import moment

LOG_FEATURES = tuple(feature for feature in CATALOGUE if feature.group == "logs")
RATE_TICKS = 4
"""Intervals that a rate spans, as on a node."""

MAX_TICKS = 2_000_000
SOURCE = "files"


def replay_logs(paths: Sequence[Path], node: str, interval_s: float) -> pd.DataFrame:
    """One row a tick: `timestamp` (unix seconds), `node`, and a column for each log feature, NaN if unknown.

    The lines of all files are merged by their times; one that is older than its tick counts in the tick that
    is open. Only the lines of one tick are held. Raises SourceError.
    """
    counters = LogCounters((SOURCE,))
    evaluator = FeatureEvaluator(LOG_FEATURES, RATE_TICKS * interval_s)
    times: list[float] = []
    rows: list[NDArray[np.float64]] = []
    for end, lines in _ticks(heapq.merge(*map(read_lines, paths), key=attrgetter("time")), interval_s):
        if lines:
            data = b"".join(line.message.replace(b"\n", b" ") + b"\n" for line in lines)
            counters.add(SOURCE, "", len(lines), len(data), data, bytes(line.severity for line in lines))
        counters.tick(end)
        rows.append(evaluator.update(end, counters.reading(end)))
        times.append(end)
    if not rows:
        raise SourceError("no log line was found", "name log files that are not empty")
    frame = pd.DataFrame(np.array(rows), columns=[feature.name for feature in LOG_FEATURES])
    frame.insert(0, "node", node)
    frame.insert(0, "timestamp", times)
    return frame


def _ticks(lines: Iterator[LogLine], interval_s: float) -> Iterator[tuple[float, list[LogLine]]]:
    """The lines of each tick, and the unix second at which it ends; ticks without lines too."""
    end: float | None = None
    taken: list[LogLine] = []
    count = 0
    before = 0.0
    for line in lines:
        if end is None:
            end = (line.time // interval_s + 1) * interval_s
        elif line.time - end > MAX_TICKS * interval_s:  # known at once: not after as many empty ticks
            raise SourceError(
                f"after a line of {moment(before)} the next is of {moment(line.time)}, more than "
                f"{MAX_TICKS:,} ticks later",
                "leave out the file whose times are wrong, or choose a longer --interval",
            )
        before = line.time
        while line.time >= end:
            yield end, taken
            end, taken, count = end + interval_s, [], count + 1
            if count > MAX_TICKS:
                raise SourceError(
                    f"the lines span more than {MAX_TICKS:,} ticks", "a longer --interval, or fewer files"
                )
        taken.append(line)
    if end is not None:
        yield end, taken
