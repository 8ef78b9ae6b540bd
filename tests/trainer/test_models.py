"""What is particular to one member or baseline; what all members share is in tests/contract."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from node_anomaly_core.clusters import POSITIONS
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.forest import Forest
from node_anomaly_core.manifest import BOTH_SUMMARIES, NORMALISED
from node_anomaly_core.tensors import read_tensors
from node_anomaly_trainer.config_models import (
    IsolationForestConfig,
    KMeansConfig,
    LstmConfig,
    ModelsConfig,
    RandomForestConfig,
)
from node_anomaly_trainer.models import MODELS, TrainingSet
from node_anomaly_trainer.models.baselines import BASELINES, PCABaseline, WindowedKMeans
from node_anomaly_trainer.models.isolation_forest import MAX_ROWS, IsolationForestModel
from node_anomaly_trainer.models.kmeans import KMeansModel, drawn_windows
from node_anomaly_trainer.models.lstm import LSTMModel
from node_anomaly_trainer.models.random_forest import (
    MAX_NORMAL_ROWS,
    REAL_DEPTH,
    REAL_TREES,
    RandomForestModel,
)


def silent(done: float, note: str) -> None:
    """A report that goes nowhere."""


def fleet(seed: int, ticks: int = 500, nodes: int = 3, features: int = 6) -> NDArray[np.float32]:
    """Compressed values (t, m, f) of a few shared rhythms."""
    rng = np.random.default_rng(seed)
    phase = np.arange(nodes)[None, :, None] + np.linspace(0.0, 2.0, features)
    wave = np.sin(2.0 * np.pi * np.arange(ticks)[:, None, None] / 25.0 + phase)
    return (wave + rng.normal(scale=0.1, size=wave.shape)).astype(np.float32)


def training_set(rows: int = 600) -> TrainingSet:
    rng = np.random.default_rng(0)
    summary = rng.normal(size=(rows, 8)).astype(np.float32)
    labels = (np.arange(rows) % 10 == 0).astype(np.int8)
    compressed = fleet(0)
    return TrainingSet(
        summary, summary, summary, summary, labels, compressed, np.ones(compressed.shape, dtype=np.bool_)
    )


@pytest.mark.parametrize("labels", [0, 1, -1], ids=["all normal", "all anomalous", "all unknown"])
def test_a_random_forest_needs_both_kinds_of_ticks(labels: int) -> None:
    """Labels of one kind are a clear error, not a model that always says the same."""
    data = replace(training_set(), fault_labels=np.full(600, labels, dtype=np.int8))
    with pytest.raises(TrainingError, match="both are needed"):
        RandomForestModel(RandomForestConfig()).fit(data, 0, silent)


@pytest.mark.parametrize("marked_form", ["summary", NORMALISED])
def test_a_random_forest_reads_real_incidents_in_both_forms(marked_form: str) -> None:
    """Servers differ in what they are, less in how an incident departs from it; either may tell."""
    data = training_set()
    told = data.fault_labels == 1
    marked = np.where(told[:, None], np.float32(5.0), data.fault_summary)
    other = np.zeros_like(marked)
    summary, normalised = (marked, other) if marked_form == "summary" else (other, marked)
    forest = RandomForestModel(RandomForestConfig())
    forest.fit(replace(data, fault_summary=summary, fault_normalised=normalised, real=True), 0, silent)
    assert forest.input == BOTH_SUMMARIES
    rows = np.concatenate([summary, normalised], axis=1)
    rows[::7, 3] = rows[::11, -2] = np.nan
    scores = forest.reference_score(rows)
    assert scores[told].min() > scores[~told].max()
    exported = Forest.from_tensors(read_tensors(forest.export()), forest.type, rows.shape[1])
    assert exported.trees == REAL_TREES
    assert exported.depth <= REAL_DEPTH
    np.testing.assert_allclose(exported.score(rows), scores, rtol=0, atol=1e-12)


def test_a_random_forest_reads_injected_faults_in_the_summary_as_it_is() -> None:
    """As the configuration says, and blind to the other form."""
    data = training_set()
    forest = RandomForestModel(RandomForestConfig(n_estimators=5))
    forest.fit(replace(data, fault_normalised=np.full_like(data.fault_normalised, np.nan)), 0, silent)
    assert forest.input == "summary"
    exported = Forest.from_tensors(read_tensors(forest.export()), forest.type, data.summary.shape[1])
    assert exported.trees == 5


def test_two_isolation_forests_read_the_same_rows_in_two_ways() -> None:
    """One sees what is unlike the node's own slow past, the other what is unlike the fleet."""
    data = training_set()
    data = replace(data, normalised=data.summary + np.float32(100.0))
    config = ModelsConfig(isolation_forest=IsolationForestConfig(n_estimators=5))
    found = {}
    for name, fed in (("isolation_forest", data.normalised), ("isolation_forest_absolute", data.summary)):
        forest = MODELS[name](config)
        forest.fit(data, 0, silent)
        assert (forest.name, forest.type, forest.filename) == (
            name,
            "isolation_forest",
            f"{name}.safetensors",
        )
        apart = [float(np.mean(forest.reference_score(rows))) for rows in (fed, fed + np.float32(50.0))]
        assert apart[0] < apart[1]
        found[name] = forest.input
    assert found == {"isolation_forest": "summary_normalised", "isolation_forest_absolute": "summary"}


