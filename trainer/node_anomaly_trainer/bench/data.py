"""The folder that bench reads: a manifest and one .npz per entity, as docs/bench-data.md describes it."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from node_anomaly_core.errors import ConfigError, SourceError
from node_anomaly_core.manifest import LONGEST_INTERVAL_S, MAX_FEATURES
from node_anomaly_trainer.bench.files import HIDDEN, sha256
from node_anomaly_trainer.config import SHORTEST_INTERVAL_S
from node_anomaly_trainer.settings import nearest

MANIFEST = "manifest.json"
TRAIN_SHARE = 0.15
"""Of the rows of a series without a train part, from its start."""

START_S = 1_700_000_000.0
"""When a series without times begins (unix seconds); no figure depends on it."""

LEAST_ROWS = 20
LONGEST_NAME = 200
"""Bytes; file systems hold 255, and ends such as `.csv` and those of files on their way take some."""

SPARSEST_GRID = 4
MOST_ERRORS = 5
"""That are told of one folder, each on a line; more are counted."""

FORMAT = "see docs/bench-data.md for the format"

Arrays = Mapping[str, NDArray[Any]]

# As numpy and zipfile say it of files with wrong bytes: RuntimeError is encryption or a way to compress that
# Python has not.
_DAMAGED = (ValueError, OSError, EOFError, BadZipFile, zlib.error, RuntimeError)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entity of the manifest: what it is called and where its arrays are."""

    dataset: str
    entity: str
    path: Path
    interval_s: float | None
    """From the manifest, for files that do not say it themselves."""

    @property
    def name(self) -> str:
        """Unique within the folder."""
        return f"{self.dataset}/{self.entity}"


