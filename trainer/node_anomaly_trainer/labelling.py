"""Every tick of a history is normal, anomalous, or neither: what is known from all sides, put together.

In this order, each over the one before it: firing alerts are anomalous; what a node does after a reboot or
while it is cordoned is neither; what a person called a false alarm is normal; incidents that a person wrote
down or confirmed are anomalous; windows that a person excluded are neither, and so is what lies close to
anything anomalous. The rest is normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, UNKNOWN, History
from node_anomaly_trainer.exclusions import MOST_NAMED, Found, ServerHistory
from node_anomaly_trainer.feedback import FALSE_ALARM, INCIDENT, Verdict, as_incidents, read_feedback
from node_anomaly_trainer.few import few
from node_anomaly_trainer.labels import count_events, guard_band, read_incidents, runs, struck
from node_anomaly_trainer.moment import moment
from node_anomaly_trainer.node_names import NodeNames
from node_anomaly_trainer.progress import Note
from node_anomaly_trainer.sources.prometheus_api import PrometheusApi

LONGEST_LESSON_S = 86400.0
"""What fires for longer is a state of the node: left out, but nothing to learn incidents from."""

LEAST_NORMAL_TICKS = 240
"""With fewer normal ticks to fit on, exclusions have left nothing of a node."""

ALERTS, REBOOT, CORDONED, WINDOWS, INCIDENTS, LABELS, GUARD = (
    "alerts",
    "reboot",
    "cordoned",
    "windows",
    "incidents",
    "labels",
    "guard",
)
WORDS = {
    ALERTS: "while alerts fired",
    REBOOT: "after a reboot",
    CORDONED: "while cordoned",
    WINDOWS: "in your windows",
    INCIDENTS: "in your incidents",
    LABELS: "labelled by the source",
    GUARD: "close to an incident",
}

AUTOMATIC = (ALERTS, REBOOT, CORDONED)
"""What a person's word counts for more than."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class Labelled:
    """A history with every label decided, and what decided it."""

    history: History
    excluded: Mapping[str, float]
    """Node-hours with samples that are not normal, by reason; what two reasons cover counts under both."""
    events: Mapping[str, int]
    """Incidents for the Random Forest, by where they are known from."""
    lines: tuple[str, ...]
    """The same for people."""
    false_alarms: tuple[Verdict, ...] = ()
    """Where a person said that nothing was wrong: the next bundle must not alarm there."""


def label(history: History, config: TrainConfig, note: Note, *, fitted: bool = True) -> Labelled:
    """Label and exclude as configured; of what will be `fitted`, nodes with too little for that are left out.

    Raises SourceError if a file or the server cannot be read, TrainingError if nothing normal is left.
    """
    history = _nobody_labelled_is_normal(history)
    server = _server(history, config, note)
    names = NodeNames(history.nodes) if server is None else server.names
    known = _from_server(server, config, history)
    verdicts = read_feedback(Path(config.labels.feedback)) if config.labels.feedback else ()
    told = as_incidents(verdicts, INCIDENT)
    known[INCIDENTS] = _from_file(config.labels.incidents, "labels.incidents", history, names, note)
    known[INCIDENTS] = Found(known[INCIDENTS].mask | struck(history, told, names, note), {})
    cleared = struck(history, as_incidents(verdicts, FALSE_ALARM), names, note)
    known[WINDOWS] = _from_file(config.exclusions.windows, "exclusions.windows", history, names, note)
    masks = {
        reason: found.mask & ~cleared if reason in AUTOMATIC else found.mask
        for reason, found in known.items()
    }
    masks[LABELS] = history.labels != NORMAL
    lessons = {
        ALERTS: _short(masks[ALERTS], history) if config.labels.alerts else np.zeros_like(masks[ALERTS]),
        INCIDENTS: masks[INCIDENTS],
        LABELS: history.labels == ANOMALOUS,
    }
    labels = history.labels.copy()
    labels[masks[ALERTS]] = UNKNOWN
    labels[lessons[ALERTS]] = ANOMALOUS
    labels[masks[REBOOT] | masks[CORDONED]] = UNKNOWN
    labels[cleared] = NORMAL
    labels[masks[INCIDENTS]] = ANOMALOUS
    labels[masks[WINDOWS]] = UNKNOWN
    _tell_overlaps(masks, history, note)
    guard = round(config.labels.guard / history.interval_s)
    guarded = guard_band(labels, guard)
    guarded[cleared & (labels == NORMAL)] = NORMAL
    masks[GUARD] = guarded != labels
    excluded = _hours(masks, history)
    events = {
        reason: count
        for reason, mask in lessons.items()
        if (count := count_events(mask & (labels == ANOMALOUS), guard))
    }
    lines = (_excluded_line(excluded, known[ALERTS].hours, history), _events_line(events, config))
    kept = replace(history, labels=guarded)
    if fitted:
        kept = _with_something_left(kept, config, note)
    return Labelled(
        kept, excluded, events, lines, tuple(one for one in verdicts if one.verdict == FALSE_ALARM)
    )


def _nobody_labelled_is_normal(history: History) -> History:
    """Where nobody has called anything normal, what is unknown counts as normal."""
    if (history.labels == NORMAL).any():
        return history
    return replace(
        history, labels=np.where(history.labels == UNKNOWN, NORMAL, history.labels).astype(np.int8)
    )


def _server(history: History, config: TrainConfig, note: Note) -> ServerHistory | None:
    if config.source.type != "prometheus":
        return None
    prometheus = config.source.prometheus
    return ServerHistory(PrometheusApi(prometheus), history, prometheus.matchers, note)


