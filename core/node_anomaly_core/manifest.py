"""The manifest of a bundle: what is inside, for which features, and how scores are to be read.

Parsing is strict: a manifest that was not written by `Manifest.to_bytes` of a known format version is refused
with the path of the first thing that is wrong. See docs/bundle-format.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node_anomaly_core.calibration import MemberScale, Tail
from node_anomaly_core.errors import BundleError
from node_anomaly_core.features import Feature
from node_anomaly_core.forecast_entry import ForecastEntry, forecast_document, read_forecast
from node_anomaly_core.log_errors import LOG_ERRORS
from node_anomaly_core.manifest_reader import MAX_NUMBER, Reader, read_tail, tail_document, wrong
from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_core.witnesses import Witness

FORMAT_VERSION = 1
MAX_FEATURES = 512
LONGEST_FEATURE_NAME = 100
MAX_NODES = 2_000
MAX_WITNESSES = 4
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.1, 3_600.0
ONE_EACH: tuple[str, ...] = ("lstm", "kmeans", "autoregression", LOG_ERRORS)
"""A scorer steps one path of each."""

MODEL_TYPES: tuple[str, ...] = ("isolation_forest", "random_forest", *ONE_EACH)
NORMALISED, BOTH_SUMMARIES = "summary_normalised", "summaries"
MODEL_INPUTS: tuple[str, ...] = ("summary", NORMALISED, BOTH_SUMMARIES, "compressed", "residuals")
"""What a member is fed; "summaries" is the summary as it is and, after it, normalised."""
ORIGINS: tuple[str, ...] = ("trained", "starter")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and sha256 (hex) that a file must have before anything reads its content."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One member: its file, what it is fed, how its scores become evidence, and how much that weighs."""

    name: str
    type: str
    file: str
    input: str
    scale: MemberScale
    tail: Tail
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a bundle but the arrays; `files` is filled in when it is written."""

    features: tuple[Feature, ...]
    interval_s: float
    models: tuple[ModelEntry, ...]
    tail: Tail
    budget_per_week: float
    trained_at: float
    origin: str
    nodes: tuple[str, ...]
    provenance: Mapping[str, str | float]
    files: Mapping[str, FileEntry]
    format_version: int = FORMAT_VERSION
    forecast: ForecastEntry | None = None
    """How well the LSTM foresees, where that was measured; bundles made before have none."""
    witnesses: tuple[Witness, ...] = ()
    """Who must agree before an alarm is raised: for tight budgets; bundles made before have none."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests give equal bytes, so the digest names the content."""
        document: dict[str, object] = {
            "format_version": self.format_version,
            "origin": self.origin,
            "trained_at_seconds": self.trained_at,
            "interval_seconds": self.interval_s,
            "budget_false_alarms_per_node_week": self.budget_per_week,
            "scoring": {"blocks": list(BLOCKS), "summary_width": SUMMARY_WIDTH},
            "features": [
                {key: getattr(feature, key) for key in _FEATURE_KEYS} | {"promql": feature.promql()}
                for feature in self.features
            ],
            "models": [
                {"name": model.name, "type": model.type, "file": model.file, "input": model.input}
                | {
                    "median": model.scale.median,
                    "high": model.scale.high,
                    "weight": model.weight,
                    "tail": tail_document(model.tail),
                }
                for model in self.models
            ],
            "tail": tail_document(self.tail),
            "nodes": list(self.nodes),
            "provenance": dict(self.provenance),
            "files": {
                name: {"size": entry.size, "sha256": entry.sha256} for name, entry in self.files.items()
            },
        }
        if self.forecast is not None:
            document["forecast"] = forecast_document(self.forecast)
        if self.witnesses:
            document["witnesses"] = [
                {"models": list(witness.models), "share": witness.share} for witness in self.witnesses
            ]
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


_FEATURE_KEYS: tuple[str, ...] = ("name", "unit", "help", "group", "kind", "direction", "floor")


