"""The manifest of a bundle: what is inside, for which features, and how scores are to be read.

Parsing is strict: a manifest that was not written by `Manifest.to_bytes` of a known format version is refused
with the path of the first thing that is wrong. See docs/bundle-format.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from node_anomaly_core.calibration import MemberScale, Tail
from node_anomaly_core.errors import BundleError
from node_anomaly_core.features import Feature
from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.summary import SUMMARY_WIDTH

FORMAT_VERSION = 1
MAX_FEATURES = 512
MAX_NODES = 2_000
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.1, 3_600.0
MODEL_TYPES: tuple[str, ...] = ("isolation_forest", "random_forest", "lstm", "kmeans", "autoregression")
MODEL_INPUTS: tuple[str, ...] = ("summary", "summary_normalised", "compressed", "residuals")
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

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests give equal bytes, so the digest names the content."""
        document = {
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
                    "tail": _tail_document(model.tail),
                }
                for model in self.models
            ],
            "tail": _tail_document(self.tail),
            "nodes": list(self.nodes),
            "provenance": dict(self.provenance),
            "files": {
                name: {"size": entry.size, "sha256": entry.sha256} for name, entry in self.files.items()
            },
        }
        return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


MAX_NUMBER = 1e300  # an integer beyond it is no float any more

_FEATURE_KEYS: tuple[str, ...] = ("name", "unit", "help", "group", "kind", "direction", "floor")


def parse_manifest(content: bytes) -> Manifest:
    """Parse bytes whose digest has been checked. Raises BundleError("format" or "manifest")."""
    try:
        document = json.loads(content.decode())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _wrong("", "is not JSON") from error
    root = _Reader(document, "")
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
        raise _wrong("features", "must be a list of uniquely named features")
    models = tuple(_model(item) for item in root.children("models", 16))
    if not models or len({model.name for model in models}) != len(models):
        raise _wrong("models", "must be a list of uniquely named models")
    for kind in ("lstm", "kmeans", "autoregression"):  # a scorer steps one path of each
        if sum(model.type == kind for model in models) > 1:
            raise _wrong("models", f"must have at most one of type {kind}")
    interval_s = root.positive("interval_seconds")
    if not SHORTEST_INTERVAL_S <= interval_s <= LONGEST_INTERVAL_S:  # windows are allocated by it
        raise _wrong("interval_seconds", f"must lie in {SHORTEST_INTERVAL_S:g}..{LONGEST_INTERVAL_S:g}")
    nodes = root.value("nodes")
    if (
        not isinstance(nodes, list)
        or len(nodes) > MAX_NODES
        or not all(isinstance(node, str) and node.isprintable() for node in nodes)
    ):
        raise _wrong("nodes", f"must be a list of at most {MAX_NODES} names")
    provenance = root.value("provenance")
    if not isinstance(provenance, dict) or not all(
        _shown(item) for pair in provenance.items() for item in pair
    ):
        raise _wrong("provenance", "must map names to text or numbers")
    return Manifest(
        features=features,
        interval_s=interval_s,
        models=models,
        tail=_tail(root.child("tail")),
        budget_per_week=root.positive("budget_false_alarms_per_node_week"),
        trained_at=root.positive("trained_at_seconds"),
        origin=root.one_of("origin", ORIGINS),
        nodes=tuple(nodes),
        provenance=provenance,
        files={
            name: FileEntry(item.count("size"), item.text("sha256", 64))
            for name, item in root.child("files").items(32)
        },
    )


def _shown(value: object) -> bool:
    """Whether a value can be printed, exposed as a label and written again as JSON."""
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _feature(item: _Reader) -> Feature:
    return Feature(
        name=item.text("name", 100),
        unit=item.text("unit", 40),
        help=item.text("help", 500),
        group=item.text("group", 40),
        kind=item.one_of("kind", ("gauge", "rate")),
        direction=item.one_of("direction", ("high", "low", "both")),
        floor=item.positive("floor"),
        expression=None,
    )


