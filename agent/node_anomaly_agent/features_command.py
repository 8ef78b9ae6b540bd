"""`anomaly-agent features`: the catalogue, and what this host has of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from node_anomaly_agent.clock import Clock
from node_anomaly_agent.loop_parts import Sampling
from node_anomaly_agent.sampler import CollectorStatus
from node_anomaly_agent.units import format_value
from node_anomaly_core.features import Feature

SAMPLES = 4
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Found:
    """A feature, its state on this host (`active`, `constant` or `missing`) and its latest value."""

    feature: Feature
    state: str
    value: float


def look_at_features(
    sampler: Sampling, features: Sequence[Feature], clock: Clock
) -> tuple[list[Found], Mapping[str, CollectorStatus]]:
    """Sample the host for two seconds; `features` are the sampler's, in its order.

    `constant` only means that nothing moved in that time. Also gives how each collector did at last.
    """
    samples = [sampler.sample(clock.time())]
    for _ in range(SAMPLES - 1):
        clock.wait(PAUSE_S)
        samples.append(sampler.sample(clock.time()))
    values = np.array([sample.values for sample in samples])
    found = []
    for feature, column in zip(features, values.T, strict=True):
        seen = column[~np.isnan(column)]
        state = "missing" if not seen.size else "constant" if np.ptp(seen) == 0 else "active"
        found.append(Found(feature, state, float(seen[-1]) if seen.size else float("nan")))
    return found, samples[-1].collectors


def complaints(collectors: Mapping[str, CollectorStatus], *, missing: bool = True) -> list[str]:
    """Why a collector has nothing: it failed or, with `missing`, the host has no such thing."""
    return [
        f"collector {name} {'has nothing to read' if status.missing else 'failed'}: {status.error}"
        for name, status in collectors.items()
        if not status.success and (missing or not status.missing)
    ]


def render_features(
    found: list[Found],
    collectors: Mapping[str, CollectorStatus],
    output: str,
    window: str,
    matchers: str,
) -> str:
    """As `table`, with what collectors complain of, or `json`; the last two go into the PromQL."""
    if output == "json":
        document = [
            {
                "name": one.feature.name,
                "unit": one.feature.unit,
                "group": one.feature.group,
                "kind": one.feature.kind,
                "direction": one.feature.direction,
                "help": one.feature.help,
                "promql": one.feature.promql(window, matchers),
                "state": one.state,
                "value": None if one.state == "missing" else one.value,
            }
            for one in found
        ]
        return json.dumps(document, indent=2) + "\n"
    head = ("FEATURE", "STATE", "NOW", "KIND", "GROUP", "MEANING")
    rows = [
        (f.name, one.state, format_value(one.value, f.unit), f.kind, f.group, f.help)
        for one in found
        for f in [one.feature]
    ]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(5)]
    lines = [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)), row[5]))
        for row in (head, *rows)
    ]
    states = [one.state for one in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("active", "constant", "missing"))
    said = complaints(collectors)
    lines += ["", *said] if said else []
    return "\n".join([*lines, "", f"{len(found)} features: {counts} (a look of two seconds)"]) + "\n"
