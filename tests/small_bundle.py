"""A small bundle made as the trainer makes one: eight features, three nodes, real forests, a real LSTM step.

History is noise with one rhythm; forests of a few trees are fitted on its summaries, exported, calibrated and
sealed with golden vectors in under two seconds. The LSTM is a recorded file with random weights, because
making one needs TensorFlow; `python tests/small_bundle.py` makes it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle import GOLDEN_FILE, golden_scores
from node_anomaly_core.bundle_store import DIGEST, MANIFEST, Bundle
from node_anomaly_core.catalogue import FEATURES_BY_NAME, Feature
from node_anomaly_core.cohort import Cohort
from node_anomaly_core.manifest import Manifest, ModelEntry
from node_anomaly_core.members import COHORT_FILE, Models
from node_anomaly_core.score import Score
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.tensors import write_tensors
from node_anomaly_trainer.calibrate import PLACEHOLDER_SCALE, PLACEHOLDER_TAIL, calibrated
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.replay import Replayed, fit_cohort, replay_forecasts, replay_residuals, with_summary

Array = NDArray[np.float64]

LSTM_STEP = Path(__file__).parent / "fixtures" / "lstm_step.tflite"
INTERVAL_S = 15.0
TICKS = 500
START = 1_700_000_000.0
LIVE = 1_800_000_000.0
"""When a test's scorer begins to live (unix seconds)."""

NODES = ("alpha", "beta", "gamma")
FEATURES: tuple[Feature, ...] = tuple(
    FEATURES_BY_NAME[name]
    for name in (
        "cpu_user_ratio",
        "cpu_system_ratio",
        "pressure_io_waiting_ratio",
        "memory_available_ratio",
        "disk_busy_ratio",
        "network_receive_bytes_per_second",
        "tcp_established_count",
        "context_switches_per_second",
    )
)
_CENTRES = np.array([0.2, 0.05, 0.02, 0.6, 0.1, 2e6, 120.0, 9_000.0])
_SPREADS = np.array([0.03, 0.008, 0.006, 0.02, 0.02, 3e5, 8.0, 900.0])


@dataclass(frozen=True)
class SmallBundle:
    """The bundle before it is written, and what it was made of."""

    manifest: Manifest
    files: Mapping[str, bytes]
    cohort: Cohort
    history: History
    replayed: Replayed

    def bundle(self) -> Bundle:
        """In memory, as it would be read from disk."""
        return Bundle(Path("small"), "small", self.manifest, self.files)


def rows(seed: int, ticks: int, features: int = len(FEATURES)) -> Array:
    """What a normal node does: (ticks, features) in the features' units."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(ticks, features))
    for tick in range(1, ticks):
        noise[tick] = 0.7 * noise[tick - 1] + 0.714 * noise[tick]
    rhythm = 0.5 * np.sin(np.arange(ticks) / 60.0)[:, None]
    return np.maximum(_CENTRES + _SPREADS * (noise + rhythm), 0.0)


def history(ticks: int = TICKS) -> History:
    """Three normal nodes."""
    values = np.stack([rows(seed, ticks) for seed in range(len(NODES))], axis=1)
    return History(
        features=FEATURES,
        interval_s=INTERVAL_S,
        nodes=NODES,
        timestamps=START + INTERVAL_S * np.arange(ticks, dtype=np.float64),
        values=values,
        labels=np.zeros(values.shape[:2], dtype=np.int8),
        origin={"source": "test"},
    )


def build(budget_per_week: float = 1.0) -> SmallBundle:
    """Fit, export, calibrate, seal."""
    from sklearn.ensemble import IsolationForest, RandomForestClassifier

    from node_anomaly_trainer.export import export_forest

    past = history()
    clean, cohort = with_summary(
        replay_residuals(past, fit_cohort(past, _silent), _silent),
        fit_cohort(past, _silent),
        past.labels == 0,
        INTERVAL_S,
    )
    hurt = np.array(past.values)
    labels = np.zeros(past.ticks, dtype=np.int8)
    for number, start in enumerate(range(120, past.ticks, 60)):
        hurt[start : start + 8, :, number % len(FEATURES)] *= 3.0
        labels[start : start + 8] = 1
    faulted = replay_residuals(replace(past, values=hurt), cohort, _silent)
    late = slice(60, None)
    isolation = IsolationForest(n_estimators=20, max_samples=256, random_state=0)
    isolation.fit(clean.summary[late].reshape(-1, clean.summary.shape[-1]))
    judge = RandomForestClassifier(n_estimators=20, max_depth=6, random_state=0)
    judge.fit(
        faulted.normalised[late].reshape(-1, clean.summary.shape[-1]), np.repeat(labels[late], len(NODES))
    )
    files = {
        "isolation_forest.safetensors": write_tensors(export_forest(isolation)),
        "random_forest.safetensors": write_tensors(export_forest(judge)),
        "lstm.tflite": LSTM_STEP.read_bytes(),
        COHORT_FILE: write_tensors(cohort.tensors()),
    }
    manifest = Manifest(
        features=FEATURES,
        interval_s=INTERVAL_S,
        models=tuple(
            ModelEntry(name, name, file, fed, PLACEHOLDER_SCALE, PLACEHOLDER_TAIL)
            for name, file, fed in (
                ("isolation_forest", "isolation_forest.safetensors", "summary"),
                ("random_forest", "random_forest.safetensors", "summary_normalised"),
                ("lstm", "lstm.tflite", "compressed"),
                ("autoregression", COHORT_FILE, "residuals"),
            )
        ),
        tail=PLACEHOLDER_TAIL,
        budget_per_week=budget_per_week,
        trained_at=START,
        origin="trained",
        nodes=NODES,
        provenance={"source": "test", "nodes": 3.0},
        files={},
    )
    made = SmallBundle(manifest, files, cohort, past, clean)
    raw = raw_scores(made)
    series = [{name: scores[late, node] for name, scores in raw.items()} for node in range(len(NODES))]
    made = replace(made, manifest=calibrated(manifest, series))
    return sealed(made)


def only(made: SmallBundle, *names: str) -> SmallBundle:
    """With some of its members."""
    models = tuple(model for model in made.manifest.models if model.name in names)
    return replace(made, manifest=replace(made.manifest, models=models))


def with_cohort(made: SmallBundle, cohort: Cohort) -> SmallBundle:
    """With another cohort, in the file as well."""
    return replace(made, cohort=cohort, files={**made.files, COHORT_FILE: write_tensors(cohort.tensors())})


def sealed(made: SmallBundle) -> SmallBundle:
    """With the golden vectors that its scores give."""
    values = rows(77, 44).astype(np.float32)
    values[-4:] *= 3.0
    scores = golden_scores(made.bundle(), values.astype(np.float64))
    golden = write_tensors({"values": values, "scores": scores})
    return replace(made, files={**made.files, GOLDEN_FILE: golden})


def resealed(path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Edit the manifest of a bundle on disk as its maker could have: with a digest that fits again."""
    document = json.loads((path / MANIFEST).read_bytes())
    edit(document)
    return reseal(path, json.dumps(document).encode())


