"""Prometheus' own evaluation of rules over series of the past, by `promtool test rules`.

Nothing here knows what `for`, `keep_firing_for` or a vector match means. promtool is given the series and
asked once a minute which alerts fire; it is told to expect none, and what it complains about is the answer.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess  # noqa: TID251  # the rules are evaluated by Prometheus' own program
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import ConfigError, TrainingError
from node_anomaly_trainer.backtest.rules import Rules

ASKED_EVERY_S = 60
_TIMEOUT_S = 3_600
_QUERY = 'ALERTS{alertstate="firing"}'
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_TIME = re.compile(r"time: ((?:\d+(?:ms|[smhdwy]))+),")
_DURATION = re.compile(r"(\d+)(ms|[smhdwy])")
_SAMPLE = re.compile(r'\{__name__="ALERTS", ((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*"(?:, )?)+)\}')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)=("(?:[^"\\]|\\.)*")')

Array = NDArray[np.float64]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One series over the ticks of a piece: a metric, its labels, and values (t,), NaN = no sample."""

    metric: str
    labels: Labels
    values: Array


@dataclass(frozen=True, slots=True)
class Firing:
    """One alert that fires without a break, from and to in seconds of the same clock as the piece."""

    alert: str
    labels: tuple[tuple[str, str], ...]
    start: float
    stop: float

    @property
    def instance(self) -> str:
        """The node it speaks of; "" for one about several."""
        return dict(self.labels).get("instance", "")


def find_promtool(asked: str | None = None) -> str:
    """Its path. Raises ConfigError where it is not installed."""
    found = shutil.which(asked or "promtool")
    if found is None:
        raise ConfigError(
            f"{asked or 'promtool'}: not found",
            "it comes with Prometheus: install that here, or name the program with --promtool",
        )
    return found


def fired(
    promtool: str, rules: Rules, lines: Sequence[Line], interval_s: float, ticks: int, lead_in: int
) -> list[tuple[float, str, tuple[tuple[str, str], ...]]]:
    """What fired at each minute after `lead_in` ticks: seconds since the first tick, alert, labels.

    Raises TrainingError where promtool refuses what it is given.
    """
    first = int(-(-lead_in * interval_s // ASKED_EVERY_S))
    minutes = range(first, int((ticks - 1) * interval_s // ASKED_EVERY_S) + 1)
    test = {
        "rule_files": ["rules.json"],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": f"{round(1000 * interval_s)}ms",
                "input_series": [
                    {"series": _series(line.metric, line.labels), "values": notation(line.values)}
                    for line in lines
                ],
                "promql_expr_test": [
                    {"expr": _QUERY, "eval_time": f"{minute * ASKED_EVERY_S}s"} for minute in minutes
                ],
            }
        ],
    }
    with tempfile.TemporaryDirectory(prefix="anomaly-backtest-") as folder:
        # YAML holds JSON, and JSON is written a hundred times as fast
        Path(folder, "rules.json").write_text(json.dumps({"groups": list(rules.groups)}), encoding="utf-8")
        Path(folder, "test.json").write_text(json.dumps(test), encoding="utf-8")
        try:
            done = subprocess.run(  # noqa: S603  # a program that the operator named
                [promtool, "test", "rules", "test.json"],
                cwd=folder, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TrainingError(f"{promtool}: {error}", "use a shorter --since, or fewer --jobs") from error
    output = done.stdout + done.stderr
    # Another program ends with 0 or 1, too: that nothing fired is known only from what promtool says.
    said = {0: "SUCCESS", 1: "FAILED"}.get(done.returncode)
    return parsed(output, refused=said is None or said not in output)


def parsed(output: str, *, refused: bool = False) -> list[tuple[float, str, tuple[tuple[str, str], ...]]]:
    """What promtool complained about, as what fired when. Raises TrainingError for any other complaint."""
    found = []
    at: float | None = None
    for line in output.splitlines():
        if said := _TIME.search(line):
            at = sum(int(count) * _UNITS[unit] for count, unit in _DURATION.findall(said[1]))
        elif "got:" in line or (at is not None and line.lstrip().startswith("{__name__")):
            for sample in _SAMPLE.findall(line):
                labels = {key: str(json.loads(value)) for key, value in _LABEL.findall(sample)}
                alert = labels.pop("alertname")
                labels.pop("alertstate", None)
                found.append((at or 0.0, alert, tuple(sorted(labels.items()))))
    if refused or ("FAILED" in output and not found):
        raise TrainingError(
            f"promtool could not evaluate the rules: {output.strip()[:400] or 'it said nothing'}",
            "check them with `promtool check rules`, and that --promtool is promtool",
        )
    return found


def merged(
    samples: Iterable[tuple[float, str, tuple[tuple[str, str], ...]]], gap_s: float = 1.5 * ASKED_EVERY_S
) -> list[Firing]:
    """Samples that follow one another within `gap_s` are one firing; in the order of their beginnings."""
    by_alert: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    for at, alert, labels in samples:
        by_alert.setdefault((alert, labels), []).append(at)
    found = []
    for (alert, labels), times in by_alert.items():
        ordered = np.unique(times)
        breaks = np.flatnonzero(np.diff(ordered) > gap_s) + 1
        found += [
            Firing(alert, labels, float(part[0]), float(part[-1]) + ASKED_EVERY_S)
            for part in np.split(ordered, breaks)
        ]
    return sorted(found, key=lambda one: (one.start, one.alert, one.labels))


def notation(values: Array) -> str:
    """Values (t,) in promtool's notation; a series that ends is marked stale, as a scrape would mark it."""
    parts = []
    there = False
    for value in values.tolist():
        if value == value:  # noqa: PLR0124  # not NaN
            parts.append(f"{value:.6g}")
            there = True
        else:
            parts.append("stale" if there else "_")
            there = False
    return " ".join(parts)


def _series(metric: str, labels: Labels) -> str:
    inside = ",".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in labels.items())
    return f"{metric}{{{inside}}}"
