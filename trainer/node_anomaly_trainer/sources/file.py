"""History from a CSV or Parquet file: timestamp, node, one column per feature, label."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import FileConfig
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, UNKNOWN, History
from node_anomaly_trainer.progress import Note, Report
from node_anomaly_trainer.sources.admission import Admit, admit_any

TIMESTAMP, NODE, LABEL = "timestamp", "node", "label"
LABELS = (ANOMALOUS, NORMAL, UNKNOWN)
MILLISECONDS_FROM = 1e11  # unix seconds beyond the year 5000 are milliseconds, and so on
LARGEST_GRID = 400_000_000  # values; 3.2 GB
SPARSEST_GRID = 50  # cells per row of the file
_GATHERED = 0.5  # of 1, were all rows at the same place within their interval


def read_file(
    config: FileConfig,
    features: Sequence[Feature],
    interval_s: float,
    report: Report,
    note: Note,
    *,
    admit: Admit = admit_any,
) -> History:
    """History on a grid of `interval_s`; the last sample of a tick counts, gaps stay missing.

    A row belongs to the tick that it is nearest to, as far as rows lie at one place within their interval.

    `features` are the known ones; a column of another name becomes a feature known only by its name. Values
    that are not finite are missing. `admit` hears how much it will be before the grid is made. Raises
    SourceError with row (line of a CSV, header included) and column, and what `admit` raises.
    """
    path = Path(config.path)
    frame = read_frame(path)
    report(0.4, f"{len(frame):,} rows")
    names = [str(name) for name in frame.columns]
    times = timestamps_of(frame, path)
    nodes, node_of_row = nodes_of(frame, config.node)
    known = {feature.name: feature for feature in features}
    columns = [name for name in names if name not in (TIMESTAMP, NODE, LABEL)]
    if not columns:
        raise SourceError(f"{path}: no feature column", "add one column per feature beside timestamp")
    report(0.6, "reading numbers")
    labels = _labels(frame, path)
    start, tick = _grid(times, node_of_row, interval_s, path)
    shape = (int(tick.max()) + 1, len(nodes))
    _check_size(shape, len(columns), times, path)
    admit(shape[1], shape[0], len(columns))
    # numpy keeps the last of repeated indices only for sorted input of one kind: make it explicit.
    order = np.lexsort((times, tick, node_of_row))
    last = np.append((np.diff(tick[order]) != 0) | (np.diff(node_of_row[order]) != 0), True)
    chosen = order[last]
    values = np.full((*shape, len(columns)), np.nan)
    for column, name in enumerate(columns):
        values[tick[chosen], node_of_row[chosen], column] = numbers_of(frame, name, path)[chosen]
        del frame[name]  # or the history would be held twice
    grid_labels = np.full(shape, UNKNOWN, dtype=np.int8)
    grid_labels[tick[chosen], node_of_row[chosen]] = labels[chosen]
    if len(chosen) < len(frame):
        note(
            f"{path.name}: {len(frame) - len(chosen):,} of {len(frame):,} rows share their node and "
            f"tick with a later one and were left out"
        )
    if unknown := [name for name in columns if name not in known]:
        note(f"{path.name}: features not in the catalogue: {', '.join(unknown)}")
    return History(
        features=tuple(known.get(name) or unknown_feature(name) for name in columns),
        interval_s=interval_s,
        nodes=nodes,
        timestamps=start + interval_s * np.arange(shape[0], dtype=np.float64),
        values=values,
        labels=grid_labels,
        origin={"source": "file", "path": path.name, "rows": str(len(frame))},
    )


def unknown_feature(name: str) -> Feature:
    """A feature of which only the name is known: any direction, no PromQL, no floor of its own."""
    return Feature(
        name=name,
        unit="count",
        help="A column of the training file.",
        group="custom",
        kind="gauge",
        direction="both",
        floor=1e-9,
        expression=None,
    )


def read_frame(path: Path) -> pd.DataFrame:
    """The rows of a CSV or Parquet file that has a timestamp column. Raises SourceError."""
    hint = "the file needs a header row with timestamp, node, feature names and label"
    try:
        frame = _read_parquet(path) if path.suffix in (".parquet", ".pq") else _read_csv(path)
    except OSError as error:
        raise SourceError(
            f"{path}: {error.strerror or error}", "name an existing CSV or Parquet file"
        ) from error
    except pd.errors.EmptyDataError as error:
        raise SourceError(f"{path}: the file is empty", hint) from error
    except (pd.errors.ParserError, UnicodeDecodeError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {' '.join(str(error).split())}", hint) from error
    if TIMESTAMP not in frame.columns:
        close = difflib.get_close_matches(TIMESTAMP, [str(name) for name in frame.columns], n=1, cutoff=0.4)
        raise SourceError(
            f"{path}: no column {TIMESTAMP!r}, it has {', '.join(map(str, frame.columns[:8]))}",
            f"rename {close[0]} to {TIMESTAMP}" if close else hint,
        )
    if not len(frame):
        raise SourceError(f"{path}: a header but no row", "write at least one sample")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    return frame.set_axis(_names(map(str, frame.columns), path), axis="columns")


def _names(written: Iterable[str], path: Path) -> list[str]:
    """Of columns, as people mean them: without the spaces around them, each once. Raises SourceError."""
    names = [name.strip() for name in written]
    if doubled := next((name for at, name in enumerate(names) if name in names[:at]), None):
        raise SourceError(f"{path}: column {doubled!r} appears twice", "rename or drop one")
    return names


def _read_csv(path: Path) -> pd.DataFrame:
    """With the names of nodes as they stand there, `001` and `NA` too."""
    written = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
    header = _names(written, path)
    if "" in header:
        raise SourceError(
            f"{path}: column {header.index('') + 1} has no name", "name or drop it; an index is not needed"
        )
    frame = pd.read_csv(path, low_memory=False)
    if not frame.index.equals(pd.RangeIndex(len(frame))):  # pandas takes the first column for an index
        raise SourceError(
            f"{path}: its rows have more fields than the header",
            "drop the comma at the end of each row, or name the column",
        )
    frame = frame.set_axis(header, axis="columns")
    if NODE in header:
        named = pd.read_csv(path, usecols=[header.index(NODE)], dtype=str, keep_default_na=False)
        frame[NODE] = named.iloc[:, 0].str.strip()
    return frame


def timestamps_of(frame: pd.DataFrame, path: Path) -> NDArray[np.float64]:
    """Unix seconds of each row, from numbers (s, ms, us or ns), ISO 8601 text (UTC if no offset) or dates."""
    column = frame[TIMESTAMP]
    dates = pd.api.types.is_datetime64_any_dtype(column)
    numbers = None if dates else pd.to_numeric(column, errors="coerce")
    if numbers is not None and numbers.notna().mean() >= 0.5:
        times = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
        while np.nanmedian(np.abs(times)) > MILLISECONDS_FROM:  # or micro- and nanoseconds
            times = times / 1000.0
    else:
        text = column if dates else column.astype(str)
        parsed = pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")
        stamps = parsed.to_numpy(dtype="datetime64[us]")
        times = np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / 1e6)
    bad = ~np.isfinite(times)
    if bad.any():
        row = int(np.argmax(bad))
        raise SourceError(
            f"{path}: row {row + 2}, column {TIMESTAMP}: {column.iloc[row]!r} is no time",
            "write ISO 8601 (2026-05-01T12:00:00Z) or unix seconds",
        )
    return np.asarray(times, dtype=np.float64)


def nodes_of(frame: pd.DataFrame, default: str) -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Names of the nodes and which one each row is of; `default` where the frame does not say."""
    if NODE not in frame.columns:
        return (default,), np.zeros(len(frame), dtype=np.intp)
    named = frame[NODE].astype(object)
    names = named.where(named.notna(), "").astype(str).replace("", default)
    codes, nodes = pd.factorize(names, sort=True)
    return tuple(str(node) for node in nodes), codes.astype(np.intp)