def reseal(path: Path, manifest: bytes) -> Path:
    """Put any bytes in the manifest's place, with their digest."""
    (path / MANIFEST).write_bytes(manifest)
    (path / DIGEST).write_text(hashlib.sha256(manifest).hexdigest() + f"  {MANIFEST}\n")
    return path


def refiled(path: Path, name: str, content: bytes) -> Path:
    """Put another file into a bundle on disk, with size and digests that fit."""
    (path / name).write_bytes(content)
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return resealed(path, lambda document: document["files"].update({name: entry}))


def raw_scores(made: SmallBundle) -> dict[str, Array]:
    """Raw member scores (t, m) of the replayed history, stepped as one batch of nodes."""
    models = Models(made.bundle())
    ticks, nodes, width = made.replayed.summary.shape
    forests = models.forest_scores(
        made.replayed.summary.reshape(-1, width).astype(np.float64),
        made.replayed.normalised.reshape(-1, width).astype(np.float64),
    )
    raw = {name: scores.reshape(ticks, nodes) for name, scores in forests.items()}
    path = models.forecast_path(nodes, INTERVAL_S)
    if path is not None and models.forecaster is not None:
        raw[models.forecaster] = replay_forecasts(path, made.replayed.compressed, _silent)
    if models.autoregression is not None:
        raw[models.autoregression] = made.replayed.unpredicted.astype(np.float64)
    return raw


def live(scorer: NodeScorer, node_rows: Iterable[Array], first: int = 0) -> list[Score]:
    """A scorer's life over consecutive rows, the first of them at tick `first`."""
    return [scorer.step(LIVE + (first + tick) * INTERVAL_S, row) for tick, row in enumerate(node_rows)]


def numbers(scores: Iterable[Score]) -> Array:
    """Everything scores say, one row each: score, members, contributions, expected."""
    return np.array([[s.score, *s.model_scores.values(), *s.contributions, *s.expected] for s in scores])


def lstm_weights(units: tuple[int, ...] = (8, 6)) -> list[NDArray[np.float32]]:
    """Random weights in Keras' order, small enough that the forecast stays near the centre."""
    rng = np.random.default_rng(5)
    width = len(FEATURES)
    shapes: list[tuple[int, ...]] = []
    for size in units:
        shapes += [(width, 4 * size), (size, 4 * size), (4 * size,)]
        width = size
    shapes += [(width, len(FEATURES)), (len(FEATURES),)]
    return [rng.normal(scale=0.3, size=shape).astype(np.float32) for shape in shapes]


def _silent(_share: float, _what: str) -> None:
    """No progress to report to."""


def record_lstm_step() -> None:
    """Write the fixture again; needs TensorFlow."""
    from node_anomaly_trainer.export import lstm_step

    LSTM_STEP.write_bytes(lstm_step(lstm_weights()))


if __name__ == "__main__":
    record_lstm_step()
