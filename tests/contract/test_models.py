"""One executable definition of a valid member: every row of MODELS passes it unchanged.

A model with a new `type` also needs one row in LOADERS: how core scores its exported file.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from node_anomaly_core.clusters import POSITIONS, NearestCentroid, parse_centroids
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.forest import Forest
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.manifest import MODEL_INPUTS, MODEL_TYPES
from node_anomaly_core.tensors import read_tensors
from node_anomaly_trainer.config_models import (
    IsolationForestConfig,
    KMeansConfig,
    LstmConfig,
    ModelsConfig,
    RandomForestConfig,
)
from node_anomaly_trainer.models import MODELS, Model, TrainingSet

SUMMARY, FEATURES, NODES, TICKS = 24, 6, 4, 400
CONFIG = ModelsConfig(
    isolation_forest=IsolationForestConfig(n_estimators=40, max_samples=256),
    random_forest=RandomForestConfig(n_estimators=30, min_samples_leaf=3),
    lstm=LstmConfig(units=(16, 8), sequence_length=24, epochs=2, batch_size=32),
    kmeans=KMeansConfig(centroids=20),
)


@dataclass(frozen=True)
class Trial:
    """Inputs no model has seen, with the truth about them."""

    rows: NDArray[np.float32]  # (n, SUMMARY) some missing
    row_labels: NDArray[np.bool_]  # (n,)
    ticks: NDArray[np.float32]  # (t, NODES, FEATURES)
    tick_labels: NDArray[np.bool_]  # (t, NODES)


def summaries(seed: int, count: int, share: float) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Rows of a made-up summary; in an anomalous one a few numbers are raised, and 3 % are missing."""
    rng = np.random.default_rng(seed)
    rows = rng.gamma(2.0, 0.5, (count, SUMMARY))
    labels = (rng.random(count) < share).astype(np.int8)
    raised = rng.random(rows.shape) < 0.3
    rows += np.where(raised & (labels[:, None] == 1), rng.uniform(1.0, 4.0, rows.shape), 0.0)
    rows[rng.random(rows.shape) < 0.03] = np.nan
    return rows.astype(np.float32), labels


