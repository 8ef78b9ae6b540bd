"""`--once`: sample and score this node now, and say why.

A running agent's saved state gives the history and the counters' window, so one more sample is enough.
Without it the host is sampled a few times, a second apart: values, but no verdict. Nothing is ever written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from node_anomaly_agent.api import forecast_document, witness_documents
from node_anomaly_agent.assembly import build_logs, build_sampler, choose_bundle_directory, node_name
from node_anomaly_agent.bounded_file import read_bounded
from node_anomaly_agent.clock import Clock
from node_anomaly_agent.config import AgentConfig
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import TEXT
from node_anomaly_agent.forecast_status import ForecastStatus, leaving_words
from node_anomaly_agent.loop_parts import Sampling
from node_anomaly_agent.sampler import Sample
from node_anomaly_agent.scorer import AgentScorer, Candidate, load_candidate
from node_anomaly_agent.snapshot import FEATURE_STATES, Snapshot, reasons
from node_anomaly_agent.state import (
    AgentState,
    StateError,
    closed_directory,
    load_state,
    saved_directory,
    state_directories,
    writable_directory,
)
from node_anomaly_agent.state_keeper import SAVE_EVERY_S
from node_anomaly_agent.suppression import Suppression
from node_anomaly_agent.units import OUTGROWN, UNKNOWN, format_age, format_value, threshold_words
from node_anomaly_agent.web_answer import finite
from node_anomaly_core.bundle import DIGEST, resolve_current, starter_bundle
from node_anomaly_core.errors import AnomalyError, BundleError
from node_anomaly_core.forecast import horizon_label
from node_anomaly_core.witnesses import in_words

SAMPLES = 4
"""How often the host is looked at when there is no saved window: three seconds of rates."""

TOP_REASONS = 8


class Exit(IntEnum):
    """Exit codes of `--once`."""

    NORMAL = 0
    ERROR = 1
    ANOMALOUS = 2
    NOT_WARM = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `--once` found; `notes` are things the reader should know, one sentence each."""

    snapshot: Snapshot
    notes: tuple[str, ...] = ()
    exit: Exit = field(default=Exit.NOT_WARM)


def run_once(
    config: AgentConfig,
    output: str,
    version: str,
    clock: Clock,
    environ: Mapping[str, str],
    show_lines: int = 0,
) -> int:
    """Evaluate once and print the result as `table`, `json` or `prom`; returns the exit code.

    `show_lines` log lines of new patterns at most go with the table, secrets masked, and nowhere else.

    Raises AnomalyError if no bundle can be used.
    """
    logs = build_logs(config)
    sampler = build_sampler(config, logs)
    if logs is not None:
        logs.keep_examples(show_lines)
    try:
        outcome = evaluate(config, sampler, clock, environ)
    finally:
        sampler.close()
    renderers = {"table": render_table, "json": render_json, "prom": render_prom}
    print(renderers[output](outcome, version), end="")
    if show_lines and logs is not None and output == "table":
        print(*shown_lines(logs.examples), sep="\n")
    return int(outcome.exit)


def evaluate(config: AgentConfig, sampler: Sampling, clock: Clock, environ: Mapping[str, str]) -> Outcome:
    """One evaluation, continued from a running agent's state if there is a fresh one."""
    notes: list[str] = []
    candidates = state_directories(config.state_directory, environ)
    saved = saved_directory(candidates)
    if saved is None and (closed := closed_directory(candidates)):
        notes.append(
            f"This user may not read {closed}: ask as root for a running agent's score, or ask it: "
            "anomaly-agent explain."
        )
    state = _fresh_state(saved, config, clock.time(), notes)
    bundles = choose_bundle_directory(config, saved or writable_directory(candidates))
    candidate = _find_bundle(config, bundles, state, node_name(config, environ), notes)
    scorer = AgentScorer(candidate, Suppression(config.suppressors, [one.name for one in config.features]))
    if state is not None:
        why_not = scorer.resume(state, config.interval_s, clock.time())
        if why_not:
            notes.append(f"The running agent's history is of no use here: {why_not}.")
            state = None
    if state is not None:
        sampler.restore(state.sampler)
        sample = sampler.sample(clock.time())
    else:
        sample = _look_for_a_while(sampler, clock)
    score = scorer.step(sample.timestamp, sample.values)
    snapshot = Snapshot(
        started=sample.timestamp,
        interval_s=config.interval_s,
        heartbeat=clock.monotonic(),
        timestamp=sample.timestamp,
        score=score,
        warmup_ticks=scorer.warmup_ticks,
        warmup_done=scorer.warmup_done,
        bundle=scorer.info,
        collectors=sample.collectors,
        forecast=ForecastStatus(scorer.look_ahead() if score.warm else None),
    )
    return Outcome(snapshot, tuple(notes), _exit(snapshot))


