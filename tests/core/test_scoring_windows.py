"""A node under a bundle with centroids: what windows add to a score, and when they start anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle import Bundle, verify_bundle, write_bundle
from node_anomaly_core.calibration import fit_member
from node_anomaly_core.clusters import POSITIONS
from node_anomaly_core.errors import BundleError
from node_anomaly_core.evidence import ResidualPath
from node_anomaly_core.manifest import ModelEntry
from node_anomaly_core.members import Models, judge
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.tensors import write_tensors
from node_anomaly_trainer.calibrate import PLACEHOLDER_TAIL
from node_anomaly_trainer.replay import replay_residuals, replay_windows
from small_bundle import INTERVAL_S, LIVE, live

NAN = float("nan")
WIDTH = len(small_bundle.FEATURES)
DISK = [feature.name for feature in small_bundle.FEATURES].index("disk_busy_ratio")
FILE = "kmeans.safetensors"
LEAST = 77  # ticks at 15 s until half of forty positions is known


def silent(*_: object) -> None:
    """No progress to report to."""


@pytest.fixture(scope="module")
def made(small: small_bundle.SmallBundle) -> small_bundle.SmallBundle:
    """The small bundle with another member: three centroids near the centre."""
    rng = np.random.default_rng(0)
    means = (0.2 * rng.normal(size=(3, POSITIONS, WIDTH))).astype(np.float32)
    entry = ModelEntry("kmeans", "kmeans", FILE, "compressed", fit_member(np.arange(9.0)), PLACEHOLDER_TAIL)
    files = {**small.files, FILE: write_tensors({"centroids": means})}
    manifest = replace(small.manifest, models=(*small.manifest.models, entry))
    path = Models(replace(small, manifest=manifest, files=files).bundle()).window_path(3, INTERVAL_S)
    assert path is not None
    scale = fit_member(replay_windows(path, small.replayed.compressed, silent))
    models = (*small.manifest.models, replace(entry, scale=scale))
    return small_bundle.sealed(replace(small, manifest=replace(manifest, models=models), files=files))


@pytest.fixture(scope="module")
def windowed(made: small_bundle.SmallBundle) -> Bundle:
    return made.bundle()


def raw(scorer: NodeScorer, rows: NDArray[np.float64], first: int = 0) -> NDArray[np.float64]:
    """Raw scores (n,) of the member with the centroids."""
    ticks = [scorer.measure(LIVE + (first + at) * INTERVAL_S, row) for at, row in enumerate(rows)]
    return np.array([tick.get("kmeans", NAN) for tick in ticks])


def test_a_bundle_with_centroids_is_written_and_verified(
    made: small_bundle.SmallBundle, tmp_path: Path
) -> None:
    path = write_bundle(tmp_path, made.manifest, made.files)
    assert [model.name for model in verify_bundle(path).manifest.models][-1] == "kmeans"
    small_bundle.refiled(path, FILE, write_tensors({"centroids": np.zeros((1, 2, WIDTH), dtype=np.float32)}))
    with pytest.raises(BundleError) as refused:
        verify_bundle(path)
    assert refused.value.reason == "model"


def test_a_bundle_without_centroids_is_no_less_a_bundle(small: small_bundle.SmallBundle) -> None:
    models = Models(small.bundle())
    assert models.clusterer is None
    assert models.window_path(1, INTERVAL_S) is None


def test_a_member_that_needs_windows_joins_when_half_a_window_is_known(windowed: Bundle) -> None:
    scores = live(NodeScorer(windowed, INTERVAL_S), small_bundle.rows(50, 120))
    member = np.array([score.model_scores["kmeans"] for score in scores])
    assert np.isnan(member[: LEAST - 1]).all()
    assert np.isfinite(member[LEAST - 1 :]).all()
    assert np.isfinite([score.score for score in scores[20:]]).all()


def test_a_level_that_leaves_for_long_is_named_by_windows_alone(made: small_bundle.SmallBundle) -> None:
    scorer = NodeScorer(small_bundle.only(made, "kmeans").bundle(), INTERVAL_S)
    rows = small_bundle.rows(51, 260)
    rows[200:, DISK] *= 4.0
    scores = live(scorer, rows)
    assert scores[259].score > max(score.score for score in scores[LEAST:200])
    assert int(np.argmax(scores[259].contributions)) == DISK
    assert scores[259].contributions.sum() == pytest.approx(1.0)


def test_a_tick_without_any_value_has_no_score(windowed: Bundle) -> None:
    rows = small_bundle.rows(52, 110)
    rows[100] = NAN
    scores = live(NodeScorer(windowed, INTERVAL_S), rows)
    assert np.isnan(scores[100].score)
    assert np.isfinite(scores[101].score)


def test_a_silence_starts_the_window_anew(windowed: Bundle) -> None:
    scorer = NodeScorer(windowed, INTERVAL_S)
    rows = small_bundle.rows(53, 250)
    assert np.isfinite(raw(scorer, rows[:150])[-1])
    later = raw(scorer, rows[150:], first=150 + 1_000)
    assert np.isnan(later[: LEAST - 1]).all()
    assert np.isfinite(later[LEAST - 1 :]).all()


def restarted(before: NodeScorer, bundle: Bundle) -> NodeScorer:
    after = NodeScorer(bundle, INTERVAL_S)
    assert after.restore(before.state())
    return after


def reloaded(before: NodeScorer, bundle: Bundle) -> NodeScorer:
    after = NodeScorer(bundle, INTERVAL_S)
    after.replay(before)
    return after


@pytest.mark.parametrize("succeed", [restarted, reloaded])
def test_the_window_outlives_restart_and_reload_without_being_saved(
    windowed: Bundle, succeed: Callable[[NodeScorer, Bundle], NodeScorer]
) -> None:
    rows = small_bundle.rows(54, 340)
    before = NodeScorer(windowed, INTERVAL_S)
    raw(before, rows[:320])  # a moment at which it has just learnt, as its successor does
    after = succeed(before, windowed)
    np.testing.assert_allclose(raw(after, rows[320:], 320), raw(before, rows[320:], 320), atol=2e-3)


def test_a_reload_brings_a_member_that_the_bundle_before_did_not_have(
    small: small_bundle.SmallBundle, windowed: Bundle
) -> None:
    before = NodeScorer(small.bundle(), INTERVAL_S)
    live(before, small_bundle.rows(55, 200))
    after = reloaded(before, windowed)
    assert np.isfinite(raw(after, small_bundle.rows(56, 1), 200)).all()


def test_a_late_feature_enters_the_window_with_its_whole_past(windowed: Bundle) -> None:
    """Once it has a baseline the recent rows are lived through again, so its share is not of one tick."""
    scorer = NodeScorer(windowed, INTERVAL_S)
    rows = small_bundle.rows(57, 140)
    rows[:100, DISK] = NAN
    live(scorer, rows[:119])
    assert scorer._windows is not None
    before = np.isfinite(scorer._windows._windows.now()[0, :, DISK]).sum()
    live(scorer, rows[119:121], first=119)
    assert before == 0
    assert np.isfinite(scorer._windows._windows.now()[0, :, DISK]).sum() == 6  # 21 ticks, four a minute


def test_the_trainers_replay_and_the_agents_steps_are_one_path(made: small_bundle.SmallBundle) -> None:
    ticks, bundle = 200, made.bundle()
    values = np.array(made.history.values[:ticks])
    values[90:96, 1, 3] = NAN
    values[150:155, :, DISK] *= 4.0
    history = replace(
        made.history,
        values=values,
        timestamps=made.history.timestamps[:ticks],
        labels=made.history.labels[:ticks],
    )
    models = Models(bundle)
    path = models.window_path(3, INTERVAL_S)
    assert path is not None
    replayed = replay_residuals(history, models.cohort, silent)
    fleet = replay_windows(path, replayed.compressed, silent)
    for index, node in enumerate(history.nodes):
        scorer = NodeScorer(bundle, INTERVAL_S, node)
        own = raw(scorer, values[:, index])
        np.testing.assert_allclose(own, fleet[:, index], atol=1e-5)
        assert np.isfinite(own[LEAST:]).all()
    unknown = {model.name: np.full(fleet.shape, NAN) for model in bundle.manifest.models}
    judged = judge(bundle.manifest, {**unknown, "kmeans": fleet})
    assert np.isfinite(judged.combined[LEAST:]).all()
    assert np.isnan(judged.members["lstm"]).all()


class Thorough(NodeScorer):
    """Judges every tick of the past that it relives, though nobody asks."""

    def _relive(self, residuals: ResidualPath, row: NDArray[np.float64], *, normaliser: bool) -> None:
        assert normaliser
        self._step_paths(residuals, row)


def test_a_past_that_is_relived_leaves_the_traces_of_one_that_is_judged(windowed: Bundle) -> None:
    """Learning relives up to 960 ticks: half of their cost is what they would say, which is not asked."""
    rows = small_bundle.rows(46, 90)
    rows[5:25, 2] = rows[50, 3] = NAN
    quick, thorough = NodeScorer(windowed, INTERVAL_S), Thorough(windowed, INTERVAL_S)
    for mine, other in zip(live(quick, rows), live(thorough, rows), strict=True):
        assert mine.model_scores == pytest.approx(other.model_scores, rel=0, abs=0, nan_ok=True)
        np.testing.assert_array_equal(mine.expected, other.expected)
        np.testing.assert_array_equal(mine.contributions, other.contributions)
    for name, array in quick.state().items():
        np.testing.assert_array_equal(array, thorough.state()[name])