def numbers_of(frame: pd.DataFrame, name: str, path: Path) -> NDArray[np.float64]:
    """A column as numbers (n,), NaN where the cell is empty or not finite; SourceError for a text."""
    column = frame[name]
    if pd.api.types.is_bool_dtype(column):
        column = column.astype(np.float64)
    numbers = pd.to_numeric(column, errors="coerce")
    bad = (numbers.isna() & column.notna()).to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise SourceError(
            f"{path}: row {row + 2}, column {name}: {str(column.iloc[row])[:40]!r} is no number",
            "leave the cell empty where a value is missing, and drop columns of text",
        )
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(values), values, np.nan)


def _labels(frame: pd.DataFrame, path: Path) -> NDArray[np.int8]:
    if LABEL not in frame.columns:
        return np.full(len(frame), UNKNOWN, dtype=np.int8)
    labels = np.nan_to_num(numbers_of(frame, LABEL, path), nan=float(UNKNOWN))
    bad = ~np.isin(labels, LABELS)
    if bad.any():
        row = int(np.argmax(bad))
        raise SourceError(
            f"{path}: row {row + 2}, column {LABEL}: {labels[row]:g} is no label",
            "use 1 anomalous, 0 normal, -1 or empty unknown",
        )
    return labels.astype(np.int8)


