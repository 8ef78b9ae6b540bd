"""Every setting of the trainer, its default and its limits; read from YAML, checked as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import yaml

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.config_delivery import MetricsConfig, MlflowConfig, PublishConfig
from node_anomaly_trainer.config_environ import unheard, with_environment
from node_anomaly_trainer.config_forecast import ForecastConfig
from node_anomaly_trainer.config_models import ModelsConfig
from node_anomaly_trainer.config_source import with_source_type
from node_anomaly_trainer.gate import GateLimits
from node_anomaly_trainer.seed_shape import translated
from node_anomaly_trainer.settings import LATEST_S, Bounds, Choice, InvalidValueError, build, url_parts
from node_anomaly_trainer.yaml_loader import parse_yaml

SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 1.0, 300.0
LONGEST_RANGE_S = 3_660 * 86_400.0

Seconds = Annotated[float, Bounds(0.0, duration=True)]
Interval = Annotated[float, Bounds(SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S, duration=True)]
Share = Annotated[float, Bounds(0.0, 1.0)]
Positive = Annotated[int, Bounds(1)]

SOURCES = ("synthetic", "file", "prometheus")
ROUTES = ("auto", "api", "remote_read", "export")
LIMITS = GateLimits()


@dataclass(frozen=True, slots=True)
class SyntheticConfig:
    """A simulated fleet of `nodes` nodes over `range`."""

    nodes: Annotated[int, Bounds(1, 500)] = 8
    range: Annotated[float, Bounds(60.0, duration=True)] = 3 * 86400.0
    incidents_per_node_day: Annotated[float, Bounds(0.0, 100.0)] = 0.0


@dataclass(frozen=True, slots=True)
class FileConfig:
    """A CSV or Parquet file."""

    path: str = ""
    node: str = "node"
    """Name of the node where the file has no node column."""


@dataclass(frozen=True, slots=True)
class PrometheusConfig:
    """Any server that answers Prometheus' HTTP API."""

    url: str = "http://127.0.0.1:9090"
    matchers: str = ""
    """Label matchers put into every selector, e.g. job="node"."""
    range: Annotated[float, Bounds(60.0, LONGEST_RANGE_S, duration=True)] = 14 * 86400.0
    end: Annotated[float, Bounds(0.0, LATEST_S)] | None = None
    """Unix seconds where the range ends; now if absent."""
    username: str = ""
    password_file: str = ""
    bearer_token_file: str = ""
    ca_file: str = ""
    """Certificates that the server's is checked against; the system's if empty."""
    cert_file: str = ""
    """Our own certificate, for a server that asks for one; may hold the key too."""
    key_file: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    route: Annotated[str, Choice(*ROUTES)] = "auto"
    """How samples are read; auto takes the fast way if it proves to give the same numbers."""
    cache: str = ""
    """Directory that keeps what was read, so that the next run reads only what is new; none if empty."""
    parallel: Annotated[int, Bounds(1, 32)] = 4
    timeout: Annotated[float, Bounds(0.1, 3600.0, duration=True)] = 30.0
    retries: Annotated[int, Bounds(0, 20)] = 4
    points_per_query: Annotated[int, Bounds(2, 11_000)] = 10_000

    def __post_init__(self) -> None:
        parts = url_parts("url", self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InvalidValueError(f"url: expected http://host:port or https://host:port, got {self.url!r}")
        if parts.username or parts.password:
            raise InvalidValueError("url: put the user into username and the password into password_file")
        if bool(self.username) != bool(self.password_file):
            raise InvalidValueError("username and password_file belong together")
        if self.username and self.bearer_token_file:
            raise InvalidValueError("either username or bearer_token_file, not both")
        if self.key_file and not self.cert_file:
            raise InvalidValueError("key_file belongs to a cert_file")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Where history comes from."""

    type: Annotated[str, Choice(*SOURCES)] = "synthetic"
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    file: FileConfig = field(default_factory=FileConfig)
    prometheus: PrometheusConfig = field(default_factory=PrometheusConfig)

    def __post_init__(self) -> None:
        if self.type == "file" and not self.file.path:
            raise InvalidValueError("file.path is required when type is file")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How the history is used."""

    fit_fraction: Annotated[float, Bounds(0.5, 0.95)] = 0.75
    """Share of the time range, from its start, that models are fitted on; the rest calibrates and judges."""
    seed: Annotated[int, Bounds(0, 2**31 - 1)] = 7
    faults_per_node_day: Annotated[float, Bounds(0.1, 100.0)] = 12.0
    """How many faults are injected into a copy of the history, to label ticks for the Random Forest."""
    check_memory: bool = True
    """Whether a history that is too large for this machine's memory is refused before it is read."""
    scratch: str = ""
    """Directory on a disk for what memory does not hold while a run lasts; empty if nothing may go there."""


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What is known about real incidents."""

    incidents: str = ""
    """YAML or CSV file with from, to, nodes, note; empty if there is none."""
    feedback: str = ""
    """YAML file of verdicts that `anomaly-trainer label` keeps; empty if there is none."""
    guard: Seconds = 450.0
    """Ticks this close to an incident are neither normal nor anomalous."""
    alerts: bool = True
    """Whether firing alerts are incidents to the Random Forest too, not only left out of what is normal."""
    least_events: Positive = 5
    """With fewer incidents in the fitted part, the Random Forest learns from injected faults alone."""
    enough_events: Positive = 20
    """From so many on it learns from them alone, as no injected fault is like one (docs/adr/0030)."""

    def __post_init__(self) -> None:
        if self.enough_events < self.least_events:
            raise InvalidValueError(
                f"enough_events is {self.enough_events}, less than least_events ({self.least_events})"
            )


ROUTINE_ALERTS = 'alertname!~"Watchdog|InfoInhibitor|DeadMansSwitch|.*Anomal.*"'
"""Alerts that always fire, and those that this very score raises: it must not teach itself."""

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True, slots=True)
class ExclusionConfig:
    """When nodes were not themselves: those ticks neither train, nor calibrate, nor judge.

    All but `windows` are read from the prometheus source and mean nothing to the others.
    """

    alerts: bool = True
    """While an alert is firing for the node."""
    alert_matchers: str = ROUTINE_ALERTS
    node_labels: tuple[str, ...] = ("node", "instance")
    """Labels of an alert that may name its node; the first that names a known one counts."""
    after_reboot: Seconds = 600.0
    """0 leaves none out."""
    cordoned: bool = True
    """While Kubernetes schedules nothing on the node."""
    windows: str = ""
    """YAML or CSV file with from, to, nodes, note; empty if there is none."""

    def __post_init__(self) -> None:
        if not self.node_labels:
            raise InvalidValueError("node_labels: expected at least one label, such as instance")
        for name in self.node_labels:
            if not LABEL_NAME.fullmatch(name):
                raise InvalidValueError(f"node_labels: {name!r} is no label name")


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """How often a healthy node may raise an alarm."""

    false_alarms_per_node_week: Annotated[float, Bounds(0.01, 1000.0)] = 1.0


@dataclass(frozen=True, slots=True)
class GateConfig:
    """What a bundle must keep to be published."""

    min_recall: Share = LIMITS.min_recall
    parity_forest: Annotated[float, Bounds(0.0)] = LIMITS.parity_forest
    parity_lstm: Annotated[float, Bounds(0.0)] = LIMITS.parity_lstm
    tick_cpu: Seconds = LIMITS.tick_cpu_seconds
    beat_baselines: bool = True
    beat_production: bool = True


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """What is asked of a bundle on real incidents, where the judged part has any; 0 asks nothing."""

    primary_metric: Annotated[str, Choice("f1_score", "accuracy", "precision", "recall")] = "f1_score"
    """In which the bundle in production must not be better."""
    min_accuracy: Share = 0.0
    min_precision: Share = 0.0
    min_recall: Share = 0.0


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """Where the report and the model card of each run go."""

    directory: str = "runs"
    keep: Positive = 20
    """Runs, the latest ones."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The whole configuration file."""

    source: SourceConfig = field(default_factory=SourceConfig)
    interval: Interval = 15.0
    features: tuple[str, ...] = ()
    """Names from the catalogue and of own features; empty means all of them."""
    own_features: str = ""
    """YAML file of the user's own features, the same that the agents read; empty if there are none."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    exclusions: ExclusionConfig = field(default_factory=ExclusionConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    mlflow: MlflowConfig = field(default_factory=MlflowConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    @property
    def limits(self) -> GateLimits:
        """What the gate asks for."""
        gate, asked = self.gate, self.evaluation
        return GateLimits(
            gate.min_recall,
            gate.parity_forest,
            gate.parity_lstm,
            gate.tick_cpu,
            gate.beat_baselines,
            gate.beat_production,
            {"accuracy": asked.min_accuracy, "precision": asked.min_precision, "recall": asked.min_recall},
            asked.primary_metric,
        )


def parse_config(raw: object, environ: Mapping[str, str] | None = None) -> TrainConfig:
    """A validated configuration from parsed YAML; the environment fills in what is absent.

    PROMETHEUS_URL, MLFLOW_TRACKING_URI and PROMETHEUS_GATEWAY are read.

    Where the file names no source type, the place of one makes it that (see config_source), and a
    `PROMETHEUS_URL` in the environment `prometheus`. Raises ConfigError with every wrong key.
    """
    raw, _ = translated(raw)
    return build(TrainConfig, with_environment(with_source_type(raw), environ or {}))


def load_config(path: Path | None, environ: Mapping[str, str] | None = None) -> TrainConfig:
    """The configuration in the YAML or JSON file `path`, or the defaults. Raises ConfigError."""
    if path is None:
        return parse_config({}, environ)
    raw = _read(path)
    try:
        return parse_config(raw, environ)
    except ConfigError as error:
        message = "\n".join(f"{path}: {line}" for line in error.message.splitlines())
        raise ConfigError(message, error.hint) from error


def configuration_notes(path: Path | None, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What keys of the first `config.json` mean now (see seed_shape), and which variable goes unheard."""
    if path is None:
        return ()
    raw, notes = translated(_read(path))
    return (*notes, *unheard(with_source_type(raw), environ or {}))


def _read(path: Path) -> object:
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}", error.hint) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", "name an existing file with --config or leave it out"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}", "check the indentation around that line") from error


def with_options(
    config: TrainConfig,
    *,
    data: str | None = None,
    source: str | None = None,
    interval: float | None = None,
    publish: str | None = None,
    seed: int | None = None,
) -> TrainConfig:
    """The configuration with the command line's options on top; `data` implies the file source."""
    if data is not None and source not in (None, "file"):
        raise ConfigError(f"--data is for --source file, not {source}", "leave one of them out")
    if data is not None:
        config = replace(
            config, source=replace(config.source, type="file", file=replace(config.source.file, path=data))
        )
    if source is not None:
        try:
            config = replace(config, source=replace(config.source, type=source))
        except InvalidValueError as invalid:
            raise ConfigError(
                f"--source {source}: {invalid.expected}", "name the file with --data"
            ) from invalid
    if interval is not None:
        config = replace(config, interval=interval)
    if publish is not None:
        config = replace(config, publish=replace(config.publish, directory=publish))
    if seed is not None:
        config = replace(config, training=replace(config.training, seed=seed))
    return config
