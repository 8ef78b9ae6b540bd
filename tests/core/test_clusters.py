"""Windows and centroids: by definition, with cells that are not known, and as an untrusted file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.clusters import (
    MAX_CENTROIDS,
    POSITIONS,
    WINDOW_CLIP,
    NearestCentroid,
    Windows,
    parse_centroids,
)
from node_anomaly_core.errors import BundleError
from node_anomaly_core.evidence import LEAST_POSITIONS, Distance, WindowPath

NAN = float("nan")
Array = NDArray[np.float64]


def centroids(count: int = 4, features: int = 3, seed: int = 0) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).normal(size=(count, POSITIONS, features))
    return np.clip(drawn, -WINDOW_CLIP, WINDOW_CLIP).astype(np.float32)


def noise(ticks: int, nodes: int = 1, features: int = 3, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(ticks, nodes, features))


def stepped(path: WindowPath, values: Array) -> list[Distance]:
    return [path.step(row) for row in values]


# ------------------------------------------------------------------------------------------------- windows


@settings(max_examples=40)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 200), st.integers(1, 2), st.integers(1, 2)),
        elements=st.floats(-9, 9) | st.just(NAN),
    ),
    st.sampled_from([15.0, 20.0, 60.0, 300.0]),
)
def test_a_window_is_its_definition(values: Array, interval_s: float) -> None:
    """Forty means over a minute, a minute apart, of clipped values; NaN where a minute had none."""
    ticks, nodes, features = values.shape
    part = Windows(nodes, features, interval_s)
    step = max(1, round(60.0 / interval_s))
    clipped = np.clip(values, -WINDOW_CLIP, WINDOW_CLIP)
    for row in values:
        part.push(row)
    expected = np.full((nodes, POSITIONS, features), NAN)
    for position in range(POSITIONS):
        stop = ticks - (POSITIONS - 1 - position) * step
        minute = clipped[max(0, stop - step) : max(0, stop)]
        known = np.isfinite(minute)
        with np.errstate(invalid="ignore"):
            expected[:, position] = np.where(known, minute, 0.0).sum(axis=0) / known.sum(axis=0)
    np.testing.assert_allclose(part.now(), expected, atol=1e-5)
    np.testing.assert_array_equal(part.now(np.array([nodes - 1])), part.now()[-1:])


@pytest.mark.parametrize(("interval_s", "ticks"), [(5.0, 480), (15.0, 160), (60.0, 40), (300.0, 40)])
def test_a_window_is_forty_minutes_and_never_fewer_than_forty_ticks(interval_s: float, ticks: int) -> None:
    assert WindowPath(centroids(), 1, interval_s).ticks == ticks


# ----------------------------------------------------------------------------------------------- distances


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, (3, POSITIONS, 2), elements=st.floats(-5, 5, width=32)),
    hnp.arrays(np.float32, (5, POSITIONS, 2), elements=st.floats(-5, 5, width=32)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.1, 0.7, 1.0]),
)
def test_the_distance_is_its_definition_whatever_is_known(
    windows: NDArray[np.float32], means: NDArray[np.float32], seed: int, holes: float
) -> None:
    """Products of matrices and the plain sum over known cells agree on how near the nearest centroid is."""
    windows = windows.copy()
    windows[np.random.default_rng(seed).random(windows.shape) < holes] = NAN
    part = NearestCentroid(means)
    for _ in range(2):  # the second time with what it remembers of the first
        squares, known = part.apart(windows)
        np.testing.assert_array_equal(known, np.isfinite(windows))
        plain = np.nansum(np.square(windows[:, None].astype(np.float64) - means), axis=(2, 3)).min(axis=1)
        np.testing.assert_allclose(squares.sum(axis=1), plain, rtol=1e-4, atol=1e-2)
        squares, _ = part.apart(windows[:1])
        np.testing.assert_allclose(squares.sum(axis=1), plain[:1], rtol=1e-4, atol=1e-2)


def test_the_nearest_centroid_is_found_by_what_is_known() -> None:
    means = np.stack([np.full((POSITIONS, 2), level, dtype=np.float32) for level in (-2.0, 0.0, 2.0)])
    window = np.full((1, POSITIONS, 2), 2.0, dtype=np.float32)
    window[..., 1] = -2.0
    part = NearestCentroid(means)
    assert part.apart(window)[0].sum() == pytest.approx(2 * POSITIONS * 4.0)
    window[..., 1] = NAN
    assert part.apart(window)[0].tolist() == [[0.0, 0.0]]


# ------------------------------------------------------------------------------------------------ the path


@pytest.mark.parametrize("interval_s", [15.0, 300.0])
def test_the_score_is_silent_until_half_a_window_is_known(interval_s: float) -> None:
    path = WindowPath(centroids(), 1, interval_s)
    scores = [float(tick.score[0]) for tick in stepped(path, noise(200))]
    assert np.isnan(scores[: path.least_ticks - 1]).all()
    assert np.isfinite(scores[path.least_ticks - 1 :]).all()


def test_an_outage_of_half_a_window_makes_it_silent_again() -> None:
    path = WindowPath(centroids(), 1, 60.0)
    values = noise(100)
    values[40 : 40 + POSITIONS - LEAST_POSITIONS + 1] = NAN
    scores = np.array([float(tick.score[0]) for tick in stepped(path, values)])
    assert np.isnan(scores[40:61]).all()
    assert np.isnan(scores[61])
    assert np.isfinite(scores[80:]).all()


def test_a_tick_without_any_value_has_no_score_and_does_no_harm() -> None:
    values = noise(60)
    values[50] = NAN
    ticks = stepped(WindowPath(centroids(), 1, 60.0), values)
    assert np.isnan(ticks[50].score).all()
    assert ticks[50].share.tolist() == [[0.0, 0.0, 0.0]]
    assert np.isfinite(ticks[51].score).all()


def test_a_feature_this_node_never_had_changes_nothing_it_is_judged_by() -> None:
    """Its cells weigh nothing; centroids that agree on the others are as far away as without it."""
    means = centroids(1, 4)
    values = noise(60, features=4)
    values[..., 3] = NAN
    narrow, wide = WindowPath(means[..., :3], 1, 15.0), WindowPath(means, 1, 15.0)
    for one, other in zip(stepped(narrow, values[..., :3]), stepped(wide, values), strict=True):
        np.testing.assert_allclose(one.score, other.score, atol=1e-6)
        np.testing.assert_allclose(one.share, other.share[:, :3], atol=1e-6)
        assert other.share[0, 3] == 0.0


def test_a_level_that_leaves_is_loud_and_named_and_one_loud_value_is_not_forever() -> None:
    path = WindowPath(np.zeros((2, POSITIONS, 3), dtype=np.float32), 1, 15.0)
    quiet = stepped(path, 0.1 * noise(200))[-1]
    away = 0.1 * noise(60, seed=2)
    away[..., 1] += 3.0
    loud = stepped(path, away)[-1]
    assert loud.score[0] > 3 * quiet.score[0]
    assert loud.share[0, 1] > 0.9
    assert loud.share.sum() == pytest.approx(1.0)
    back = stepped(path, 0.1 * noise(200, seed=3))[-1]
    assert back.score[0] == pytest.approx(quiet.score[0], abs=0.02)


def test_a_window_that_is_a_centroid_has_no_distance_and_no_reason() -> None:
    path = WindowPath(np.zeros((1, POSITIONS, 3), dtype=np.float32), 1, 60.0)
    tick = stepped(path, np.zeros((40, 1, 3)))[-1]
    assert tick.score.tolist() == [0.0]
    assert tick.share.tolist() == [[0.0, 0.0, 0.0]]


def test_a_fleet_is_judged_node_by_node() -> None:
    values = noise(200, nodes=3)
    values[50:80, 1, 0] = NAN
    values[:, 2, 2] = NAN
    together, alone = WindowPath(centroids(), 3, 15.0), [WindowPath(centroids(), 1, 15.0) for _ in range(3)]
    for row in values:
        joint = together.step(row)
        for node, single in enumerate(alone):
            own = single.step(row[node : node + 1])
            np.testing.assert_allclose(joint.score[node], own.score[0], atol=1e-6)
            np.testing.assert_allclose(joint.share[node], own.share[0], atol=1e-6)


def test_what_comes_in_is_not_changed() -> None:
    values = 9 * noise(50)
    values[10] = NAN
    before = values.copy()
    stepped(WindowPath(centroids(), 1, 15.0), values)
    np.testing.assert_array_equal(values, before)


# ------------------------------------------------------------------------------------------ untrusted file


def test_centroids_come_back_as_they_were_stored() -> None:
    np.testing.assert_array_equal(parse_centroids({"centroids": centroids()}, 3), centroids())


def changed(value: float) -> NDArray[np.float32]:
    array = centroids()
    array[1, 2, 0] = value
    return array


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"centroids": centroids(), "more": np.zeros(1)}, id="an array more"),
        pytest.param({"centroids": centroids(features=2)}, id="another number of features"),
        pytest.param({"centroids": centroids()[:, :-1]}, id="a shorter window"),
        pytest.param({"centroids": centroids()[0]}, id="fewer dimensions"),
        pytest.param({"centroids": centroids()[:0]}, id="no centroid"),
        pytest.param({"centroids": centroids(MAX_CENTROIDS + 1)}, id="too many"),
        pytest.param({"centroids": centroids().astype(np.float64)}, id="another type"),
        pytest.param({"centroids": changed(NAN)}, id="not a number"),
        pytest.param({"centroids": changed(float("inf"))}, id="infinite"),
        pytest.param({"centroids": changed(-6.0)}, id="where no window can be"),
    ],
)
def test_centroids_that_no_trainer_wrote_are_refused(tensors: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="kmeans") as refused:
        parse_centroids(tensors, 3)
    assert refused.value.reason == "model"
    assert refused.value.hint