def _exit(snapshot: Snapshot) -> Exit:
    if snapshot.score is None or not snapshot.score.warm or math.isnan(snapshot.score.score):
        return Exit.NOT_WARM
    return Exit.ANOMALOUS if snapshot.score.score >= 1 else Exit.NORMAL


def _fresh_state(
    directory: Path | None, config: AgentConfig, now: float, notes: list[str]
) -> AgentState | None:
    try:
        state = None if directory is None else load_state(directory)
    except StateError as error:
        notes.append(f"{error.message}.")
        return None
    if state is None:
        notes.append("No running agent has saved its history here: rates cover three seconds.")
        return None
    age = now - state.saved_at
    # Twice what an agent waits between two saves, and two ticks: as old as a running one's state gets.
    if not -SAVE_EVERY_S <= age <= 2 * (SAVE_EVERY_S + config.interval_s):
        notes.append(f"The saved history is {format_age(age)} old: no agent runs, rates cover three seconds.")
        return None
    return state


def _look_for_a_while(sampler: Sampling, clock: Clock) -> Sample:
    sample = sampler.sample(clock.time())
    for _ in range(SAMPLES - 1):
        clock.wait(1.0)
        sample = sampler.sample(clock.time())
    return sample


def _find_bundle(
    config: AgentConfig, bundles: Path, state: AgentState | None, node: str, notes: list[str]
) -> Candidate:
    """The bundle the running agent uses, or the one on offer, or the starter."""
    paths: list[Path] = []
    try:
        offered = resolve_current(bundles)
    except (BundleError, OSError) as error:
        notes.append(f"Bundle directory {bundles} is of no use: {error}.")
        offered = None
    if offered is not None:
        paths.append(offered)
    if state is not None:
        paths.append(bundles / state.bundle_version)
    paths.append(starter_bundle())
    paths = [path for path in paths if path.is_dir()]
    if state is not None:
        paths.sort(key=lambda path: _recorded_version(path) != state.bundle_version)  # stable
    refusal: AnomalyError = AnomalyError(f"no bundle in {bundles}, and no starter bundle is installed")
    for path in paths:
        try:
            keys = () if path == starter_bundle() else config.distribution.trusted_keys
            return load_candidate(path, config.features, config.interval_s, node, keys)
        except BundleError as error:
            notes.append(f"Bundle refused ({error.reason}): {error.message}.")
            refusal = error
    raise refusal


def _recorded_version(path: Path) -> str:
    try:
        return read_bounded(path / DIGEST, 16)[:16].decode("ascii", errors="replace")
    except OSError:
        return ""


def render_prom(outcome: Outcome, version: str) -> str:
    """For node_exporter's textfile collector: no process_* series, which would clash with its own."""
    return expose(outcome.snapshot, version, TEXT, whole_agent=False)


