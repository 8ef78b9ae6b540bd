"""What Prometheus learns of a run: pushed to a Pushgateway, or written for the textfile collector.

A batch job is gone before anything could scrape it. Families that a run has no figures for stay as an earlier
run left them, in both places: a run that failed does not wipe out when the last good one was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.forecast import horizon_label
from node_anomaly_trainer.config_delivery import MetricsConfig
from node_anomaly_trainer.progress import Progress, Report
from node_anomaly_trainer.whole_file import write_whole

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from node_anomaly_trainer.pipeline import TrainingReport

OUTCOMES = ("accepted", "rejected", "failed")
PREFIX = "anomaly_trainer"


class TimedProgress:
    """A Progress that also remembers how long each phase took, in seconds."""

    def __init__(self, inner: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._clock = clock
        self.seconds: dict[str, float] = {}

    def phase(self, name: str) -> AbstractContextManager[Report]:
        """See Progress.phase."""
        return self._timed(name)

    def note(self, line: str) -> None:
        """See Progress.note."""
        self._inner.note(line)

    @contextmanager
    def _timed(self, name: str) -> Iterator[Report]:
        begun = self._clock()
        try:
            with self._inner.phase(name) as report:
                yield report
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - begun


@contextmanager
def told_when_it_fails(config: MetricsConfig, progress: TimedProgress) -> Iterator[None]:
    """Export that a run began, and `failed` if the block raises, Ctrl-C included.

    Whoever finishes it calls `tell`. A run that is killed says nothing more: it has begun and never ended.
    """
    if config.pushgateway or config.textfile:
        export(config, begun_registry(time.time()), progress.note)
    try:
        yield
    except BaseException:
        tell(config, progress, None)
        raise


def tell(config: MetricsConfig, progress: TimedProgress, report: TrainingReport | None) -> None:
    """Export the figures of a run, None for one that failed; what cannot be exported is a note."""
    if not (config.pushgateway or config.textfile):
        return
    export(config, run_registry(report, progress.seconds, time.time()), progress.note)


def export(config: MetricsConfig, registry: CollectorRegistry, note: Callable[[str], None]) -> None:
    """Push the families, and write them to the textfile, where these are configured."""
    for configured, send in ((config.pushgateway, _push), (config.textfile, _write)):
        if not configured:
            continue
        try:
            send(config, registry)
        except (OSError, ValueError, TrainingError) as error:  # urllib raises OSError for HTTP errors too
            note(f"warning: the metrics of this run did not get to {configured}: {error}")


def begun_registry(now: float) -> CollectorRegistry:
    """The family of a run that begins at `now` (unix seconds)."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    gauge(registry, "run_started_timestamp_seconds", "When a run last began", "", {"": now})
    return registry


def run_registry(report: TrainingReport | None, phases: dict[str, float], now: float) -> CollectorRegistry:
    """The families of a run that ended at `now` (unix seconds)."""
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    outcome = "failed" if report is None else report.outcome
    gauge(
        registry,
        "run_outcome",
        "1 for how the last run ended",
        "outcome",
        {name: float(name == outcome) for name in OUTCOMES},
    )
    gauge(registry, "phase_duration_seconds", "How long each phase of the last run took", "phase", phases)
    gauge(registry, "last_run_timestamp_seconds", "When the last run ended, however", "", {"": now})
    if report is None:
        return registry
    evaluation = report.evaluation
    single = {
        "last_success_timestamp_seconds": ("When a run last ended with a verdict", now),
        "run_duration_seconds": ("How long that run took", report.seconds),
        "samples_read": ("Values of the history that it read", float(report.samples)),
        "faults_injected": ("Faults that the candidate was examined on", float(evaluation.faults)),
        "false_alarms_per_node_week": (
            "False alarms of the candidate on held-back normal data",
            evaluation.false_alarms_per_node_week,
        ),
        "false_alarm_budget_per_node_week": ("False alarms that were asked for", evaluation.budget),
        "tick_cpu_seconds": ("CPU time of one tick on a node", evaluation.tick_cpu_seconds),
        "candidate_bytes": ("Size of the candidate's files", float(evaluation.bundle_bytes)),
        "gate_reasons": ("Reasons for which the gate refused the candidate", float(len(report.reasons))),
    }
    for name, (text, value) in single.items():
        gauge(registry, name, text, "", {"": value})
    recall = dict(evaluation.fault_recall)
    gauge(registry, "fault_recall_ratio", "Injected faults found at equal false alarms", "detector", recall)
    foreseen = {horizon_label(one.horizon_s): one.skill for one in report.forecast}
    gauge(
        registry, "forecast_skill_ratio", "1 - error / error of the best simple forecast", "horizon", foreseen
    )
    shown = {horizon_label(one.horizon_s): float(len(one.features)) for one in report.forecast}
    gauge(registry, "forecast_features", "Features whose forecast nodes show", "horizon", shown)
    parity = {"forest": evaluation.parity_forest_max, "lstm": evaluation.parity_lstm_max}
    gauge(registry, "parity_max", "Largest difference of exported and fitted models", "model", parity)
    gauge(
        registry,
        "",
        "Share of held-back ticks, with faults, judged rightly",
        "",
        {"": evaluation.accuracy},
        whole_name="model_accuracy",
    )
    if report.path is not None:
        gauge(registry, "bundle_info", "The bundle published last", "version", {report.version: 1.0})
        published = {"": report.trained_at}
        gauge(registry, "bundle_trained_timestamp_seconds", "When it was trained", "", published)
        gauge(registry, "last_accepted_timestamp_seconds", "When a bundle was last published", "", {"": now})
    return registry


def gauge(
    registry: CollectorRegistry,
    name: str,
    text: str,
    label: str,
    values: dict[str, float],
    whole_name: str = "",
) -> None:
    """Add one family; a value that is not known is no sample, and a family without samples is left out."""
    from prometheus_client import Gauge

    known = {key: value for key, value in values.items() if math.isfinite(value)}
    if not known:
        return
    family = Gauge(whole_name or f"{PREFIX}_{name}", text, (label,) if label else (), registry=registry)
    for key, value in known.items():
        (family.labels(key) if label else family).set(value)


def _push(config: MetricsConfig, registry: CollectorRegistry) -> None:
    from prometheus_client import pushadd_to_gateway

    pushadd_to_gateway(config.pushgateway, job=config.job, registry=registry, timeout=config.timeout)


def _write(config: MetricsConfig, registry: CollectorRegistry) -> None:
    from prometheus_client import generate_latest

    path = Path(config.textfile)
    fresh = generate_latest(registry).decode()
    write_whole(path, (fresh + _left_from_before(path, fresh)).encode())


def _left_from_before(path: Path, fresh: str) -> str:
    """The families of the file that this run has no figures for, as they are."""
    if not path.exists():
        return ""
    ours = {line.split()[2] for line in fresh.splitlines() if line.startswith("# TYPE ")}
    kept = []
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
        if name and name not in ours:
            kept.append(line + "\n")
    return "".join(kept)
