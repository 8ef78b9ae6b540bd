"""docs/metrics.md, docs/features.md and the manual, generated from the code: `make docs` writes them.

With --check nothing is written; the exit code is 1 if a file differs from what the code says. The metrics are
those of a snapshot in which everything is known, so that every family has samples to read its labels off.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from manual import write_manual
from node_anomaly_agent.collectors import COLLECTORS
from node_anomaly_agent.degradation import DegradationStatus
from node_anomaly_agent.distribution_status import (
    AGREEMENTS,
    FETCH_RESULTS,
    FETCH_SOURCES,
    ROLLBACK_RESULTS,
    SHADOW_SKIP_REASONS,
    DistributionStatus,
    FetchStatus,
    ShadowStatus,
)
from node_anomaly_agent.episode_status import EPISODE_OPERATIONS
from node_anomaly_agent.exposition import collect
from node_anomaly_agent.families import Family
from node_anomaly_agent.fetch_errors import FETCH_REASONS
from node_anomaly_agent.forecast_status import ForecastStatus
from node_anomaly_agent.logs.status import DROP_REASONS, Counted, LogStatus
from node_anomaly_agent.process_stats import ProcessStats
from node_anomaly_agent.sampler import CollectorStatus
from node_anomaly_agent.selftest_status import SelfTestStatus
from node_anomaly_agent.snapshot import (
    FAILURE_REASONS,
    FEATURE_STATES,
    PHASES,
    SKIP_REASONS,
    STATE_OPERATIONS,
    BundleInfo,
    ReloadStatus,
    Snapshot,
)
from node_anomaly_agent.web_status import WebStatus
from node_anomaly_core.errors import BUNDLE_REASONS
from node_anomaly_core.features import CATALOGUE, Feature
from node_anomaly_core.forecast import Forecast, Leaving
from node_anomaly_core.manifest import MODEL_TYPES
from node_anomaly_core.reasons import Reasons
from node_anomaly_core.score import Score

ROOT = Path(__file__).resolve().parent.parent
WINDOW = "1m"

GROUPS = {
    "cpu": "CPU",
    "pressure": "Pressure",
    "memory": "Memory",
    "disk": "Disks",
    "filesystem": "File systems",
    "network": "Network",
    "kernel": "Kernel and hardware",
    "logs": "Logs",
}
UNITS = {
    "ratio": "ratio",
    "bytes_per_second": "bytes/s",
    "per_second": "1/s",
    "seconds": "s",
    "celsius": "°C",
    "count": "a number",
    "bytes": "bytes",
}
LABEL_VALUES = {
    ("anomaly_agent_features", "state"): FEATURE_STATES,
    ("anomaly_agent_evaluation_failures", "reason"): FAILURE_REASONS,
    ("anomaly_agent_evaluation_skipped", "reason"): SKIP_REASONS,
    ("anomaly_agent_evaluation_duration_seconds", "phase"): PHASES,
    ("anomaly_agent_bundle_reload_failures", "reason"): BUNDLE_REASONS,
    ("anomaly_agent_state_failures", "operation"): STATE_OPERATIONS,
    ("anomaly_agent_episode_failures", "operation"): EPISODE_OPERATIONS,
    ("anomaly_model_info", "origin"): ("trained", "starter"),
    ("anomaly_model_info", "type"): MODEL_TYPES,
    ("anomaly_agent_bundle_fetches", "source"): FETCH_SOURCES,
    ("anomaly_agent_bundle_fetches", "result"): FETCH_RESULTS,
    ("anomaly_agent_bundle_fetch_failures", "source"): FETCH_SOURCES,
    ("anomaly_agent_bundle_fetch_failures", "reason"): FETCH_REASONS,
    ("anomaly_agent_bundle_fetch_last_success_timestamp_seconds", "source"): FETCH_SOURCES,
    ("anomaly_agent_bundle_rollbacks", "result"): ROLLBACK_RESULTS,
    ("anomaly_shadow_evaluations", "agreement"): AGREEMENTS,
    ("anomaly_agent_log_lines_dropped", "reason"): DROP_REASONS,
    ("anomaly_shadow_skipped", "reason"): SHADOW_SKIP_REASONS,
}
"""Labels with a fixed set of values, all of them present from the start where it is a counter."""

OPEN_VALUES = {
    "feature": "a feature of the bundle, see [features.md](features.md)",
    "collector": "one of " + ", ".join(f"`{name}`" for name in sorted(COLLECTORS))
    + "; `node_exporter`, the URL of an exporter or the path of a textfile where one is configured",
    "model": "a model of the bundle",
    "source": "of logs: `files`, `journald` or `containers`",
    "horizon": "how far ahead: `5m`, `15m` and `1h` unless the trainer was told otherwise; those with skill",
    "group": "a configured group of logs, see [logs.md](logs.md)",
    "version": "of the bundle (16 hexadecimal digits) or of the agent",
    "pythonversion": "of the interpreter",
    "le": "the upper bound of a bucket, in seconds",
}  # fmt: skip

_SERIES = re.compile(r"^\w+(?:\{(.*)\})? ")
_LABEL = re.compile(r'(\w+)="')


def whole_snapshot() -> Snapshot:
    """An agent of which everything is known."""
    width = len(CATALOGUE)
    some = np.full(width, 1.0)
    score = Score(
        timestamp=1.0,
        warm=True,
        score=1.0,
        threshold_ratio=1.0,
        threshold_learnt=1.0,
        model_scores={"lstm": 1.0},
        why=Reasons.known(some / width),
        expected=some,
        observed=some,
        states=("active",) * width,
    )
    bundle = BundleInfo("/bundles/0", "0" * 16, "trained", 1.0, (("lstm", "lstm"),), CATALOGUE, {})
    return Snapshot(
        started=0.0,
        interval_s=15.0,
        heartbeat=0.0,
        timestamp=1.0,
        score=score,
        bundle=bundle,
        reload=ReloadStatus(successful=True, success_timestamp=1.0),
        collectors={"cpu": CollectorStatus(success=True, duration_s=0.001, error="")},
        process=ProcessStats(1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        web=WebStatus(configured=True),
        distribution=DistributionStatus(
            (FetchStatus("bundle", success_timestamp=1.0),), ShadowStatus("0" * 16, score=1.0)
        ),
        logs=whole_logs(),
        degradation=DegradationStatus(0, {"lstm": 0}),
        suppressed={"cpu_busy_ratio": 0},
        selftest=SelfTestStatus(1.0, 0.0),
        forecast=ForecastStatus(Forecast(1.0, {900.0: 0.5}, (Leaving(CATALOGUE[0], 60.0, 1.0, 0.5),))),
    )


def whole_logs() -> LogStatus:
    """Logs of which everything is known."""
    return LogStatus(
        sources={"journald": (True, False, 1)},
        counted={"journald": Counted()},
        groups={"database": Counted()},
        silences={
            ("anomaly_agent_log_silence_seconds", "journald"): 0.0,
            ("anomaly_agent_log_group_silence_seconds", "database"): 0.0,
        },
    )


def labels_of(family: Family) -> list[str]:
    """The labels of its samples, in the order in which they are written."""
    found: dict[str, None] = {}
    for line in family.lines:
        series = _SERIES.match(line)
        found.update(dict.fromkeys(_LABEL.findall(series[1] or "") if series else ()))
    return list(found)


def exposed(family: Family) -> str:
    """The name of its series."""
    return f"{family.name}_total" if family.kind == "counter" else family.name


def metrics() -> Iterator[str]:
    """docs/metrics.md, line by line."""
    families = list(collect(whole_snapshot(), "0.0.0"))
    yield from (
        "# Metrics of the agent",
        "",
        "<!-- Generated by `make docs` from the code; a test fails if it differs. -->",
        "",
        "A value that is not known has no sample; it is never 0. Counters are there from the start, at 0.",
        "`anomaly-agent --once --output prom` prints those of one evaluation, without the counters.",
        "",
        "| metric | type | labels | |",
        "|---|---|---|---|",
    )
    for family in families:
        if not family.lines:
            raise ValueError(f"{family.name} has no sample in the whole snapshot")
        labels = ", ".join(f"`{label}`" for label in labels_of(family)) or "none"
        yield f"| `{exposed(family)}` | {family.kind} | {labels} | {family.help} |"
    yield from ("", "## Labels", "")
    used = {label for family in families for label in labels_of(family)}
    for label in sorted(used):
        if label in OPEN_VALUES:
            yield f"* `{label}`: {OPEN_VALUES[label]}"
    yield from ("", "Values that are fixed:", "")
    for family in families:
        for label in labels_of(family):
            values = LABEL_VALUES.get((family.name, label))
            if values:
                yield f"* `{label}` of `{exposed(family)}`: {', '.join(f'`{value}`' for value in values)}"
            elif label not in OPEN_VALUES:
                raise ValueError(f"say what {label} of {family.name} may be, in scripts/docs.py")


def features() -> Iterator[str]:
    """docs/features.md, line by line."""
    yield from (
        "# Features",
        "",
        "<!-- Generated by `make docs` from the code; a test fails if it differs. -->",
        "",
        "What the models see of a node. The agent computes a feature from /proc and /sys, or from a local",
        "node_exporter; the trainer by the PromQL below, from what node_exporter left in Prometheus (logs:",
        "what the agent did). Both",
        "are one expression in the code. Rates span four intervals: `[1m]` here, as for the default of 15 s.",
        "`anomaly-agent features` shows what a host has of them, and prints the queries with your matchers.",
        "Your own beside these: [own-features.md](own-features.md).",
        "",
        "*Anomalous* is the side that counts as such. *Floor* is the smallest scale worth noticing, in the",
        "unit. *Tolerance* is how far both ends may differ in the median, relative to larger or floor.",
    )
    for group, title in GROUPS.items():
        of_group = [feature for feature in CATALOGUE if feature.group == group]
        yield from (
            "",
            f"## {title}",
            "",
            "| feature | unit | kind | anomalous | floor | tolerance | |",
            "|---|---|---|---|---|---|---|",
        )
        yield from (row(feature) for feature in of_group)
        reasons = [feature for feature in of_group if feature.tolerance_reason]
        if reasons:
            yield ""
            yield from (f"* Tolerance of `{one.name}`: {one.tolerance_reason}" for one in reasons)
        yield ""
        yield "```promql"
        for at, feature in enumerate(of_group):
            yield from ([""] if at else [])
            yield f"# {feature.name}"
            yield feature.promql(WINDOW)
        yield "```"
    unknown = {feature.group for feature in CATALOGUE} - GROUPS.keys()
    if unknown:
        raise ValueError(f"give the group {min(unknown)} a title, in scripts/docs.py")


def row(feature: Feature) -> str:
    """A feature's row in the table of its group."""
    floor = f"{feature.floor:,.12g}"
    cells = (
        f"`{feature.name}`", UNITS[feature.unit], feature.kind, feature.direction, floor,
        f"{100 * feature.tolerance:.3g} %", feature.help,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


DOCUMENTS = {"metrics.md": metrics, "features.md": features}


def main() -> int:
    """Write or check both documents; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    parser.add_argument("--directory", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    differ = []
    for name, lines in DOCUMENTS.items():
        path = options.directory / name
        text = "\n".join(lines()) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            differ.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    if differ and options.check:
        print(f"docs/{' and docs/'.join(differ)} differ from the code: run `make docs`", file=sys.stderr)
        return 1
    print(f"wrote {', '.join(differ)}" if differ else "docs are as the code has them")
    return write_manual(check=options.check) if options.directory == ROOT / "docs" else 0


if __name__ == "__main__":
    sys.exit(main())
