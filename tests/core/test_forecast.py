"""The LSTM rolled out: fed with its own forecasts, at the bundle's rhythm, and shown where it has skill."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_bundle
from node_anomaly_core.baseline import compress
from node_anomaly_core.bundle import starter_bundle, verify_bundle, write_bundle
from node_anomaly_core.calibration import Tail
from node_anomaly_core.errors import BundleError
from node_anomaly_core.forecast import CONTEXT_TICKS, Forecaster, NormalRange, horizon_label, roll_out
from node_anomaly_core.forecast_entry import ForecastEntry, HorizonEntry
from node_anomaly_core.manifest import parse_manifest
from node_anomaly_core.members import Models
from node_anomaly_core.scoring import NodeScorer

CPU, MEMORY = "cpu_user_ratio", "memory_available_ratio"
TAIL = Tail((0.0, 1.0, 2.0), (0.0, -2.0, -4.0), -2.0)
ERRORS = {"lstm": 0.1, "persistence": 0.2, "usual": 0.3}
ENTRY = ForecastEntry(
    (
        HorizonEntry(60.0, ERRORS, {CPU: 0.5}, 0.5, 0.0, TAIL),
        HorizonEntry(150.0, ERRORS, {CPU: 0.4, MEMORY: 0.3}, 0.35, 0.0, TAIL),
        HorizonEntry(600.0, {**ERRORS, "lstm": 0.4}),
    ),
    {CPU: (-1.0, 1.0), MEMORY: (-1.0, 1.0)},
)
STATE_TICKS = 80


class Steps:
    """A forecaster of one node that expects every feature to move by `by`; it remembers what it was fed."""

    def __init__(self, by: float | dict[int, float] = 0.0) -> None:
        self.by = by
        self.fed: list[np.ndarray] = []

    def reset(self) -> None:
        self.fed = []

    def step(self, x: np.ndarray) -> np.ndarray:
        self.fed.append(np.array(x))
        ahead = np.array(x, dtype=np.float32)
        for column, by in (self.by if isinstance(self.by, dict) else {}).items():
            ahead[:, column] += by
        return ahead if isinstance(self.by, dict) else ahead + self.by


@pytest.fixture(scope="module")
def models(small: small_bundle.SmallBundle) -> Models:
    return Models(replace(small, manifest=replace(small.manifest, forecast=ENTRY)).bundle())


def at_centre(interval_s: float = 15.0, ticks: int = STATE_TICKS) -> dict[str, np.ndarray]:
    """The state of a node that has always been as usual."""
    width = len(small_bundle.FEATURES)
    return {
        "times": 1000.0 + interval_s * np.arange(ticks),
        "rows": np.full((ticks, width), 10.0, dtype=np.float32),
        "centre": np.full(width, 10.0),
        "scale": np.ones(width),
    }


def column(name: str) -> int:
    return [feature.name for feature in small_bundle.FEATURES].index(name)


def test_each_forecast_is_made_from_those_before_it() -> None:
    lstm = Steps(0.5)
    context = np.zeros((3, 1, 2))
    context[-1] = 1.0
    path = roll_out(lstm, context, 4)
    np.testing.assert_allclose(path[:, 0, 0], [1.5, 2.0, 2.5, 3.0])
    np.testing.assert_allclose(np.array(lstm.fed)[:, 0, 0], [0.0, 0.0, 1.0, 1.5, 2.0, 2.5])


def test_what_is_missing_is_fed_as_the_centre_and_nothing_grows_beyond_what_was_trained() -> None:
    lstm = Steps(2.0)
    context = np.full((2, 1, 2), np.nan)
    context[:, :, 1] = 100.0
    path = roll_out(lstm, context, 50)
    assert lstm.fed[0].tolist() == [[0.0, 5.0]]
    assert path.max() == 5.0


def test_a_roll_out_of_the_real_model_is_its_steps_and_starts_from_nothing(models: Models) -> None:
    lstm = models.step_lstm(1)
    assert lstm is not None
    context = np.random.default_rng(1).normal(size=(20, 1, models.features))
    first = roll_out(lstm, context, 5)
    np.testing.assert_array_equal(roll_out(lstm, context, 5), first)
    fresh = models.step_lstm(1)
    assert fresh is not None
    for row in context:
        ahead = fresh.step(row)
    np.testing.assert_allclose(first[0], ahead, rtol=1e-6)
    np.testing.assert_allclose(first[1], fresh.step(ahead), rtol=1e-5)


def test_a_real_node_gets_a_score_for_each_horizon_with_skill_and_for_no_other(models: Models) -> None:
    scorer = NodeScorer(replace(small_bundle_of(models), files={}), 15.0, models=models)
    small_bundle.live(scorer, small_bundle.rows(9, 90))
    forecaster = Forecaster.of(models)
    assert forecaster is not None
    forecast = forecaster.look(scorer.state(), 15.0)
    assert forecast is not None
    assert list(forecast.scores) == [60.0, 150.0]
    assert all(math.isfinite(score) for score in forecast.scores.values())
    assert forecast.made_at == small_bundle.LIVE + 89 * 15.0


def small_bundle_of(models: Models):
    return replace(small_bundle.build(), manifest=models.manifest).bundle()


def test_a_bundle_without_skill_has_no_forecaster(small: small_bundle.SmallBundle) -> None:
    assert Forecaster.of(Models(small.bundle())) is None
    unskilled = replace(small.manifest, forecast=ForecastEntry(ENTRY.horizons[2:], {}))
    assert Forecaster.of(Models(replace(small, manifest=unskilled).bundle())) is None
    without = small_bundle.only(small, "isolation_forest")
    without = replace(without, manifest=replace(without.manifest, forecast=ENTRY))
    assert Forecaster.of(Models(without.bundle())) is None


def test_a_feature_is_named_with_when_it_passes_which_edge(models: Models) -> None:
    lstm = Steps({column(CPU): 0.3, column(MEMORY): -0.15})
    forecast = Forecaster(models, lstm, ENTRY).look(at_centre(), 15.0)
    assert forecast is not None
    cpu, memory = forecast.leaving
    assert (cpu.feature.name, cpu.seconds) == (CPU, 4 * 15.0)  # 0.3, 0.6, 0.9, 1.2
    assert cpu.edge == pytest.approx(10.0 + math.expm1(1.0))
    assert cpu.expected == pytest.approx(10.0 + math.expm1(1.2), rel=1e-4)
    assert (memory.feature.name, memory.seconds) == (MEMORY, 7 * 15.0)
    assert memory.expected < memory.edge < 10.0


def test_the_harmless_side_what_is_out_already_and_beyond_the_horizon_are_not_named(models: Models) -> None:
    lstm = Steps({column(CPU): -0.3, column(MEMORY): 0.3})
    forecast = Forecaster(models, lstm, ENTRY).look(at_centre(), 15.0)
    assert forecast is not None
    assert not forecast.leaving, "less work and more free memory alarm nobody"
    assert forecast.scores[150.0] < 0.5
    state = at_centre()
    state["rows"][:, column(CPU)] = 14.0
    forecast = Forecaster(models, Steps({column(CPU): 0.3}), ENTRY).look(state, 15.0)
    assert forecast is not None
    assert not forecast.leaving
    assert forecast.scores[60.0] > 1.0
    late = Forecaster(models, Steps({column(MEMORY): -0.0999}), ENTRY).look(at_centre(), 15.0)
    assert late is not None
    assert not late.leaving, "it would pass the edge a tick after the last horizon"


def test_a_feature_that_is_missing_now_has_no_forecast(models: Models) -> None:
    state = at_centre()
    state["rows"][-1, column(CPU)] = np.nan
    forecast = Forecaster(models, Steps({column(CPU): 0.5}), ENTRY).look(state, 15.0)
    assert forecast is not None
    assert math.isnan(forecast.scores[60.0])
    assert not math.isnan(forecast.scores[150.0])
    assert not forecast.leaving


def test_a_node_that_ticks_faster_feeds_it_at_the_rhythm_of_training(models: Models) -> None:
    lstm = Steps()
    state = at_centre(5.0, 3 * CONTEXT_TICKS)
    state["rows"][:, 0] = 10.0 + np.arange(3 * CONTEXT_TICKS)
    Forecaster(models, lstm, ENTRY).look(state, 5.0)
    own = compress(state["rows"][2::3].astype(float), state["centre"], state["scale"])
    np.testing.assert_allclose(np.array(lstm.fed)[:CONTEXT_TICKS, 0], np.minimum(own, 5.0), rtol=1e-6)


def test_nothing_is_said_from_too_little_past_after_a_gap_or_at_another_rhythm(models: Models) -> None:
    forecaster = Forecaster(models, Steps(), ENTRY)
    assert forecaster.look(at_centre(ticks=29), 15.0) is None
    assert forecaster.look(at_centre(ticks=30), 15.0) is not None
    assert forecaster.look(at_centre(60.0), 60.0) is None, "it was trained on steps of 15 s"
    assert forecaster.look(at_centre(11.0), 11.0) is None
    assert forecaster.look({}, 15.0) is None, "the node is not known yet"
    state = at_centre()
    state["times"][:60] -= 600.0
    assert forecaster.look(state, 15.0) is None


def test_two_missed_scrapes_are_a_gap_and_one_is_none(models: Models) -> None:
    forecaster = Forecaster(models, Steps(), ENTRY)
    state = at_centre()
    state["times"][:60] -= 15.0
    assert forecaster.look(state, 15.0) is not None
    state["times"][:60] -= 15.0
    assert forecaster.look(state, 15.0) is None, "twenty ticks after it are too few"


def test_the_forecaster_lives_through_as_long_a_past_as_in_training_and_no_longer(models: Models) -> None:
    lstm = Steps()
    Forecaster(models, lstm, ENTRY).look(at_centre(ticks=CONTEXT_TICKS + 20), 15.0)
    assert len(lstm.fed) == CONTEXT_TICKS + 10 - 1, "and then its own forecasts, up to the last horizon"


def test_what_leaves_first_is_named_first(models: Models) -> None:
    lstm = Steps({column(CPU): 0.3, column(MEMORY): -0.9})
    forecast = Forecaster(models, lstm, ENTRY).look(at_centre(), 15.0)
    assert forecast is not None
    assert [one.feature.name for one in forecast.leaving] == [MEMORY, CPU]


def test_what_was_never_below_zero_is_not_expected_there(models: Models) -> None:
    lstm, state = Steps({column(MEMORY): -3.0}), at_centre()
    forecast = Forecaster(models, lstm, ENTRY).look(state, 15.0)
    assert forecast is not None
    assert [one.expected for one in forecast.leaving] == [0.0]
    state["rows"][50] = -0.1
    forecast = Forecaster(models, lstm, ENTRY).look(state, 15.0)
    assert forecast is not None
    assert forecast.leaving[0].expected == pytest.approx(10.0 - math.expm1(3.0), rel=1e-4)


@pytest.mark.parametrize(
    ("seconds", "label"), [(15, "15s"), (60, "1m"), (90, "90s"), (900, "15m"), (3600, "1h"), (5400, "90m")]
)
def test_a_horizon_is_called_as_promql_writes_it(seconds: float, label: str) -> None:
    assert horizon_label(seconds) == label


def test_the_level_is_that_of_the_features_farthest_on_their_way_out() -> None:
    features = small_bundle.FEATURES
    entry = ForecastEntry(
        (HorizonEntry(60.0, ERRORS, {feature.name: 0.1 for feature in features}, tail=TAIL),),
        {feature.name: (-2.0, 2.0) for feature in features},
    )
    bounds = NormalRange(entry, features)
    row = np.zeros(len(features))
    row[column(CPU)], row[column(MEMORY)] = 3.0, -1.0
    np.testing.assert_allclose(bounds.level(60.0, bounds.way_out(row)[None]), [(1.5 + 0.5) / 2])
    assert np.isnan(bounds.level(60.0, np.full((1, len(features)), np.nan))[0])


class TestManifest:
    def test_it_comes_back_as_it_was_written(self, small: small_bundle.SmallBundle) -> None:
        manifest = replace(small.manifest, forecast=ENTRY)
        assert json.loads(manifest.to_bytes())["forecast"]["horizons"][2]["features"] == {}
        back = parse_manifest(manifest.to_bytes()).forecast
        assert back is not None
        assert back.horizons[:2] == ENTRY.horizons[:2]
        assert math.isnan(back.horizons[2].skill)
        assert back.ranges == ENTRY.ranges

    def test_bundles_made_before_it_have_none(self, small: small_bundle.SmallBundle) -> None:
        assert "forecast" not in json.loads(small.manifest.to_bytes())
        assert parse_manifest(small.manifest.to_bytes()).forecast is None

    def test_the_starter_shows_none_because_none_had_skill(self) -> None:
        told = verify_bundle(starter_bundle()).manifest.forecast
        assert told is not None
        assert [dict(horizon.features) for horizon in told.horizons] == [{}] * 3

    def test_a_bundle_with_it_passes_the_door(self, small: small_bundle.SmallBundle, tmp_path: Path) -> None:
        path = write_bundle(tmp_path, replace(small.manifest, forecast=ENTRY), small.files)
        assert verify_bundle(path).manifest.forecast is not None

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda d: d["horizons"][0].update(seconds=1e6), "horizons[0].seconds must be 1 to 240 ticks"),
            (lambda d: d["horizons"][0].update(seconds=0.1), "horizons[0].seconds must be 1 to 240 ticks"),
            (lambda d: d["horizons"].reverse(), "forecast.horizons must rise"),
            (lambda d: d["horizons"][0]["errors"].pop("lstm"), "errors must be of lstm"),
            (lambda d: d["horizons"][0]["errors"].update(magic=1), "errors must be of lstm"),
            (lambda d: d["horizons"][0]["features"].update(bogus=1), "has bogus, which is no feature"),
            (lambda d: d["horizons"][0].pop("tail"), "tail is missing"),
            (lambda d: d["ranges"].pop(CPU), f"ranges has no {CPU}"),
            (lambda d: d["ranges"][CPU].update(low=0.5), "must reach from below 0 to above 0"),
            (lambda d: d.update(horizons=d["horizons"] * 9), "at most 8"),
            (lambda d: d.update(ranges=[]), "ranges must be an object"),
        ],
    )
    def test_what_is_wrong_is_refused_with_its_path(self, small, change, said: str) -> None:
        document = json.loads(replace(small.manifest, forecast=ENTRY).to_bytes())
        change(document["forecast"])
        with pytest.raises(BundleError) as refused:
            parse_manifest(json.dumps(document).encode())
        assert said in refused.value.message

    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["horizons", "ranges", "seconds", "errors", "features", "tail", "lstm"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_anything_else_is_a_forecast_or_refused_never_a_traceback(self, small, said: object) -> None:
        document = json.loads(small.manifest.to_bytes()) | {"forecast": said}
        with contextlib.suppress(BundleError):
            parse_manifest(json.dumps(document).encode())
