"""The score of the last hours as a picture: inline SVG that stretches, with its labels as text around it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from node_anomaly_agent.page_html import table, text
from node_anomaly_agent.score_history import ScoreHistory, Span
from node_anomaly_agent.units import format_age

HEIGHT = 100.0
_LEAST_TOP = 1.5
_LISTED_SPANS = 5


def plot(history: ScoreHistory, now: float, *, listed: bool = True) -> str:
    """The figure, an HTML fragment, and with `listed` a table of its episodes.

    `now` is unix seconds.
    """
    top = _top(history)
    slots = max(len(history.peaks), 1)
    return (
        '<figure class="plot"><div class="frame">'
        f'<svg viewBox="0 0 {slots} {HEIGHT:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(_describe(history))}">{_drawing(history, top)}</svg>'
        f"{_y_labels(top)}{_nothing_yet(history)}</div>{_x_labels(history)}</figure>"
        + (_episodes(history, now) if listed else "")
    )


def _top(history: ScoreHistory) -> float:
    """The score at the upper edge: room above the peak, and always some above the threshold."""
    return max(_LEAST_TOP, 1.08 * _peak(history))


def _peak(history: ScoreHistory) -> float:
    finite = history.peaks[np.isfinite(history.peaks)]
    return float(finite.max()) if len(finite) else 0.0


def _describe(history: ScoreHistory) -> str:
    hours = f"{history.slot_s * len(history.peaks) / 3600:g} hours"
    if not history.known:
        return "No score yet."
    count = sum(1 for _ in history.spans())
    return f"Score over {hours}: peak {_peak(history):.2f}, threshold 1, episodes {count}."


def _drawing(history: ScoreHistory, top: float) -> str:
    line, area = [], []
    for first, values in _runs(history.peaks):
        points = [f"{first + at + 0.5:g} {_y(value, top):.1f}" for at, value in enumerate(values)]
        line.append("M" + "L".join(points) + ("h.01" if len(points) == 1 else ""))
        area.append(f"M{first + 0.5:g} {HEIGHT:g}L{'L'.join(points)}V{HEIGHT:g}Z")
    threshold, slots = _y(1.0, top), max(len(history.peaks), 1)
    stop = f"{threshold:.1f}%"
    shades = "".join(_shade(history, span) for span in history.spans())
    return (
        '<defs><linearGradient id="level" gradientUnits="userSpaceOnUse" x1="0" y1="0" x2="0" '
        f'y2="{HEIGHT:g}"><stop offset="{stop}" class="over"/><stop offset="{stop}" class="under"/>'
        f"</linearGradient></defs>{_grid(top, slots)}{shades}"
        f'<path class="area" d="{"".join(area)}"/>'
        f'<path class="threshold" d="M0 {threshold:.1f}H{slots}"/>'
        f'<path class="line" d="{"".join(line)}"/>'
    )


def _runs(peaks: NDArray[np.float32]) -> Iterator[tuple[int, list[float]]]:
    """Stretches without a gap: where each begins, and its values."""
    edges = np.flatnonzero(np.diff(np.isfinite(peaks).astype(np.int8), prepend=0, append=0))
    for first, last in edges.reshape(-1, 2).tolist():
        yield first, peaks[first:last].tolist()


def _y(value: float, top: float) -> float:
    return HEIGHT * (1.0 - min(max(value, 0.0), top) / top)


def _shade(history: ScoreHistory, span: Span) -> str:
    left = (span.start - history.start) / history.slot_s
    width = (span.end - span.start) / history.slot_s
    said = f"{_clock(span.start)} to {_clock(span.end)} UTC, peak {span.peak:.2f}"
    return (
        f'<rect class="shade" x="{left:g}" y="0" width="{width:g}" height="{HEIGHT:g}">'
        f"<title>{text(said)}</title></rect>"
    )


def _steps(top: float) -> list[float]:
    """Three to six round numbers from 0 to the top, always with the threshold among what is labelled."""
    step = next(size for size in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, math.inf) if top / size <= 5)
    return [step * at for at in range(int(top / step) + 1)] if math.isfinite(step) else [0.0]


def _grid(top: float, slots: int) -> str:
    lines = "".join(f"M0 {_y(value, top):.1f}H{slots}" for value in _steps(top))
    return f'<path class="grid" d="{lines}"/>'


def _y_labels(top: float) -> str:
    """Labels of the grid; one that would touch the threshold's is left out."""
    shown = [value for value in _steps(top) if abs(value - 1.0) / top > 0.09]
    labels = "".join(
        f'<span class="y" style="bottom:{100 * value / top:.1f}%">{value:g}</span>' for value in shown
    )
    return f'{labels}<span class="y one" style="bottom:{100 / top:.1f}%">1.0</span>'


def _x_labels(history: ScoreHistory) -> str:
    hours = history.slot_s * max(len(history.peaks), 1) / 3600
    marks = [f"{hours * part:g} h ago" for part in (1, 2 / 3, 1 / 3)] if len(history.peaks) else [""]
    return '<div class="x">' + "".join(f"<span>{mark}</span>" for mark in (*marks, "now")) + "</div>"


def _nothing_yet(history: ScoreHistory) -> str:
    return "" if history.known else '<span class="empty">drawn here once there is a score</span>'


def _episodes(history: ScoreHistory, now: float) -> str:
    spans = list(history.spans())
    if not spans:
        return ""
    rows = []
    for span in reversed(spans[-_LISTED_SPANS:]):
        going = span.end >= history.end
        lasted = format_age((now if going else span.end) - span.start)
        when = f"{_clock(span.start)} UTC"
        state = '<span class="bad">still going on</span>' if going else f"for {lasted}"
        rows.append((f"{when}, {format_age(now - span.start)} ago", state, f"{span.peak:.2f}"))
    more = len(spans) - len(rows)
    note = f'<p class="dim">and {more} before</p>' if more > 0 else ""
    return f'<div class="narrow">{table(("Episode began", "", "Peak"), rows, 2)}{note}</div>'


def _clock(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%H:%M") if math.isfinite(timestamp) else "?"
