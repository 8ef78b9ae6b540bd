"""What people know about real incidents, as labels on a history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, UNKNOWN, History
from node_anomaly_trainer.node_names import NodeNames
from node_anomaly_trainer.settings import LATEST_S


@dataclass(frozen=True, slots=True)
class Incident:
    """Something was wrong from `start` to `stop` (unix seconds) on `nodes`; on all if that is empty."""

    start: float
    stop: float
    nodes: tuple[str, ...] = ()
    note: str = ""


def read_incidents(path: Path, setting: str = "labels.incidents") -> tuple[Incident, ...]:
    """Incidents from a YAML list or a CSV with the keys from, to, nodes (a list, or split by ;) and note.

    `setting` is what names the file in the configuration. Raises SourceError naming the entry.
    """
    entries = _rows(path, setting)
    incidents = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: incident {number}"
        if not isinstance(entry, Mapping):
            raise SourceError(f"{where} is not a mapping", "write from, to, nodes and note")
        if unknown := sorted(set(map(str, entry)) - {"from", "to", "nodes", "note"}):
            raise SourceError(f"{where}: unknown key {unknown[0]}", "known: from, to, nodes, note")
        start, stop = time_of(entry.get("from"), where, "from"), time_of(entry.get("to"), where, "to")
        if stop <= start:
            raise SourceError(f"{where} ends before it starts", "swap from and to")
        nodes = entry.get("nodes") or ()
        listed = nodes.split(";") if isinstance(nodes, str) else nodes
        if not isinstance(listed, list | tuple):
            raise SourceError(f"{where}: nodes is no list", "write nodes: [a, b], or leave it out for all")
        names = tuple(str(node).strip() for node in listed)
        incidents.append(Incident(start, stop, names, str(entry.get("note") or "")))
    return tuple(incidents)


def struck(
    history: History, incidents: Sequence[Incident], names: NodeNames, note: Callable[[str], None]
) -> NDArray[np.bool_]:
    """Ticks and nodes (t, m) inside any of the incidents.

    Incidents outside the range, on unknown nodes, or that overlap another one are told to `note`.
    """
    inside = np.zeros(history.labels.shape, dtype=bool)
    for incident in incidents:
        name = incident.note or f"incident at {datetime.fromtimestamp(incident.start, UTC):%Y-%m-%d %H:%M}Z"
        if unknown := [node for node in incident.nodes if not names.find(node)]:
            note(f"{name}: no history of {', '.join(unknown)}")
        concerned = np.full(len(history.nodes), not incident.nodes)
        for node in incident.nodes:
            concerned[list(names.find(node))] = True
        ticks = (history.timestamps >= incident.start) & (history.timestamps < incident.stop)
        if not ticks.any():
            note(f"{name}: outside the history's time range")
        struck_now = ticks[:, None] & concerned[None, :]
        if (inside & struck_now).any():
            note(f"{name}: overlaps another incident")
        inside |= struck_now
    return inside


def runs(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Where (t,) is True without a break: first tick and the tick after the last, (n, 2)."""
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1)))
    return edges.reshape(-1, 2)


def count_events(anomalous: NDArray[np.bool_], apart_ticks: int) -> int:
    """How many things happened in (t, m): what begins on several nodes within `apart_ticks` is one."""
    starts = np.sort(np.concatenate([runs(column)[:, 0] for column in anomalous.T] or [np.empty(0, int)]))
    return int(len(starts) > 0) + int((np.diff(starts) > apart_ticks).sum())


def guard_band(labels: NDArray[np.int8], ticks: int) -> NDArray[np.int8]:
    """A copy of (t, m) labels where normal ticks within `ticks` of an anomalous one are unknown.

    What leads up to an incident and what follows it is neither: a model must not learn it as either.
    """
    anomalous = labels == ANOMALOUS
    before = np.cumsum(np.pad(anomalous, ((1, 0), (0, 0))), axis=0)
    at = np.arange(len(labels))
    low, high = np.clip(at - ticks, 0, None), np.clip(at + ticks + 1, None, len(labels))
    near = before[high] > before[low]
    return np.where(near & (labels == NORMAL), UNKNOWN, labels).astype(np.int8)


def _rows(path: Path, setting: str) -> Sequence[object]:
    hint = "a YAML list or a CSV with from, to, nodes, note"
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin a CSV with a mark
        if path.suffix == ".csv":
            return _csv_rows(text, path)
        entries = yaml.safe_load(text)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}", f"check {setting}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not YAML: {error}", hint) from error
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise SourceError(f"{path}: expected a list of incidents", hint)
    return entries


def _csv_rows(text: str, path: Path) -> Sequence[object]:
    import csv

    rows = list(csv.DictReader(text.splitlines(), restkey="a column without a name"))
    if rows and not {"from", "to"} <= set(rows[0]):
        raise SourceError(f"{path}: no columns from and to", "name them in the first row")
    return rows


def time_of(value: object, where: str, key: str) -> float:
    """Unix seconds of what a person wrote: ISO 8601 (UTC if no offset is given), a date, or a number.

    Raises SourceError for what is none, or lies before 1970 or after 2200.
    """
    seconds = _seconds_of(value, where, key)
    if 0 <= seconds < LATEST_S:  # NaN is not
        return seconds
    hint = "write ISO 8601 (2026-05-01T12:00:00Z) or unix seconds"
    if LATEST_S <= seconds < 1000 * LATEST_S:
        hint = f"that looks like milliseconds: write {seconds / 1000:.0f}"
    raise SourceError(f"{where}: {key} is no time between 1970 and 2200", hint)


def _seconds_of(value: object, where: str, key: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        try:
            value = float(value) if value.replace(".", "", 1).isdigit() else datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, float):
        return value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    raise SourceError(f"{where}: {key} is no time", "write ISO 8601 (2026-05-01T12:00:00Z) or unix seconds")