def _grid(
    times: NDArray[np.float64], node_of_row: NDArray[np.intp], interval_s: float, path: Path
) -> tuple[float, NDArray[np.intp]]:
    """Where the grid starts and the tick of each row; refuses a file much coarser than the grid."""
    gaps = [np.diff(np.unique(times[node_of_row == node])) for node in np.unique(node_of_row)]
    # Not the median: a file full of gaps is still as fine as its closest rows.
    spacing = float(np.percentile(np.concatenate(gaps), 10)) if any(map(len, gaps)) else interval_s
    if spacing > 1.5 * interval_s:
        raise SourceError(
            f"{path}: its rows are {spacing:g} s apart, the interval is {interval_s:g} s",
            f"set interval: {spacing:g}s in the configuration (train and compare also take --interval)",
        )
    start = float(np.floor(times.min() / interval_s) * interval_s)
    within = (times - start) / interval_s
    tick = np.floor(within - _edge(within) + 1e-6).astype(np.intp)
    first = int(tick.min())
    return start + first * interval_s, tick - first


def _edge(within: NDArray[np.float64]) -> float:
    """Where a tick begins, as a share of the interval: half of one away from where rows usually lie.

    A collector that writes every whole minute, a second early or late, would lose rows at an edge there.
    Times are in intervals; 0 where they lie anywhere.
    """
    turn = 2 * np.pi * within
    x, y = float(np.cos(turn).mean()), float(np.sin(turn).mean())
    return math.atan2(y, x) / (2 * math.pi) - 0.5 if math.hypot(x, y) > _GATHERED else 0.0


def _check_size(shape: tuple[int, int], features: int, times: NDArray[np.float64], path: Path) -> None:
    cells = shape[0] * shape[1]
    if cells <= SPARSEST_GRID * len(times) + 100_000:
        if cells * features <= LARGEST_GRID:
            return
        raise SourceError(
            f"{path}: {shape[0]:,} ticks of {shape[1]} nodes and {features} features are "
            f"{cells * features:,} values, at most {LARGEST_GRID:,} are read from a file",
            "train with a longer --interval, or write fewer nodes or a shorter time into it",
        )
    row = int(np.argmax(np.abs(times - np.median(times))))
    raise SourceError(
        f"{path}: {len(times):,} rows spread over {shape[0]:,} ticks of {shape[1]} nodes; "
        f"the row furthest off is {row + 2} at {times[row]:.0f}",
        "correct that timestamp, or train with a longer --interval",
    )