@dataclass(frozen=True, eq=False, slots=True)
class Series:
    """What a detector may see of an entity: no label.

    `train` (t0, f) and `test` (t, f) are ticks on one grid that goes on from one to the other, NaN = missing.
    """

    entry: Entry
    columns: tuple[str, ...]
    interval_s: float
    start_s: float
    train: NDArray[np.floating]
    test: NDArray[np.floating]
    tick_of_row: NDArray[np.intp]  # (r,) for each judged row, in time order, its tick of `test`
    row_in_file: NDArray[np.intp]  # (r,) and which row of the scores file it is
    rows_in_file: int

    @property
    def has_train_part(self) -> bool:
        """Whether every row of the file is judged, because train is apart from it."""
        return len(self.row_in_file) == self.rows_in_file

    def judged(self, ticks: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores (r,) of the judged rows from those of the test's ticks (t,)."""
        return np.asarray(ticks, dtype=np.float64)[self.tick_of_row]

    def in_file(self, judged: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores (rows_in_file,) as they are written: NaN for rows that are train."""
        rows = np.full(self.rows_in_file, np.nan)
        rows[self.row_in_file] = judged
        return rows


def read_manifest(folder: Path) -> tuple[Entry, ...]:
    """All entries in order. Raises SourceError for all that is wrong with any of them."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(
            f"{path}: {error.strerror}", f"name a folder with a {MANIFEST}; {FORMAT}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not JSON: {error}", FORMAT) from error
    if not isinstance(document, list) or not document:
        raise SourceError(f"{path}: expected a list of entities", FORMAT)
    wrong: list[SourceError] = []
    entries: list[Entry] = []
    seen: Counter[str] = Counter()
    for number, item in enumerate(document, 1):
        found = [SourceError(f"{path}: entry {number}{what}", hint) for what, hint in _faults(item)]
        wrong += found
        if not found:
            entries.append(_entry(item, folder))
            seen[entries[-1].name] += 1
            if seen[entries[-1].name] == 2:
                wrong.append(
                    SourceError(
                        f"{path}: {entries[-1].name} appears twice", "give each entity a name of its own"
                    )
                )
    if wrong:
        raise _all_of(wrong, f"{path}: {len(wrong)} mistakes:", f"correct them; {FORMAT}")
    return tuple(entries)


def choose(entries: Sequence[Entry], datasets: Sequence[str] = (), pattern: str = "") -> tuple[Entry, ...]:
    """Those of the named data sets (all without a name) whose entity, or dataset/entity, fits a glob.

    Raises ConfigError for a data set that is not there and for a pattern that fits nothing.
    """
    known = {entry.dataset: entry for entry in entries}
    for dataset in datasets:
        if dataset not in known:
            raise ConfigError(f"--datasets: there is no {dataset}{nearest(dataset, known)}")
    chosen = tuple(
        entry
        for entry in entries
        if (not datasets or entry.dataset in datasets)
        and (not pattern or fnmatchcase(entry.entity, pattern) or fnmatchcase(entry.name, pattern))
    )
    if not chosen:
        example = next(entry.entity for entry in entries if not datasets or entry.dataset in datasets)
        raise ConfigError(f"--entities {pattern}: fits no entity", f"one of them is {example}")
    return chosen


def require_fleet(servers: Sequence[Series]) -> None:
    """Raises ValueError where they cannot be nodes of one fleet."""
    if len({(one.columns, one.interval_s) for one in servers}) != 1:
        dataset = servers[0].entry.dataset
        raise ValueError(f"{dataset}: servers of different columns or intervals are no fleet")


def digests_of(series: Series) -> frozenset[str]:
    """What names the measurements of `train` and of `test`, however the file is packed, named or rounded.

    A part in which no column ever moves names nothing: many counters stand at 0 for as long.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite here, and names it as well
        return frozenset(
            sha256(f"{part.shape}".encode() + part.astype(np.float32).tobytes())
            for part in (series.train, series.test)
            if _moves(part)
        )


def _moves(part: NDArray[np.floating]) -> bool:
    """Whether any column (t, f) has two values that differ, or is missing at some ticks only."""
    return bool(((part != part[0]) & ~(np.isnan(part) & np.isnan(part[0]))).any())


def digest_of(series: Series, label: NDArray[np.int8]) -> str:
    """What names all that an entity's file holds, label (r,) included."""
    arrays = (series.train, series.test, series.tick_of_row, series.row_in_file, label)
    heads = [f"{array.dtype} {array.shape}" for array in arrays]
    told = f"{series.columns} {series.interval_s!r} {series.start_s!r} {series.rows_in_file} {heads}"
    return sha256(b"".join([told.encode(), *(array.tobytes() for array in arrays)]))


def load(entry: Entry) -> tuple[Series, NDArray[np.int8]]:
    """An entity's series and the label (r,) of its judged rows. Raises SourceError, saying what is wrong."""
    try:
        return _load(entry)
    except MemoryError as error:
        # Or a damaged header asks for more than there is; what numpy says has the shape, which tells.
        raise SourceError(
            f"{entry.path}: memory does not suffice to read it{f': {error}' if str(error) else ''}",
            "free memory or use fewer --jobs; if its arrays are not so large, write it anew with numpy.savez",
        ) from error


def _load(entry: Entry) -> tuple[Series, NDArray[np.int8]]:
    content = _read(entry)
    try:
        file = np.load(BytesIO(content), allow_pickle=False)
        arrays = {key: file[key] for key in file.files} if isinstance(file, NpzFile) else {}
    except _DAMAGED as error:
        raise SourceError(
            f"{entry.path}: cannot be read: {error}", f"write it with numpy.savez; {FORMAT}"
        ) from error
    return _multivariate(arrays, entry) if "test" in arrays else _univariate(arrays, entry)


def together(errors: Sequence[SourceError], files: int) -> SourceError:
    """What is wrong with one or more of so many files as one error: the first few in words, a line each."""
    head = f"{len(errors)} of {files} files cannot be used:"
    return _all_of(errors, head, f"correct them, or leave them out of {MANIFEST}; {FORMAT}")


def _all_of(errors: Sequence[SourceError], head: str, hint: str) -> SourceError:
    if len(errors) == 1:
        return errors[0]
    told = [head, *(error.message for error in errors[:MOST_ERRORS])]
    if len(errors) > MOST_ERRORS:
        told.append(f"and {len(errors) - MOST_ERRORS} more")
    return SourceError("\n".join(told), hint)


def _read(entry: Entry) -> bytes:
    try:
        return entry.path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{entry.path}: {error.strerror}", f"the manifest names it for {entry.name}; {FORMAT}"
        ) from error


def _faults(item: object) -> Iterator[tuple[str, str]]:
    """All that is wrong with an entry of the manifest, each with what to do about it."""
    if not isinstance(item, Mapping):
        yield " is no object", FORMAT
        return
    for key in ("dataset", "entity", "path"):
        value = item.get(key)
        parts = PurePosixPath(value).parts if isinstance(value, str) and value.isprintable() else ()
        if not parts or ".." in parts or parts[0] == "/" or str(PurePosixPath(*parts)) != value:
            yield f": {key} is {value!r}", f"expected a name such as a/b; {FORMAT}"
        elif key == "dataset" and (value.startswith(HIDDEN) or "/" in value):
            yield f": dataset is {value!r}", "use a plain name, with no dot first"
        elif key != "path" and max(len(part.encode()) for part in parts) > LONGEST_NAME:
            yield f": {key} is a name of {len(value.encode())} bytes", f"use {LONGEST_NAME} at most"
    interval = item.get("interval_s")
    if interval is None:
        return
    # Beyond 1e300 an integer of JSON is no float any more.
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not abs(interval) < 1e300:
        yield f": interval_s is {interval!r:.40}", "write seconds"


def _entry(item: Mapping[str, Any], folder: Path) -> Entry:
    """Of an item without faults."""
    interval = item.get("interval_s")
    return Entry(
        item["dataset"],
        item["entity"],
        folder / item["path"],
        None if interval is None else float(interval),
    )


