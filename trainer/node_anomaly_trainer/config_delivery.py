"""Settings of what happens to a finished run: published, recorded in MLflow, told to Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from node_anomaly_core.channel import is_channel_name
from node_anomaly_trainer.publish import KEEP
from node_anomaly_trainer.settings import Bounds, InvalidValueError, url_parts


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """Where an accepted bundle goes; the `current` link of the directory is what agents there watch."""

    directory: str = "bundles"
    keep: Annotated[int, Bounds(1)] = KEEP
    """Versions, in the directory and in the tree; what is on offer is always among them."""
    tree: str = ""
    """Directory of static files that a web server hands to agents: channels and archives; none if empty."""
    channel: str = "stable"
    """Of the tree, in which accepted bundles are offered."""
    percent: Annotated[float, Bounds(0.0, 100.0)] = 100.0
    """Share of nodes that take a new bundle of the channel; `promote` raises it."""
    key_file: str = ""
    """Private key that signs bundles and channels; unsigned if empty."""
    wait: Annotated[float, Bounds(0.0, 3600.0, duration=True)] = 60.0
    """How long to wait for another trainer that is publishing to the same place."""

    def __post_init__(self) -> None:
        if not is_channel_name(self.channel):
            raise InvalidValueError(f"channel: {self.channel!r} is no channel name, such as stable")


@dataclass(frozen=True, slots=True)
class MlflowConfig:
    """Where runs are recorded and accepted bundles registered; nowhere without a tracking URI.

    User and password are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
    """

    tracking_uri: str = ""
    experiment: str = "node-anomaly"
    model: str = "node-anomaly"
    """Name of the registered model."""
    required: bool = False
    """Whether to fail, before any training, where MLflow cannot be reached; otherwise the run goes on."""
    timeout: Annotated[float, Bounds(0.1, 3600.0, duration=True)] = 30.0
    """Of one request."""

    def __post_init__(self) -> None:
        parts = url_parts("tracking_uri", self.tracking_uri)
        if parts.username or parts.password:
            raise InvalidValueError(
                "tracking_uri: put the user into MLFLOW_TRACKING_USERNAME and the password into "
                "MLFLOW_TRACKING_PASSWORD"
            )
        if not self.experiment or not self.model:
            raise InvalidValueError("experiment and model: expected a name")
        if self.required and not self.tracking_uri:
            raise InvalidValueError("required: needs a tracking_uri, or MLFLOW_TRACKING_URI")


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """How Prometheus learns of a run, which is over before anything could scrape it."""

    pushgateway: str = ""
    """host:port or URL of a Pushgateway; none if empty."""
    textfile: str = ""
    """File in the directory of node_exporter's textfile collector, such as anomaly_trainer.prom."""
    job: str = "anomaly-trainer"
    """Label `job` of what is pushed; one for each configuration that trains."""
    timeout: Annotated[float, Bounds(0.1, 600.0, duration=True)] = 10.0

    def __post_init__(self) -> None:
        if self.textfile and not self.textfile.endswith(".prom"):
            raise InvalidValueError("textfile: node_exporter reads files that end in .prom only")
        if self.pushgateway:
            gateway = self.pushgateway
            url_parts("pushgateway", gateway if "://" in gateway else f"http://{gateway}")
        if not self.job:
            raise InvalidValueError("job: expected a name")
