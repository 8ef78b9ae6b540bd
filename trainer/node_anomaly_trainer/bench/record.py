"""What is known about an entity that was done: its figures, its costs, and of what exactly they are.

The record is written last, so an entity without one was not finished. Its fingerprint names everything that
could change the figures; a record that is damaged or that names something else is none.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import node_anomaly_core
import node_anomaly_trainer
from node_anomaly_trainer.bench.files import BASELINES, record_path, scores_path, sha256
from node_anomaly_trainer.bench.metrics import Figures
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.whole_file import write_whole

OURS = "ours"
LIBRARIES = (
    "ai-edge-litert", "keras", "numpy", "scikit-learn", "scipy", "tensorflow", "tensorflow-cpu",
)  # fmt: skip
"""Whose versions are part of every fingerprint, as Python's is; of the last two one is installed."""

SETTINGS = ("training", "labels", "models", "budget")
"""The parts of the configuration that a figure depends on."""

NO_INFLUENCE = (
    "bench/carry_out.py", "bench/record.py", "bench/run.py", "bench/table.py", "bench/workers.py",
    "cli.py", "commands/", "fetching.py", "outcome.py", "progress.py", "publish.py", "sources/",
    "starter.py", "validate.py", "validate_server.py",
)  # fmt: skip
"""How the names of those of the trainer's files begin that no figure comes through; see `has_influence`."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entity, done."""

    fingerprint: str
    scores: Mapping[str, str]
    """sha256 of every scores file, by detector."""
    figures: Mapping[str, Figures]
    """By detector; OURS among them."""
    lenders: int
    """How many other entities lent rows to the Random Forest, incidents among them; 0 if it has none."""
    refused: str
    """Why the trainer made no bundle, so that nothing has a score; empty if it did."""
    refused_hint: str
    """What to do about that; empty where it is not known."""
    notes: tuple[str, ...]
    seconds: Mapping[str, float]
    """Wall time of training, scoring and the baselines."""
    tick_ms: float | None
    """CPU time of one tick, mean over the test."""
    bundle_bytes: int | None


def fingerprint(parts: Mapping[str, object], config: TrainConfig, settings: Sequence[str] = SETTINGS) -> str:
    """Names the data in `parts`, the settings that matter, and the code that does the work."""
    whole = {
        **parts,
        "settings": {name: asdict(getattr(config, name)) for name in settings},
        "version": node_anomaly_core.__version__,
        "code": code_digest(),
        "libraries": library_versions(),
    }
    return sha256(json.dumps(whole, sort_keys=True).encode())


@cache
def library_versions(installed: Callable[[str], str] = version) -> Mapping[str, str]:
    """Of LIBRARIES and of Python, by name; empty for what is not installed."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = installed(name)
        except PackageNotFoundError:
            versions[name] = ""
    return versions


@cache
def code_digest() -> str:
    """Of every file of core and trainer that a figure can come through."""
    digests = []
    for package in (node_anomaly_core, node_anomaly_trainer):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if package is node_anomaly_core or has_influence(name):
                digests.append(f"{package.__name__}/{name} {sha256(path.read_bytes())}")
    return sha256("\n".join(digests).encode())


def has_influence(name: str) -> bool:
    """Whether this file of the trainer, changed, does every entity again."""
    return not name.startswith(NO_INFLUENCE)


def write_record(out: Path, dataset: str, entity: str, record: Record) -> None:
    """Whole, with a digest of its own."""
    body = asdict(record)
    text = json.dumps({**body, "digest": _digest(body)}, indent=1, sort_keys=True, allow_nan=False)
    write_whole(record_path(out, dataset, entity), text.encode() + b"\n")


def read_record(out: Path, dataset: str, entity: str) -> Record | None:
    """The record of an entity, or None if there is none that can be believed."""
    try:
        body = json.loads(record_path(out, dataset, entity).read_text(encoding="utf-8"))
        if body.pop("digest") != _digest(body) or set(body) != {field.name for field in fields(Record)}:
            return None
        body["figures"] = {name: Figures(**one) for name, one in body["figures"].items()}
        return Record(**{**body, "notes": tuple(body["notes"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def finished(out: Path, dataset: str, entity: str, wanted: str) -> Record | None:
    """The record, if it has the wanted fingerprint and all scores that it speaks of are there, unchanged."""
    record = read_record(out, dataset, entity)
    if record is None or record.fingerprint != wanted:
        return None
    for detector, digest in record.scores.items():
        try:
            path = scores_path(out, dataset, entity, "" if detector == OURS else detector)
            if sha256(path.read_bytes()) != digest:
                return None
        except OSError:
            return None
    return record


def forget(out: Path, dataset: str, entity: str) -> None:
    """Remove record and scores of an entity, so that nothing old stands beside what is new."""
    record_path(out, dataset, entity).unlink(missing_ok=True)
    detectors = [path.name for path in (out / BASELINES).glob("*")]
    for detector in ("", *detectors):
        scores_path(out, dataset, entity, detector).unlink(missing_ok=True)


def _digest(body: Mapping[str, object]) -> str:
    return sha256(json.dumps(body, sort_keys=True).encode())