def _multivariate(arrays: Arrays, entry: Entry) -> tuple[Series, NDArray[np.int8]]:
    _require(arrays, ("train", "test", "label", "columns"), entry)
    train, test = arrays["train"], arrays["test"]
    for name, array in (("train", train), ("test", test)):
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise _wrong(entry, f"{name} is {_shape(array)}, expected numbers of shape (rows, features)")
    columns = tuple(str(column) for column in np.atleast_1d(arrays["columns"]).tolist())
    if train.shape[1] != test.shape[1] or len(columns) != test.shape[1]:
        raise _wrong(
            entry,
            f"train has {train.shape[1]} features, test {test.shape[1]}, and columns names {len(columns)}",
        )
    if not 1 <= len(columns) <= MAX_FEATURES:
        raise _wrong(entry, f"{len(columns)} features, a bundle holds 1 to {MAX_FEATURES}")
    if len(train) < 2 or not len(test):
        raise _wrong(entry, f"train has {len(train)} rows and test {len(test)}")
    rows = np.arange(len(test))
    series = Series(
        entry=entry,
        columns=columns,
        interval_s=_interval(arrays, entry),
        start_s=START_S,
        train=_floating(train),
        test=_floating(test),
        tick_of_row=rows,
        row_in_file=rows,
        rows_in_file=len(test),
    )
    return series, _label(arrays["label"], len(test), "test", entry)


def _univariate(arrays: Arrays, entry: Entry) -> tuple[Series, NDArray[np.int8]]:
    """Rows in time order on a grid.

    Of several within one tick the last counts; a tick without a row is missing.
    """
    _require(arrays, ("time", "value", "label"), entry)
    time, value = arrays["time"], arrays["value"]
    for name, array in (("time", time), ("value", value)):
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise _wrong(entry, f"{name} is {_shape(array)}, expected numbers of shape (rows,)")
    rows = len(time)
    if rows < LEAST_ROWS or len(value) != rows:
        raise _wrong(
            entry, f"{rows} times and {len(value)} values, expected as many of both, {LEAST_ROWS} or more"
        )
    if not np.isfinite(time).all():
        raise _wrong(entry, "a time is not a finite number")
    label = _label(arrays["label"], rows, "time", entry)
    interval = _interval(arrays, entry)
    order = np.argsort(time, kind="stable")
    offsets = (time[order] - time[order][0]).astype(np.float64)
    if offsets[-1] > SPARSEST_GRID * rows * interval:
        raise _wrong(entry, f"{rows} rows {interval:g} s apart, but they span {offsets[-1]:g} s")
    tick = np.rint(offsets / interval).astype(np.intp)
    grid = np.full((int(tick[-1]) + 1, 1), np.nan)
    grid[tick, 0] = value[order]
    first = int(TRAIN_SHARE * rows)
    cut = int(tick[first])
    if cut < 2:
        raise _wrong(entry, f"the first {TRAIN_SHARE:.0%} of its rows span {cut} ticks")
    series = Series(
        entry=entry,
        columns=("value",),
        interval_s=interval,
        start_s=float(time[order][0]),
        train=grid[:cut],
        test=grid[cut:],
        tick_of_row=tick[first:] - cut,
        row_in_file=order[first:],
        rows_in_file=rows,
    )
    return series, label[order[first:]]


def _require(arrays: Arrays, names: Iterable[str], entry: Entry) -> None:
    if missing := [name for name in names if name not in arrays]:
        raise _wrong(
            entry, f"no {' and no '.join(missing)}; it holds {', '.join(sorted(arrays)) or 'nothing'}"
        )


def _interval(arrays: Arrays, entry: Entry) -> float:
    given = arrays.get("interval_s")
    if given is not None and (given.size != 1 or given.dtype.kind not in "fiu"):
        raise _wrong(entry, f"interval_s is {_shape(given)}, expected one number")
    interval = entry.interval_s if given is None else float(given.item())
    if interval is None:
        raise _wrong(entry, "no interval_s, and none in the manifest")
    if not SHORTEST_INTERVAL_S <= interval <= LONGEST_INTERVAL_S:
        raise _wrong(
            entry, f"interval_s is {interval:g}, expected {SHORTEST_INTERVAL_S:g} to {LONGEST_INTERVAL_S:g}"
        )
    return interval


def _label(label: NDArray[Any], rows: int, of: str, entry: Entry) -> NDArray[np.int8]:
    if label.shape != (rows,):
        raise _wrong(entry, f"label has shape {label.shape}, {of} has {rows} rows")
    if label.dtype.kind not in "fiub" or not np.isin(label, (0, 1)).all():
        odd = label[~np.isin(label, (0, 1))]
        raise _wrong(entry, f"label holds {str(odd[0])[:40] if len(odd) else label.dtype}, expected 0 and 1")
    return label.astype(np.int8)


def _floating(array: NDArray[Any]) -> NDArray[np.floating]:
    """As in the file where it is floating: a float32 is compared as one, in every detector."""
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _shape(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def _wrong(entry: Entry, what: str) -> SourceError:
    return SourceError(f"{entry.path}: {what}", FORMAT)