def _from_server(server: ServerHistory | None, config: TrainConfig, history: History) -> dict[str, Found]:
    nothing = Found(np.zeros(history.labels.shape, dtype=bool), {})
    known = dict.fromkeys((ALERTS, REBOOT, CORDONED), nothing)
    exclusions = config.exclusions
    if server is not None and exclusions.alerts:
        known[ALERTS] = server.firing(exclusions)
    if server is not None and exclusions.after_reboot > 0:
        known[REBOOT] = server.rebooted(exclusions.after_reboot)
    if server is not None and exclusions.cordoned:
        known[CORDONED] = server.cordoned()
    return known


def _from_file(path: str, setting: str, history: History, names: NodeNames, note: Note) -> Found:
    incidents = read_incidents(Path(path), setting) if path else ()
    return Found(struck(history, incidents, names, note), {})


def _short(mask: Mask, history: History) -> Mask:
    """Only what lasted less than LONGEST_LESSON_S."""
    short = mask.copy()
    for column in short.T:
        for start, stop in runs(column):
            if (stop - start) * history.interval_s > LONGEST_LESSON_S:
                column[start:stop] = False
    return short


def _tell_overlaps(masks: Mapping[str, Mask], history: History, note: Note) -> None:
    hour = history.interval_s / 3600.0
    if both := (masks[ALERTS] & masks[INCIDENTS]).sum() * hour:
        note(f"labels: {both:.1f} node-hours are in an incident and under a firing alert; they count once")
    if lost := (masks[WINDOWS] & masks[INCIDENTS]).sum() * hour:
        note(f"labels: {lost:.1f} node-hours are in an incident and in an excluded window: excluded")
    maintained = masks[ALERTS] & (masks[REBOOT] | masks[CORDONED] | masks[WINDOWS]) & ~masks[INCIDENTS]
    if quiet := maintained.sum() * hour:
        note(f"labels: alerts fired for {quiet:.1f} node-hours of reboots, cordons or windows: excluded")


def _hours(masks: Mapping[str, Mask], history: History) -> dict[str, float]:
    hours = dict.fromkeys(masks, 0.0)
    for at in range(len(history.nodes)):
        sampled = np.isfinite(history.values[:, at]).any(axis=1)
        for reason, mask in masks.items():
            hours[reason] += float((mask[:, at] & sampled).sum()) * history.interval_s / 3600.0
    return {reason: spent for reason, spent in hours.items() if spent > 0.0}


def _with_something_left(history: History, config: TrainConfig, note: Note) -> History:
    """Without the nodes of which exclusions have left too little to fit on."""
    stop = int(history.ticks * config.training.fit_fraction)
    least = min(LEAST_NORMAL_TICKS, stop // 2)
    kept: list[str] = []
    lost: list[str] = []
    short: list[str] = []
    for at, node in enumerate(history.nodes):
        sampled = np.isfinite(history.values[:stop, at]).any(axis=1)
        normal = sampled & (history.labels[:stop, at] == NORMAL)
        if sampled.sum() < least:
            short.append(node)
        else:
            (lost if normal.sum() < least else kept).append(node)
    if not kept and not lost:
        until = moment(history.timestamps[stop])
        raise TrainingError(
            f"none of {len(short)} nodes has {least} ticks with a sample until {until}, the "
            "part of the range that is fitted on",
            "read a shorter range that they were there for, or a longer one if it ends where they begin",
        )
    if not kept:
        raise TrainingError(
            f"exclusions and incidents leave none of {len(lost)} nodes {least} normal ticks",
            "see the notes above: narrow exclusions.alert_matchers or read a longer range",
        )
    if lost:
        note(f"exclusions: fewer than {least} normal ticks to fit on, left out: {few(lost, MOST_NAMED)}")
    if short:
        # With a baseline of next to nothing a node would count as known, and all of it as odd.
        note(
            f"fewer than {least} ticks with a sample in the part that is fitted on, left out (new, gone, or "
            "mostly missing; their agents score as nodes that the bundle does not know): "
            f"{few(short, MOST_NAMED)}"
        )
    return history.select_nodes(kept) if lost or short else history


def _excluded_line(excluded: Mapping[str, float], alerts: Mapping[str, float], history: History) -> str:
    if not excluded:
        return "excluded from normal history: nothing"
    parts = []
    for reason, spent in excluded.items():
        named = list(alerts.items())[:MOST_NAMED] if reason == ALERTS else []
        inside = f" ({', '.join(f'{name} {hours:.1f}' for name, hours in named)})" if named else ""
        parts.append(f"{spent:.1f} {WORDS[reason]}{inside}")
    whole = history.duration_s * len(history.nodes) / 3600.0
    return f"excluded from normal history, of {whole:.1f} node-hours: {', '.join(parts)}"


def _incident_files(config: TrainConfig) -> str:
    named = [Path(path).name for path in (config.labels.incidents, config.labels.feedback) if path]
    return " and ".join(named) or "an incidents file"


def _events_line(events: Mapping[str, int], config: TrainConfig) -> str:
    counted = (
        (ALERTS, "ALERTS"),
        (INCIDENTS, _incident_files(config)),
        (LABELS, "the source's labels"),
    )
    found = [
        f"{events.get(reason, 0)} events from {words}" for reason, words in counted if events.get(reason)
    ]
    return f"labels for the Random Forest: {', '.join(found) or 'no event known, so injected faults'}"