def test_forests_take_a_bounded_number_of_rows() -> None:
    """A longer history makes training neither slower nor larger, and keeps every anomalous tick."""
    rows = MAX_ROWS + 500
    summary = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    labels = (np.arange(rows) % 100 == 0).astype(np.int8)
    data = replace(training_set(), normalised=summary, fault_summary=summary, fault_labels=labels)
    notes: list[str] = []
    forest = IsolationForestModel(IsolationForestConfig(n_estimators=2, max_samples=64))
    forest.fit(data, 0, lambda _, note: notes.append(note))
    assert notes[-1].endswith(f"{MAX_ROWS} rows")
    classifier = RandomForestModel(RandomForestConfig(n_estimators=2))
    classifier.fit(data, 0, lambda _, note: notes.append(note))
    anomalous = int(labels.sum())
    assert notes[-1] == f"2 trees on {MAX_NORMAL_ROWS + anomalous} rows, {anomalous} anomalous"


def test_the_lstm_learns_nothing_from_missing_values() -> None:
    """Whatever stands where nothing was observed, the weights come out the same."""
    config = LstmConfig(units=(6, 4), sequence_length=16, epochs=1, batch_size=32)
    data = training_set()
    mask = np.random.default_rng(1).random(data.compressed.shape) > 0.2
    files = []
    for filler in (np.nan, 1e6):
        model = LSTMModel(config)
        compressed = np.where(mask, data.compressed, np.float32(filler))
        model.fit(replace(data, compressed=compressed, mask=mask), 0, silent)
        files.append(model.export())
    assert files[0] == files[1]


def test_the_lstm_beats_saying_nothing() -> None:
    """On a rhythm it forecasts the next tick better than the mean does."""
    model = LSTMModel(LstmConfig(units=(16, 8), sequence_length=24, epochs=6, batch_size=16))
    model.fit(training_set(), 0, silent)
    ticks = fleet(1, ticks=200)
    forecast = model.reference_score(ticks)
    assert np.abs(ticks[1:] - forecast[:-1]).mean() < 0.8 * np.abs(ticks[1:]).mean()


def test_the_lstm_stops_when_it_no_longer_improves_and_keeps_its_best() -> None:
    """On noise there is little to learn: training ends early, and the best epoch's weights are kept."""
    noise = np.random.default_rng(0).normal(size=(300, 2, 4)).astype(np.float32)
    mask = np.ones(noise.shape, dtype=np.bool_)
    config = LstmConfig(units=(8, 4), sequence_length=16, epochs=60, batch_size=16, learning_rate=0.05)
    notes: list[str] = []
    LSTMModel(config).fit(
        replace(training_set(), compressed=noise, mask=mask), 0, lambda _, note: notes.append(note)
    )
    losses = [float(note.split()[-1]) for note in notes[1:-1]]
    assert len(losses) < 60
    assert notes[-1] == f"validation loss {min(losses):.4f} after epoch {losses.index(min(losses)) + 1}"


def test_the_lstm_refuses_a_history_without_a_single_value() -> None:
    """All missing is an error that says how much is needed."""
    data = training_set()
    with pytest.raises(TrainingError, match="lstm") as caught:
        LSTMModel(LstmConfig()).fit(replace(data, mask=np.zeros_like(data.mask)), 0, silent)
    assert "at least" in caught.value.hint


