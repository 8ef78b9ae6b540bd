"""`anomaly-trainer predict` and `explain`: files in, files and tables out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from node_anomaly_core.bundle import resolve_current, starter_bundle, verify_bundle
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.errors import BundleError, SourceError
from node_anomaly_trainer.predict import COMBINED, Predictions, Reason, Rows, as_frame, predict_rows, rows_of
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.sources.file import NODE, TIMESTAMP, read_frame
from node_anomaly_trainer.whole_file import write_whole

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Written:
    """What `predict` did."""

    output: Path
    bundle: str
    model: str
    rows: int
    scored: int
    alarms: int
    """Rows that are part of an alarm."""
    highest: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """Why one row has its score."""

    timestamp: float
    node: str
    score: float
    alarm: bool
    members: dict[str, float]
    reasons: tuple[Reason, ...]


def open_bundle(bundle: Path | None, published: Path) -> Bundle:
    """The bundle in `bundle`, or the one that is published; verified before anything of it is parsed.

    A directory that holds several, as one that is published to, means its current one. Raises BundleError.
    """
    root = bundle or published
    current = resolve_current(root) if root.is_dir() else None
    if current is None:
        raise BundleError(
            "missing",
            f"{root}: no bundle there",
            f"name one with --bundle, train one with `anomaly-trainer train`, or take the starter "
            f"with --bundle {starter_bundle()}",
        )
    return verify_bundle(current)


def predict_file(
    bundle: Bundle, source: Path, output: Path, progress: Progress, *, model: str, reasons: int, alarm: bool
) -> Written:
    """Score every row of a CSV or Parquet file; the output appears whole, in the order of the input.

    Raises SourceError where the input cannot be read or the output not be written.
    """
    with progress.phase("read rows"):
        frame = read_frame(source)
        rows = rows_of(frame, bundle, source)
    with progress.phase("score rows") as report:
        found = predict_rows(bundle, rows, report, reasons, model)
    table = as_frame(_as_written(frame, source), found, alarm=alarm, reasons=reasons > 0)
    try:
        write_whole(output, _encoded(table, output))
    except OSError as error:
        raise SourceError(f"{output}: {error.strerror or error}", "choose a writable --output") from error
    known = found.score[np.isfinite(found.score)]
    return Written(
        output,
        bundle.version,
        model,
        len(frame),
        len(known),
        int(found.alarm.sum()),
        float(known.max()) if len(known) else math.nan,
        found.notes,
    )


def explain_file(
    bundle: Bundle,
    source: Path,
    progress: Progress,
    *,
    rows: int,
    at: float | None,
    node: str | None,
    top: int,
) -> tuple[list[Explained], tuple[str, ...]]:
    """The reasons of the `rows` highest scores, or of the rows nearest to `at`; only of `node` if named.

    Raises SourceError where the input cannot be read or has no such node.
    """
    with progress.phase("read rows"):
        table = rows_of(read_frame(source), bundle, source)
    if node is not None and node not in table.nodes:
        raise SourceError(f"{source}: no rows of {node}", f"it holds {', '.join(table.nodes[:8])}")
    with progress.phase("score rows") as report:
        found = predict_rows(bundle, table, report, top)
    chosen = _chosen(table, found, rows, at, node)
    if not chosen:
        raise SourceError(f"{source}: none of the rows asked for has a score", "give it a longer file")
    return [_explained(table, found, row) for row in chosen], found.notes


def _chosen(table: Rows, found: Predictions, most: int, at: float | None, node: str | None) -> list[int]:
    known = np.isfinite(found.score)
    if node is not None:
        known &= table.node_of_row == table.nodes.index(node)
    where = np.flatnonzero(known)
    if at is None:
        return [int(row) for row in where[np.argsort(-found.score[where], kind="stable")][:most]]
    distance = np.abs(table.times[where] - at)
    order = where[np.argsort(distance, kind="stable")]
    nearest: dict[int, int] = {}
    for row in order:  # one row of each node: several nodes may be asked about at one moment
        nearest.setdefault(int(table.node_of_row[row]), int(row))
    return list(nearest.values())[:most]


def _explained(table: Rows, found: Predictions, row: int) -> Explained:
    return Explained(
        float(table.times[row]),
        table.nodes[int(table.node_of_row[row])],
        float(found.score[row]),
        bool(found.alarm[row]),
        {name: float(scores[row]) for name, scores in found.members.items()},
        found.reasons[row],
    )


def _as_written(frame: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The frame with its timestamp and node columns as their text stands in a CSV."""
    if source.suffix in PARQUET:
        return frame
    kept = [name for name in (TIMESTAMP, NODE) if name in frame.columns]
    written = pd.read_csv(source, usecols=lambda name: name.strip() in kept, dtype=str, keep_default_na=False)
    return written.rename(columns=str.strip)[kept]


def _encoded(table: pd.DataFrame, output: Path) -> bytes:
    if output.suffix in PARQUET:
        return bytes(table.to_parquet(index=False))
    exact = {
        name: table[name].map(lambda value: format(value, ".15g"))
        for name in (TIMESTAMP, NODE)
        if name in table.columns and pd.api.types.is_float_dtype(table[name])
    }
    return table.assign(**exact).to_csv(index=False, float_format="%.6g").encode()


def print_written(written: Written, console: Console) -> None:
    """One line for each thing to know, and where the scores are."""
    for note in written.notes:
        _line(console, f"note: {note}")
    scale = "" if written.model == COMBINED else f" of {written.model} alone"
    _line(
        console,
        f"{written.scored:,} of {written.rows:,} rows have a score{scale}, the highest "
        f"{written.highest:.2f}; {written.alarms:,} rows are in alarm (score >= 1.0, held)",
    )
    _line(console, f"bundle {written.bundle}")
    _line(console, f"wrote {written.output}")


def print_explained(rows: Sequence[Explained], notes: Sequence[str], console: Console) -> None:
    """One table per row: feature, share of the score, observed and expected."""
    for note in notes:
        _line(console, f"note: {note}")
    for row in rows:
        moment = datetime.fromtimestamp(row.timestamp, UTC)
        alarm = ", in alarm" if row.alarm else ""
        table = Table(
            title=f"{row.node} at {moment:%Y-%m-%d %H:%M:%S}Z: score {row.score:.2f}{alarm}",
            caption=", ".join(f"{name} {value:.2f}" for name, value in row.members.items()),
        )
        table.add_column("feature")
        for name in ("share", "observed", "expected"):
            table.add_column(name, justify="right")
        for reason in row.reasons:
            table.add_row(
                reason.feature, f"{reason.share:.0%}", f"{reason.observed:.4g}", f"{reason.expected:.4g}"
            )
        console.print(table)


def as_json(value: Written | Sequence[Explained]) -> str:
    """For scripts; a number that is not known is null."""
    plain = (
        asdict(value) | {"output": str(value.output)}
        if isinstance(value, Written)
        else [asdict(row) for row in value]
    )
    return json.dumps(_without_nan(plain), indent=2, allow_nan=False)


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