def _model(item: _Reader) -> ModelEntry:
    scale = MemberScale(item.number("median"), item.number("high"))
    if scale.high <= scale.median:
        raise _wrong(f"{item.path}.high", "must be above the median")
    return ModelEntry(
        name=item.text("name", 40),
        type=item.one_of("type", MODEL_TYPES),
        file=item.text("file", 100),
        input=item.one_of("input", MODEL_INPUTS),
        scale=scale,
        tail=_tail(item.child("tail")),
        weight=item.positive("weight"),
    )


def _tail_document(tail: Tail) -> dict[str, object]:
    return {"knots": list(tail.knots), "log10p": list(tail.log10p), "alarm_log10p": tail.alarm_log10p}


def _tail(item: _Reader) -> Tail:
    knots, log10p = item.numbers("knots", 512), item.numbers("log10p", 512)
    if len(knots) != len(log10p) or len(knots) < 2:
        raise _wrong(item.path, "needs as many knots as probabilities, at least two")
    if any(b <= a for a, b in pairwise(knots)):
        raise _wrong(f"{item.path}.knots", "must rise")
    if any(b > a for a, b in pairwise(log10p)) or log10p[-1] >= log10p[0]:
        raise _wrong(f"{item.path}.log10p", "must fall")
    alarm = item.number("alarm_log10p")
    if not alarm < 0:
        raise _wrong(f"{item.path}.alarm_log10p", "must be below 0")
    return Tail(knots, log10p, alarm)


def _wrong(path: str, what: str) -> BundleError:
    return BundleError(
        "manifest",
        f"manifest.json: {path or 'the document'} {what}",
        "publish the bundle again with anomaly-trainer",
    )


class _Reader:
    """Typed access to one JSON object; every complaint carries the path of the key."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, dict):
            raise _wrong(path, "must be an object")
        self._document = cast("Mapping[str, Any]", document)
        self.path = path

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def value(self, key: str) -> object:
        if key not in self._document:
            raise _wrong(self._at(key), "is missing")
        return self._document[key]

    def text(self, key: str, longest: int) -> str:
        value = self.value(key)
        if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
            raise _wrong(self._at(key), f"must be printable text of 1 to {longest} characters")
        return value

    def one_of(self, key: str, choices: Sequence[str]) -> str:
        value = self.value(key)
        if value not in choices:
            raise _wrong(self._at(key), f"must be one of {', '.join(choices)}")
        return str(value)

    def number(self, key: str) -> float:
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
            raise _wrong(self._at(key), "must be a finite number")
        return float(value)

    def positive(self, key: str) -> float:
        value = self.number(key)
        if value <= 0:
            raise _wrong(self._at(key), "must be above 0")
        return value

    def count(self, key: str) -> int:
        value = self.positive(key)
        if not value.is_integer():
            raise _wrong(self._at(key), "must be a whole number")
        return int(value)

    def numbers(self, key: str, most: int) -> tuple[float, ...]:
        value = self.value(key)
        if not isinstance(value, list) or len(value) > most:
            raise _wrong(self._at(key), f"must be a list of at most {most} numbers")
        return tuple(_Reader({str(i): v}, self._at(key)).number(str(i)) for i, v in enumerate(value))

    def child(self, key: str) -> _Reader:
        return _Reader(self.value(key), self._at(key))

    def children(self, key: str, most: int) -> list[_Reader]:
        value = self.value(key)
        if not isinstance(value, list) or len(value) > most:
            raise _wrong(self._at(key), f"must be a list of at most {most} objects")
        return [_Reader(item, f"{self._at(key)}[{index}]") for index, item in enumerate(value)]

    def items(self, most: int) -> list[tuple[str, _Reader]]:
        if len(self._document) > most:
            raise _wrong(self.path, f"must have at most {most} entries")
        return [(key, _Reader(value, self._at(key))) for key, value in self._document.items()]
