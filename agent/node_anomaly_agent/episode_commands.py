"""`anomaly-agent episodes [ID]`: what was recorded, for people and as JSON. Reads files, asks no agent."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from node_anomaly_agent.episode import ID_PATTERN, Cause, Episode, EpisodeError, document
from node_anomaly_agent.episode_store import (
    EPISODES,
    episode_content,
    episode_files,
    parse_episode,
    read_episodes,
)
from node_anomaly_agent.state import closed_directory
from node_anomaly_agent.units import UNKNOWN, format_age, format_value, printable

MOST_LISTED = 10_000
_AS_WHOM = "ask as root or as the agent's user, or ask the agent: GET /api/v1/episodes"
_SHOWN_REASONS = 3
_FLIGHT_COLUMNS = 5
_ARROWS = {"above": "\N{UPWARDS ARROW}", "below": "\N{DOWNWARDS ARROW}"}


def find_directory(candidates: Sequence[Path]) -> Path:
    """The first state directory's that has any. Raises EpisodeError if it cannot be read."""
    if closed := closed_directory(candidates):
        raise EpisodeError(f"{closed} cannot be read by this user", _AS_WHOM)
    unreadable: list[Path] = []
    for directory in (path / EPISODES for path in candidates):
        try:
            if not directory.is_dir():
                continue
        except OSError:  # it lies where this user may not look, and may not be needed
            unreadable.append(directory)
            continue
        if os.access(directory, os.R_OK | os.X_OK):
            return directory
        unreadable.append(directory)
    if unreadable:
        raise EpisodeError(f"{unreadable[0]} cannot be read by this user", _AS_WHOM)
    return candidates[0] / EPISODES


def list_episodes(directory: Path, *, as_json: bool) -> tuple[str, list[str]]:
    """All of them, latest first, and a complaint for each file that is of no use. Raises EpisodeError."""
    found, errors = read_episodes(directory, MOST_LISTED)
    found.reverse()
    complaints = [error.message for error in errors]
    if as_json:
        return json.dumps([document(one) for one in found], indent=2, allow_nan=False) + "\n", complaints
    if not found:
        return f"No episodes in {directory}.\n", complaints
    head = ("EPISODE", "START (UTC)", "LASTED", "PEAK", "WHY")
    rows = [head, *(_row(one) for one in found)]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:4], widths, strict=True)), row[4]])
        for row in rows
    ]
    return _lines(lines), complaints


def show_episode(directory: Path, name: str, *, as_json: bool) -> str:
    """One of them with its flight record; `latest` is the latest. Raises EpisodeError."""
    files = episode_files(directory)
    if name == "latest" and files:
        path = files[-1]
    else:
        path = directory / f"{name}.json"
        if not ID_PATTERN.fullmatch(name) or path not in files:
            raise EpisodeError(
                f"there is no episode {name!r} in {directory}", "anomaly-agent episodes lists them"
            )
    content = episode_content(path)
    episode = parse_episode(path, content)
    if as_json:
        return content.decode()
    return _lines([*_facts(episode), *_why(episode), *_processes(episode), *_flight(episode)])


def _lines(lines: Sequence[str]) -> str:
    """As text: a file may hold names that no process has."""
    return "\n".join(map(printable, lines)) + "\n"


def _row(episode: Episode) -> tuple[str, ...]:
    why = "  ".join(_brief(cause) for cause in episode.peak_reasons[:_SHOWN_REASONS])
    return (episode.id, _time(episode.start), _lasted(episode), f"{episode.peak:.2f}", why or UNKNOWN)


def _brief(cause: Cause) -> str:
    return f"{cause.feature}{_ARROWS.get(cause.direction, '')} {100 * cause.share:.0f} %"


def _lasted(episode: Episode) -> str:
    age = format_age(episode.last - episode.start)
    return f"{age}, goes on" if episode.ongoing else age


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _facts(episode: Episode) -> list[str]:
    ends = {
        "": "goes on",
        "no_score": "no score any more",
        "outgrown": "not recovered: the threshold rose over it",
        "recovered": "score below 1 again",
    }
    end = UNKNOWN if math.isnan(episode.end) else f"{_time(episode.end)} UTC"
    rows = [
        ("episode", episode.id),
        ("start", f"{_time(episode.start)} UTC"),
        ("end", f"{end} ({ends[episode.ended]})"),
        ("lasted", format_age(episode.last - episode.start)),
        ("peak", f"{episode.peak:.2f} at {_time(episode.peak_time)} UTC (1.0 is the alarm threshold)"),
        ("bundle", episode.bundle_version),
        ("threshold ratio", format_value(episode.threshold_ratio, "")),
        ("new log patterns", str(episode.new_log_templates)),
    ]
    return [f"{name:<16}  {value}" for name, value in rows]


def _why(episode: Episode) -> list[str]:
    lines = []
    for title, causes in (("Why at the start", episode.start_reasons), ("At the peak", episode.peak_reasons)):
        rows: list[tuple[str, ...]] = [(title, "share", "observed", "expected")]
        for cause in causes:
            numbers = (format_value(value, cause.unit) for value in (cause.observed, cause.expected))
            rows.append(
                (
                    f"  {cause.feature} {_ARROWS.get(cause.direction, '')}",
                    f"{100 * cause.share:.0f} %",
                    *numbers,
                )
            )
        lines += ["", *_table(rows)]
    return lines


def _processes(episode: Episode) -> list[str]:
    if not episode.processes:
        return []
    rows = [("Processes at the start", "pid", "CPU (cores)", "memory", "disk")]
    rows += [
        (
            f"  {one.name}",
            str(one.pid),
            UNKNOWN if math.isnan(one.cpu_cores) else f"{one.cpu_cores:.2f}",
            format_value(one.resident_bytes, "bytes"),
            format_value(one.io_bytes_per_second, "bytes_per_second"),
        )
        for one in episode.processes
    ]
    return ["", *_table(rows)]


def _flight(episode: Episode) -> list[str]:
    """The features that mattered, tick by tick; all the others are in the JSON."""
    flight = episode.flight
    if not flight.rows:
        return []
    causes = {cause.feature: cause for cause in (*episode.start_reasons, *episode.peak_reasons)}
    shown = [name for name in causes if name in flight.features][:_FLIGHT_COLUMNS]
    columns = [flight.features.index(name) for name in shown]
    rows = [("Flight record (s)", "score", *shown)]
    for time, score, row in zip(flight.times, flight.scores, flight.rows, strict=True):
        mark = "*" if time == episode.start else " "
        cells = (format_value(row[at], causes[name].unit) for at, name in zip(columns, shown, strict=True))
        rows.append(
            (
                f" {mark}{time - episode.start:+.0f}",
                UNKNOWN if math.isnan(score) else f"{score:.2f}",
                *cells,
            )
        )
    return ["", *_table(rows)]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """First column to the left, numbers to the right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]