def sequences(seed: int, ticks: int) -> NDArray[np.float32]:
    """Ticks (t, NODES, FEATURES) of a daily-rhythm kind: phase-shifted waves plus noise."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0.0, 2.0 * np.pi, (1, NODES, 1)) + np.linspace(0.0, 3.0, FEATURES)
    wave = np.sin(2.0 * np.pi * np.arange(ticks)[:, None, None] / 20.0 + phase)
    return (wave + rng.normal(scale=0.1, size=wave.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    summary, _ = summaries(0, 3000, 0.0)
    faulty, labels = summaries(1, 3000, 0.1)
    labels[::50] = -1
    compressed = sequences(2, TICKS)
    mask = np.random.default_rng(3).random(compressed.shape) > 0.05
    mask[:, :, FEATURES - 1] = False  # a feature that no node of this fleet has
    compressed[~mask] = np.nan
    return TrainingSet(summary, summary.copy(), faulty, faulty.copy(), labels, compressed, mask)


@pytest.fixture(scope="module")
def trial() -> Trial:
    rows, labels = summaries(4, 1500, 0.1)
    ticks = sequences(5, 300)
    rng = np.random.default_rng(6)
    tick_labels = rng.random(ticks.shape[:2]) < 0.05
    ticks += np.where(tick_labels[..., None] & (rng.random(ticks.shape) < 0.5), 1.5, 0.0)
    ticks[..., FEATURES - 1] = 0.0
    return Trial(rows, labels == 1, ticks.astype(np.float32), tick_labels)


def silent(done: float, note: str) -> None:
    """A report that goes nowhere."""


def fitted(name: str, data: TrainingSet, seed: int = 7) -> Model:
    model = MODELS[name](CONFIG)
    model.fit(data, seed, silent)
    return model


@dataclass(frozen=True)
class Training:
    """A member, the shares of the work that it reported as done, and the data as they were before."""

    model: Model
    shares: list[float]
    before: dict[str, NDArray[Any]]


@pytest.fixture(scope="module", params=list(MODELS))
def training(request, data) -> Training:
    before = {field.name: np.array(getattr(data, field.name)) for field in fields(data)}
    shares: list[float] = []
    model = MODELS[request.param](CONFIG)
    model.fit(data, 7, lambda done, _: shares.append(done))
    return Training(model, shares, before)


@pytest.fixture(scope="module")
def model(training) -> Model:
    return training.model


@pytest.fixture(scope="module")
def exported(model) -> bytes:
    return model.export()


def inputs(model: Model, trial: Trial) -> NDArray[np.float32]:
    if model.type == "kmeans":
        return windows(trial.ticks)
    return trial.ticks if model.input == "compressed" else trial.rows


def windows(ticks: NDArray[Any]) -> NDArray[Any]:
    """Every window (n, POSITIONS, ...) of ticks (t, NODES, ...), node by node."""
    cut = np.lib.stride_tricks.sliding_window_view(ticks, POSITIONS, axis=0)
    return np.moveaxis(cut, -1, 2).swapaxes(0, 1).reshape(-1, POSITIONS, *ticks.shape[2:])


def through_forest(model: Model, content: bytes, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return Forest.from_tensors(read_tensors(content), model.type, rows.shape[1]).score(rows)


def through_lstm(model: Model, content: bytes, ticks: NDArray[np.float32]) -> NDArray[np.float64]:
    lstm = StepLSTM(content, ticks.shape[2], batch=ticks.shape[1])
    return np.array([lstm.step(tick) for tick in ticks], dtype=np.float64)


def through_centroids(model: Model, content: bytes, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    nearest = NearestCentroid(parse_centroids(read_tensors(content), rows.shape[2]))
    squares, known = nearest.apart(rows)
    return np.log1p(np.sqrt(squares.sum(axis=1) / known.sum(axis=(1, 2))))


LOADERS: dict[str, tuple[Callable[[Model, bytes, NDArray[np.float32]], NDArray[np.float64]], float]] = {
    "isolation_forest": (through_forest, 1e-12),
    "random_forest": (through_forest, 1e-12),
    "lstm": (through_lstm, 0.05),  # int8 weights
    "kmeans": (through_centroids, 1e-6),
}


def auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Share of (anomalous, normal) pairs in the right order."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    good, bad = int(labels.sum()), int((~labels).sum())
    return float((ranks[labels].sum() - good * (good + 1) / 2) / (good * bad))


def test_describes_itself_in_words_the_manifest_knows(model):
    """Name, type, input and file are what a bundle may say."""
    assert model.type in MODEL_TYPES
    assert model.type in LOADERS
    assert model.input in MODEL_INPUTS
    assert MODELS[model.name](CONFIG).filename == model.filename
    assert "/" not in model.filename


def test_core_computes_from_the_export_what_the_library_computes(model, exported, trial):
    """Export, load in core, score: the same, missing values included."""
    load, tolerance = LOADERS[model.type]
    rows = inputs(model, trial)
    before = rows.copy()
    reference = model.reference_score(rows)
    scores = load(model, exported, rows)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, reference, rtol=0, atol=tolerance)
    np.testing.assert_array_equal(rows, before)


def test_beats_chance_on_faults_it_has_not_seen(model, exported, trial):
    """Anomalous inputs score higher than normal ones, through core."""
    load, _ = LOADERS[model.type]
    scores = load(model, exported, inputs(model, trial))
    if model.type == "kmeans":
        count = windows(trial.tick_labels[..., None])[..., 0].sum(axis=1)
        assert auc(scores, count > np.median(count)) > 0.6
    elif model.input == "compressed":  # the anomaly is what the forecast of the tick before did not expect
        surprise = np.abs(trial.ticks[1:] - scores[:-1]).mean(axis=2)
        assert auc(surprise.ravel(), trial.tick_labels[1:].ravel()) > 0.6
    else:
        assert auc(scores, trial.row_labels) > 0.6


def test_the_same_seed_gives_the_same_file(model, exported, data):
    """Training twice gives the same bytes; the seed is the only dice."""
    assert fitted(model.name, data).export() == exported


def test_another_seed_gives_another_file(model, exported, data):
    """The seed does reach the training."""
    assert fitted(model.name, data, seed=8).export() != exported


def test_training_does_not_change_its_data(training, data):
    """The training set is shared by all members, so none may write into it."""
    for name, copy in training.before.items():
        np.testing.assert_array_equal(getattr(data, name), copy, err_msg=name)


def test_progress_goes_from_nothing_to_done(training):
    """The report never runs backwards and ends at 1."""
    shares = training.shares
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0


def test_an_unfitted_model_says_so(model, trial):
    """Exporting or scoring before fitting is an error with a hint."""
    fresh = MODELS[model.name](CONFIG)
    for ask in (fresh.export, lambda: fresh.reference_score(inputs(model, trial))):
        with pytest.raises(TrainingError, match="before it was fitted") as caught:
            ask()
        assert caught.value.hint


def test_history_too_short_to_learn_from_is_a_clear_error(model, data):
    """No rows, or a handful of ticks, is a TrainingError and never a crash in a library."""
    nothing = TrainingSet(
        data.summary[:0],
        data.normalised[:0],
        data.fault_summary[:0],
        data.fault_normalised[:0],
        data.fault_labels[:0],
        data.compressed[:5],
        data.mask[:5],
    )
    with pytest.raises(TrainingError) as caught:
        fitted(model.name, nothing)
    assert caught.value.hint