def test_kmeans_windows_are_minutes_of_one_node_in_order() -> None:
    """Ten ticks of 6 s are one position; a window of one node holds nothing of another."""
    ticks = np.arange(600)[:, None, None] + 1_000 * np.arange(2)[None, :, None]
    data = replace(
        training_set(),
        compressed=(ticks / 1_000.0).astype(np.float32),
        mask=np.ones(ticks.shape, dtype=np.bool_),
        interval_s=6.0,
    )
    windows = drawn_windows(data, 50, 0, silent)
    assert windows.shape == (50, POSITIONS, 1)
    np.testing.assert_allclose(np.diff(windows[..., 0], axis=1), 0.010, atol=1e-5)
    assert set(np.floor(windows[:, 0, 0])) == {0.0, 1.0}


def test_kmeans_learns_nothing_from_what_is_missing_or_not_normal() -> None:
    """Whatever stands where the mask says no, the file comes out the same; a window is mostly normal."""
    data = training_set()
    mask = np.random.default_rng(1).random(data.compressed.shape) > 0.2
    mask[200:300, 1] = False
    files = []
    for filler in (np.nan, 1e6):
        model = KMeansModel(KMeansConfig(centroids=5))
        compressed = np.where(mask, data.compressed, np.float32(filler))
        model.fit(replace(data, compressed=compressed, mask=mask), 0, silent)
        files.append(model.export())
        windows = drawn_windows(replace(data, compressed=compressed, mask=mask), 5_000, 0, silent)
        assert np.isnan(windows).all(axis=2).sum(axis=1).max() <= 4
        assert np.nanmax(np.abs(windows)) < 2.0
    assert files[0] == files[1]
    with pytest.raises(TrainingError, match="0 windows of 40 normal ticks"):
        KMeansModel(KMeansConfig()).fit(replace(data, mask=np.zeros_like(mask)), 0, silent)


def test_kmeans_takes_a_bounded_number_of_windows() -> None:
    """A longer history makes training no slower."""
    notes: list[str] = []
    model = KMeansModel(KMeansConfig(centroids=3, max_windows=100))
    model.fit(training_set(), 0, lambda _, note: notes.append(note))
    assert notes[-1] == "3 centroids of 100 windows"


@pytest.fixture(params=BASELINES, ids=lambda baseline: baseline.name)
def baseline(request):
    return request.param()


def test_a_baseline_sees_an_obvious_fault(baseline) -> None:
    """A level that leaves its rhythm scores above all that came before it."""
    history, trial = fleet(0), fleet(1, ticks=200)
    mask = np.ones_like(history, dtype=np.bool_)
    baseline.fit(history, mask, 0)
    trial[150:, 1, :2] += 3.0
    scores = baseline.score(trial, mask[:200])
    assert scores.shape == (200, 3)
    assert np.nanmax(scores[:150]) < scores[199, 1]
    assert np.nanmax(scores[150:, [0, 2]]) < scores[199, 1]


def test_a_baseline_is_causal(baseline) -> None:
    """What comes later changes no earlier score."""
    history = fleet(0)
    mask = np.ones_like(history, dtype=np.bool_)
    baseline.fit(history, mask, 0)
    whole = baseline.score(history[:200], mask[:200])
    np.testing.assert_allclose(baseline.score(history[:120], mask[:120]), whole[:120], rtol=1e-4)


def test_a_baseline_is_reproducible_and_reads_only(baseline) -> None:
    """The same seed gives the same scores, and its input stays as it was; missing values may be NaN."""
    history = fleet(0)
    mask = np.random.default_rng(1).random(history.shape) > 0.1
    history[~mask] = np.nan
    before = history.copy()
    runs = []
    for fresh in (type(baseline)(), type(baseline)()):
        fresh.fit(history, mask, 3)
        runs.append(fresh.score(history, mask))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(history, before)
    assert np.isfinite(runs[0][-1]).all()


def test_a_baseline_refuses_too_little_history(baseline) -> None:
    """One tick is an error with a hint."""
    history = fleet(0)[:1, :1]
    with pytest.raises(TrainingError) as caught:
        baseline.fit(history, np.ones_like(history, dtype=np.bool_), 0)
    assert caught.value.hint


def test_what_a_baseline_cannot_know_is_nan() -> None:
    """A node without any value has no PCA residual, and a window that has not passed no distance."""
    history = fleet(0)
    mask = np.ones_like(history, dtype=np.bool_)
    pca, kmeans = PCABaseline(), WindowedKMeans(window=40)
    pca.fit(history, mask, 0)
    kmeans.fit(history, mask, 0)
    blind = mask.copy()
    blind[5, 1] = False
    assert np.argwhere(np.isnan(pca.score(history, blind))).tolist() == [[5, 1]]
    assert np.isnan(kmeans.score(history, mask)).sum() == 39 * 3
