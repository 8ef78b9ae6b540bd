"""Which metrics there are, from the code that exposes them, and which ones a text or an expression names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

import rig
from node_anomaly_trainer.drift import FeatureDrift
from node_anomaly_trainer.drift_metrics import drift_registry
from node_anomaly_trainer.run_metrics import begun_registry, run_registry

OF_PROMETHEUS = {"up", "ALERTS", "vector"}
"""What a Prometheus has by itself."""

_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|", re.MULTILINE)
_OURS = re.compile(r"\b(?:\w+:)?anomal(?:y|ies)_\w+(?::\w+)*\b|\bmodel_accuracy\b")
_OURS_BUT_NO_METRIC = re.compile(r"node_anomaly_\w+")
_NOISE = (
    re.compile(r"#.*"),
    re.compile(r'"(?:[^"\\]|\\.)*"'),
    re.compile(r"\{[^}]*\}"),
    re.compile(r"\[[^\]]*\]"),
    re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"),
    re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\b"),
)
_NAME = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "Inf", "NaN"}


def agents() -> set[str]:
    """Of the agent: docs/metrics.md, which another test holds to the code."""
    names: set[str] = set()
    for name, kind in _ROW.findall((rig.REPOSITORY / "docs" / "metrics.md").read_text()):
        names |= {f"{name}_{end}" for end in ("bucket", "sum", "count")} if kind == "histogram" else {name}
    assert "anomaly_score" in names
    return names


def trainers() -> set[str]:
    """Of the trainer, as it exports them."""
    return {
        sample.name
        for registry in trainer_registries()
        for family in registry.collect()
        for sample in family.samples
    }


def trainer_registries(now: float = 1.0, drifted: int = 1) -> tuple[CollectorRegistry, ...]:
    """What the trainer's own code exports of an invented run that ended at `now`, and of invented drift."""
    evaluation = SimpleNamespace(
        faults=40,
        false_alarms_per_node_week=0.8,
        budget=1.0,
        tick_cpu_seconds=0.002,
        bundle_bytes=300_000,
        fault_recall=(("combined", 0.9), ("pca", 0.7)),
        parity_forest_max=1e-16,
        parity_lstm_max=0.02,
        accuracy=0.93,
    )
    report: Any = SimpleNamespace(
        outcome="accepted",
        evaluation=evaluation,
        seconds=60.0,
        samples=1_000_000,
        reasons=(),
        path="/srv/bundles/0",
        version="0" * 16,
        trained_at=now,
        forecast=(SimpleNamespace(horizon_s=900.0, skill=0.1, features=("cpu_busy_ratio",)),),
    )
    drifts = [FeatureDrift(f"feature_{number}_ratio", 0.3, 0.2, 1000) for number in range(drifted)]
    ended = run_registry(report, {"fetch": 10.0, "fit": 30.0}, now)
    return begun_registry(now - 60.0), ended, drift_registry(drifts, 0.25)


def recorded() -> set[str]:
    """Of the recording rules."""
    groups = yaml.safe_load((rig.REPOSITORY / "rules" / "recording.yml").read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"]}


def known() -> set[str]:
    """All of them."""
    return agents() | trainers() | recorded() | OF_PROMETHEUS


def in_expression(promql: str) -> set[str]:
    """Every metric that an expression selects by name, ours or not."""
    for noise in _NOISE:
        promql = noise.sub(" ", promql)
    return set(_NAME.findall(promql)) - _WORDS


def in_text(text: str) -> set[str]:
    """Names of ours anywhere in a text."""
    return set(_OURS.findall(_OURS_BUT_NO_METRIC.sub(" ", text)))


def promql_blocks(markdown: str) -> Iterator[str]:
    """The lines of its promql blocks, each an expression."""
    for block in re.findall(r"```promql\n(.*?)```", markdown, re.DOTALL):
        yield from (line.strip() for line in block.splitlines() if line.strip())
