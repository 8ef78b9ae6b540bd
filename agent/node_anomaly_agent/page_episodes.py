"""The card of the status page that lists what was recorded of the latest alarms."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from node_anomaly_agent.episode import Episode
from node_anomaly_agent.page_html import card, code, score_text, table, text
from node_anomaly_agent.snapshot import Snapshot
from node_anomaly_agent.units import format_age, format_value

LISTED = 6
REASONS = 3
PROCESSES = 3


def episodes_card(snapshot: Snapshot, now: float) -> str:
    """The latest episodes, newest first, each with why and who was busy; nothing where there was none."""
    recent = snapshot.episodes.recent[-LISTED:]
    if not recent:
        return ""
    rows = [_row(episode, now) for episode in reversed(recent)]
    head = ("Episode began", "Lasted", "Peak", "Why, at its peak")
    return card("Episodes", table(head, rows), "episodes")


def _row(episode: Episode, now: float) -> tuple[str, ...]:
    if episode.ongoing:
        lasted = '<span class="bad">still going on</span>'
    else:
        lasted = text(format_age(episode.end - episode.start))
        if episode.ended == "outgrown":
            lasted += '<div class="dim">not recovered: the threshold rose</div>'
    began = f"{_clock(episode.start)}, {format_age(now - episode.start)} ago"
    why = [
        f"{code(cause.feature)} {_share(cause.share)}: {text(format_value(cause.observed, cause.unit))} "
        f"instead of {text(format_value(cause.expected, cause.unit))}"
        for cause in (episode.peak_reasons or episode.start_reasons)[:REASONS]
    ]
    names = list(dict.fromkeys(process.name for process in episode.processes))[:PROCESSES]
    busy = f'<div class="dim">busiest: {", ".join(code(name) for name in names)}</div>' if names else ""
    return text(began), lasted, text(score_text(episode.peak)), "<br>".join(why) + busy


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"


def _clock(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%-d %b %H:%M UTC")