def parse_manifest(content: bytes) -> Manifest:
    """Parse bytes whose digest has been checked. Raises BundleError("format" or "manifest")."""
    try:
        document = json.loads(content.decode())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise wrong("", "is not JSON") from error
    root = Reader(document, "")
    version = root.number("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            "format",
            f"bundle format version {version:g} is not known; this agent reads version {FORMAT_VERSION}",
            "upgrade the agent, or publish with a trainer of the agent's version",
        )
    scoring = root.child("scoring")
    if scoring.value("blocks") != list(BLOCKS) or scoring.value("summary_width") != SUMMARY_WIDTH:
        raise BundleError(
            "format",
            "the bundle was made for other residual blocks than this agent computes",
            "publish with a trainer of the agent's version",
        )
    features = tuple(_feature(item) for item in root.children("features", MAX_FEATURES))
    if not features or len({feature.name for feature in features}) != len(features):
        raise wrong("features", "must be a list of uniquely named features")
    models = tuple(_model(item) for item in root.children("models", 16))
    if not models or len({model.name for model in models}) != len(models):
        raise wrong("models", "must be a list of uniquely named models")
    for kind in ONE_EACH:
        if sum(model.type == kind for model in models) > 1:
            raise wrong("models", f"must have at most one of type {kind}")
    interval_s = root.positive("interval_seconds")
    if not SHORTEST_INTERVAL_S <= interval_s <= LONGEST_INTERVAL_S:  # windows are allocated by it
        raise wrong("interval_seconds", f"must lie in {SHORTEST_INTERVAL_S:g}..{LONGEST_INTERVAL_S:g}")
    nodes = root.value("nodes")
    if (
        not isinstance(nodes, list)
        or len(nodes) > MAX_NODES
        or not all(isinstance(node, str) and node.isprintable() for node in nodes)
    ):
        raise wrong("nodes", f"must be a list of at most {MAX_NODES} names")
    provenance = root.value("provenance")
    if not isinstance(provenance, dict) or not all(
        _shown(item) for pair in provenance.items() for item in pair
    ):
        raise wrong("provenance", "must map names to text or numbers")
    forecast = None
    if root.has("forecast"):
        forecast = read_forecast(root.child("forecast"), [feature.name for feature in features], interval_s)
    return Manifest(
        features=features,
        forecast=forecast,
        witnesses=_witnesses(root, [model.name for model in models]),
        interval_s=interval_s,
        models=models,
        tail=read_tail(root.child("tail")),
        budget_per_week=root.positive("budget_false_alarms_per_node_week"),
        trained_at=root.time("trained_at_seconds"),
        origin=root.one_of("origin", ORIGINS),
        nodes=tuple(nodes),
        provenance=provenance,
        files={
            name: FileEntry(item.count("size"), item.text("sha256", 64))
            for name, item in root.child("files").items(32)
        },
    )


def _witnesses(root: Reader, known: Sequence[str]) -> tuple[Witness, ...]:
    """None where the key is missing; older agents read past it."""
    found = []
    for item in root.children("witnesses", MAX_WITNESSES) if root.has("witnesses") else ():
        names = item.value("models")
        if not isinstance(names, list) or not names or not all(name in known for name in names):
            raise wrong(f"{item.path}.models", "must be a list of models of this bundle")
        found.append(Witness(tuple(names), item.positive("share")))
    return tuple(found)


def _shown(value: object) -> bool:
    """Whether a value can be printed, exposed as a label and written again as JSON."""
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _feature(item: Reader) -> Feature:
    return Feature(
        name=item.text("name", LONGEST_FEATURE_NAME),
        unit=item.text("unit", 40),
        help=item.text("help", 500),
        group=item.text("group", 40),
        kind=item.one_of("kind", ("gauge", "rate")),
        direction=item.one_of("direction", ("high", "low", "both")),
        floor=item.positive("floor"),
        expression=None,
    )


def _model(item: Reader) -> ModelEntry:
    scale = MemberScale(item.number("median"), item.number("high"))
    if scale.high <= scale.median:
        raise wrong(f"{item.path}.high", "must be above the median")
    return ModelEntry(
        name=item.text("name", 40),
        type=item.one_of("type", MODEL_TYPES),
        file=item.text("file", 100),
        input=item.one_of("input", MODEL_INPUTS),
        scale=scale,
        tail=read_tail(item.child("tail")),
        weight=item.positive("weight"),
    )