def render_json(outcome: Outcome, version: str) -> str:
    """One object; what is not known is null."""
    snapshot, score, bundle = outcome.snapshot, outcome.snapshot.score, outcome.snapshot.bundle
    document: dict[str, Any] = {
        "verdict": outcome.exit.name.lower(),
        "warm": snapshot.warm,
        "score": None if score is None else _number(score.score),
        "threshold_ratio": None if score is None else _number(score.threshold_ratio),
        "threshold_learned_ratio": None if score is None else _number(score.threshold_learnt),
        "timestamp": snapshot.timestamp,
        "models": {name: _number(value) for name, value in score.model_scores.items()} if score else {},
        "held_back_by": [] if score is None else witness_documents(score.held_back_by),
        "outgrown": score.outgrown if score is not None and score.warm else None,
        "features": [
            {
                "feature": reason.feature.name,
                "unit": reason.feature.unit,
                "state": reason.state,
                "contribution": _number(reason.share),
                "observed": _number(reason.observed),
                "expected": _number(reason.expected),
            }
            for reason in reasons(snapshot)
        ],
        "forecast": finite(forecast_document(snapshot)),
        "bundle": None
        if bundle is None
        else {"version": bundle.version, "origin": bundle.origin, "path": bundle.path},
        "collectors": {
            name: {"success": status.success, "error": status.error}
            for name, status in snapshot.collectors.items()
        },
        "notes": list(outcome.notes),
        "agent_version": version,
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _two_digits(value: float) -> str:
    return UNKNOWN if math.isnan(value) else f"{value:.2f}"


def render_table(outcome: Outcome, _version: str) -> str:
    """For a person: verdict, models, reasons, what is missing."""
    snapshot = outcome.snapshot
    lines = [_headline(outcome), *(f"  {note}" for note in outcome.notes), ""]
    if snapshot.warm and snapshot.score is not None:
        own = threshold_words(snapshot.score.threshold_ratio, snapshot.score.threshold_learnt)
        lines += [
            f"Threshold of this node: {own}",
            "",
            "Models (1.0 is the alarm threshold)",
            *_models(snapshot),
            "",
        ]
    lines += [
        *_reasons(snapshot),
        "",
        *_forecast(snapshot),
        *_states(snapshot),
        *_collectors(snapshot),
        _bundle(snapshot),
    ]
    return "\n".join(lines) + "\n"


def shown_lines(lines: Sequence[bytes]) -> list[str]:
    """Log lines for the terminal of this host: secrets masked, nothing that a terminal would obey."""
    from node_anomaly_agent.logs.masking import mask_line  # by those who ask for lines

    if not lines:
        return ["", "No log lines of new patterns."]
    return ["", "Log lines of new patterns (secrets masked)", *(f"  {mask_line(line)}" for line in lines)]


def _headline(outcome: Outcome) -> str:
    snapshot, score = outcome.snapshot, outcome.snapshot.score
    if outcome.exit is Exit.NOT_WARM or score is None:
        return f"NOT WARM: no score yet, {snapshot.warmup_done} of {snapshot.warmup_ticks} ticks of history"
    return f"{outcome.exit.name}: anomaly_score {score.score:.2f}"


def _models(snapshot: Snapshot) -> list[str]:
    scores = {} if snapshot.score is None else snapshot.score.model_scores
    width = max(map(len, scores), default=0)
    lines = [f"  {name:<{width}}  {_two_digits(value)}" for name, value in scores.items()]
    if snapshot.score is not None and snapshot.score.held_back_by:
        missing = in_words(snapshot.score.held_back_by)
        lines.append(f"  No alarm: all together reach the threshold, without the agreement of {missing}")
    if snapshot.score is not None and snapshot.score.outgrown:
        lines.append(f"  Not recovered: {OUTGROWN}")
    return lines


def _reasons(snapshot: Snapshot) -> list[str]:
    """The top reasons once there is a score; before, the features that have a value."""
    warm = snapshot.warm
    rows = [
        (
            reason.feature.name,
            f"{100 * reason.share:.0f} %" if warm else "",
            format_value(reason.observed, reason.feature.unit),
            format_value(reason.expected, reason.feature.unit) if warm else "",
        )
        for reason in reasons(snapshot)
        if not math.isnan(reason.share if warm else reason.observed)
    ]
    head = ("Why", "share", "observed", "expected") if warm else ("Feature", "", "observed", "")
    shown = [head, *(rows[:TOP_REASONS] if warm else rows)]
    widths = [max(len(row[at]) for row in shown) for at in range(len(head))]
    lines = []
    for row in shown:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join(("", row[0].ljust(widths[0]), *numbers)).rstrip())
    return lines


def _forecast(snapshot: Snapshot) -> list[str]:
    forecast = snapshot.forecast.forecast
    if forecast is None:
        return []
    lines = ["Forecast (a normal node reaches 1.0 once per budget)"]
    lines += [
        f"  in {horizon_label(after)}  {_two_digits(score)}" for after, score in forecast.scores.items()
    ]
    lines += [
        f"  {one.feature.name} leaves its normal range {leaving_words(one)}" for one in forecast.leaving
    ]
    return [*lines, ""]


def _states(snapshot: Snapshot) -> list[str]:
    score, bundle = snapshot.score, snapshot.bundle
    if score is None or bundle is None:
        return []
    counts = ", ".join(f"{score.states.count(state)} {state}" for state in FEATURE_STATES)
    missing = [
        feature.name
        for feature, state in zip(bundle.features, score.states, strict=True)
        if state == "missing"
    ]
    return [f"Features: {counts}", *([f"  missing: {', '.join(missing)}"] if missing else [])]


def _collectors(snapshot: Snapshot) -> list[str]:
    failed = [f"  {name}: {s.error}" for name, s in snapshot.collectors.items() if not s.success]
    return ["Collectors without data:", *failed] if failed else []


def _bundle(snapshot: Snapshot) -> str:
    bundle = snapshot.bundle
    if bundle is None:
        return "Bundle: none"
    trained = format_age(snapshot.timestamp - bundle.trained_at)
    return f"Bundle: {bundle.version} ({bundle.origin}, trained {trained} ago) {bundle.path}"
