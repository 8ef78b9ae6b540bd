"""The forecast is measured against what anybody could foresee, and shown only where it is better."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

import small_bundle
from node_anomaly_core.evidence import FORECAST_CLIP
from node_anomaly_core.forecast import EVERY_S, NormalRange
from node_anomaly_trainer.bundle_words import describe
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.config_forecast import ForecastConfig
from node_anomaly_trainer.evaluate import false_alarm_rate
from node_anomaly_trainer.forecast_skill import (
    LEAST_RANGE,
    Exam,
    errors,
    levels,
    measure,
    normal_ranges,
    roll_outs,
    with_forecast,
)
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.settings import InvalidValueError

INTERVAL_S = 60.0
TURN = 0.05  # radians a tick: a round takes two hours
FEATURES = small_bundle.FEATURES[:3]


class Turning:
    """Knows that the first two features turn in a circle and nothing of the third."""

    def __init__(self, turn: float = TURN) -> None:
        self.turn = turn

    def reset(self) -> None:
        pass

    def step(self, x: np.ndarray) -> np.ndarray:
        sine, cosine = np.sin(self.turn), np.cos(self.turn)
        ahead = np.array(x, dtype=np.float32)
        ahead[:, 0] = cosine * x[:, 0] + sine * x[:, 1]
        ahead[:, 1] = cosine * x[:, 1] - sine * x[:, 0]
        return ahead


def exam(days: float = 6.0, nodes: int = 2, seed: int = 0) -> Exam:
    """Two features that turn in a circle and one that is noise."""
    ticks = int(days * 86_400 / INTERVAL_S)
    rng = np.random.default_rng(seed)
    angle = TURN * np.arange(ticks)[:, None] + rng.uniform(0, 6, nodes)
    values = np.stack([np.sin(angle), np.cos(angle), rng.normal(size=angle.shape)], axis=2)
    values += 0.02 * rng.normal(size=values.shape)
    half, end = int(0.5 * ticks), int(0.75 * ticks)
    return Exam(
        compressed=values.astype(np.float32),
        normal=np.ones((ticks, nodes), dtype=bool),
        fitted=slice(0, half),
        chosen=slice(half, end),
        judged=slice(end, ticks),
        interval_s=INTERVAL_S,
        budget_per_week=1.0,
    )


def measured(found: Exam, lstm: object = None, horizons=(300.0, 900.0), notes: list[str] | None = None):
    told = notes if notes is not None else []
    return measure(lambda _batch: lstm or Turning(), FEATURES, found, horizons, ignore_report, told.append)


def test_what_it_foresees_is_shown_with_its_skill_and_what_it_does_not_is_not():
    entry = measured(exam())
    assert [one.seconds for one in entry.horizons] == [300.0, 900.0]
    for one in entry.horizons:
        assert set(one.features) == {FEATURES[0].name, FEATURES[1].name}
        assert one.skill > 0.8
        assert one.tail is not None
        assert one.alarms_per_week < 10.0
        assert set(one.errors) == {"lstm", "persistence", "seasonal_naive", "usual"}
    assert set(entry.ranges) == {FEATURES[0].name, FEATURES[1].name}
    assert all(low < 0 < high for low, high in entry.ranges.values())


def test_without_skill_there_are_figures_and_nothing_is_shown():
    entry = measured(exam(), Turning(-TURN))
    assert entry.shown == ()
    assert entry.ranges == {}
    assert all(one.overall_skill < 0 for one in entry.horizons)


def test_persistence_itself_is_no_better_than_persistence():
    entry = measured(exam(), Turning(0.0))
    assert entry.shown == ()
    for one in entry.horizons:
        assert one.errors["lstm"] == pytest.approx(one.errors["persistence"], rel=1e-5)


def test_a_rhythm_of_a_day_is_no_skill_because_yesterday_knows_it():
    """Against persistence alone it would be: the rivals are there for such a case."""
    found = exam()
    ticks = len(found.compressed)
    angle = 2 * np.pi * np.arange(ticks)[:, None] * INTERVAL_S / 86_400 + np.zeros((1, 2))
    found.compressed[:, :, 0], found.compressed[:, :, 1] = np.sin(angle), np.cos(angle)
    entry = measured(found, Turning(2 * np.pi * INTERVAL_S / 86_400), (3600.0,))
    (one,) = entry.horizons
    assert one.features == {}
    assert one.errors["seasonal_naive"] < one.errors["persistence"]


def test_the_errors_are_those_of_the_shown_moments_and_of_the_same_values_for_all():
    found = exam(nodes=1)
    found.compressed[::7, :, 0] = np.nan
    trial = roll_outs(lambda _batch: Turning(0.0), found, found.judged, (5,), ignore_report)
    assert np.unique(np.diff(trial.moments)).tolist() == [EVERY_S / INTERVAL_S]
    assert trial.moments[-1] + 5 < found.judged.stop
    target, last = found.compressed[trial.moments + 5, 0, 0], found.compressed[trial.moments, 0, 0]
    yesterday = found.compressed[trial.moments + 5 - 1440, 0, 0]
    known = np.isfinite(target) & np.isfinite(last) & np.isfinite(yesterday)
    assert errors(trial, found, 5)["persistence"][0] == pytest.approx(
        np.abs(target - last)[known].mean(), rel=1e-5
    )


def test_incidents_neither_judge_nor_calibrate():
    found, spoilt = exam(), exam()
    spoilt.normal[::3] = False
    spoilt.compressed[::3] = 5.0
    clean, entry = measured(found), measured(spoilt)
    for one, other in zip(entry.horizons, clean.horizons, strict=True):
        # only what is fed to it at those ticks may still differ; here nothing remembers
        assert one.errors["persistence"] == pytest.approx(other.errors["persistence"], rel=0.1)
        assert one.errors["lstm"] == pytest.approx(other.errors["lstm"], rel=0.1)


def test_what_cannot_be_measured_is_left_out_and_said():
    notes: list[str] = []
    entry = measured(exam(2.0), horizons=(10.0, 300.0, 86_400.0), notes=notes)
    assert [one.seconds for one in entry.horizons] == [300.0]
    assert [line.split(" is left out")[0] for line in notes] == [
        "forecast 10 s ahead",
        "forecast 86400 s ahead",
    ]
    assert measured(exam(2.0), horizons=(10.0,), notes=notes) is None


def test_a_short_history_has_no_yesterday_and_shows_no_score_it_cannot_calibrate():
    notes: list[str] = []
    entry = measured(exam(0.9, nodes=1), horizons=(300.0,), notes=notes)
    (one,) = entry.horizons
    assert "seasonal_naive" not in one.errors
    assert one.features == {}
    assert "200" in notes[0]


def test_a_bundle_says_what_it_foresees():
    made = small_bundle.build()
    entry = measured(exam(2.0), horizons=(300.0,))
    bundle = replace(made, manifest=replace(made.manifest, forecast=entry)).bundle()
    (words,) = describe(bundle, None)["forecast"].values()
    assert re.fullmatch(rf"skill -?\d+%, nodes show {FEATURES[0].name} \d+%, {FEATURES[1].name} \d+%", words)
    assert describe(made.bundle(), None)["forecast"] == {}


def test_it_can_be_turned_off_and_its_horizons_have_to_rise():
    candidate = object()
    config = ForecastConfig(enabled=False)
    assert with_forecast(None, candidate, config, ignore_report, print) is candidate
    assert parse_config({"forecast": {"horizons": ["5m", "2h"]}}).forecast.horizons == (300.0, 7200.0)
    for wrong in ((), (300.0, 300.0), (900.0, 300.0)):
        with pytest.raises(InvalidValueError, match="durations that rise"):
            ForecastConfig(horizons=wrong)


def test_a_feature_that_a_node_lacks_is_not_in_the_level_that_the_score_is_calibrated_on():
    """A node leaves it out of its own score, too."""
    found = exam(nodes=2)
    found.compressed[:, 1, 2] = np.nan
    bounds = NormalRange(measured(exam(nodes=2)), FEATURES)
    trial = roll_outs(lambda _batch: Turning(), found, found.judged, (5,), ignore_report)
    level = levels(bounds, trial, found, 300.0)
    ahead = trial.ahead[5].astype(np.float64)
    ahead[:, 1, 2] = np.nan
    for node in (0, 1):
        alone = bounds.level(300.0, bounds.way_out(ahead[:, node]))
        np.testing.assert_allclose(level[:, node], np.where(trial.usable[:, node], alone, np.nan))


# -- what is chosen, and what it is judged on


class Fading:
    """Takes every feature for one that goes back to its centre, by half in five ticks."""

    def reset(self) -> None:
        pass

    def step(self, x: np.ndarray) -> np.ndarray:
        return (0.5**0.2 * x).astype(np.float32)


def faded(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Noise that does, of unit scatter."""
    keep = 0.5**0.2
    values = np.random.default_rng(seed).normal(size=shape)
    for tick in range(1, len(values)):
        values[tick] = keep * values[tick - 1] + np.sqrt(1 - keep**2) * values[tick]
    return values.astype(np.float32)


def test_what_is_foreseen_in_the_judged_part_alone_was_not_chosen_and_is_not_shown():
    """Or the figure would be the best of many tries."""
    found = exam()
    part = found.chosen
    found.compressed[part] = np.random.default_rng(1).normal(size=found.compressed[part].shape)
    (one,) = measured(found, horizons=(300.0,)).horizons
    assert np.isnan(one.skill)
    assert one.features == {}
    assert one.errors["lstm"] < one.errors["persistence"], "that part itself is foreseen"


def test_a_chosen_feature_that_is_not_foreseen_any_more_counts_and_is_not_shown():
    found = exam(12.0)
    found.compressed[:] = 0.0
    for feature, scatter in ((0, 1.0), (1, 0.2)):
        found.compressed[:, :, feature] = scatter * faded(feature, found.normal.shape)
    judged = found.judged
    found.compressed[judged, :, 1] = 0.2 * np.random.default_rng(2).normal(size=found.normal[judged].shape)
    (one,) = measured(found, Fading(), (300.0,)).horizons
    assert list(one.features) == [FEATURES[0].name]
    assert 0.05 < one.skill < one.features[FEATURES[0].name] - 0.01


def test_a_score_is_made_of_the_part_that_chose_and_judged_on_the_other():
    calm, loud = exam(), exam()
    loud.compressed[loud.judged, :, :2] *= 4.0
    (before,), (after,) = (measured(found, horizons=(300.0,)).horizons for found in (calm, loud))
    assert before.tail == after.tail
    assert before.alarms_per_week < after.alarms_per_week
    bounds = NormalRange(measured(loud, horizons=(300.0,)), FEATURES)
    trial = roll_outs(lambda _batch: Turning(), loud, loud.judged, (5,), ignore_report)
    scores = after.tail.score(levels(bounds, trial, loud, 300.0))
    assert after.alarms_per_week == pytest.approx(false_alarm_rate(list(scores.T), EVERY_S))


def test_what_never_moves_is_in_no_mean_of_errors():
    found = exam(nodes=1)
    found.compressed[:, :, 2] = 0.0
    (one,) = measured(found, horizons=(300.0,)).horizons
    trial = roll_outs(lambda _batch: Turning(), found, found.judged, (5,), ignore_report)
    for name, error in errors(trial, found, 5).items():
        assert error[2] == 0.0
        assert one.errors[name] == pytest.approx(error[:2].mean())


def test_no_error_is_larger_than_what_evidence_is_clipped_at():
    found = exam(nodes=1)
    found.compressed[:, :, 2] = 50.0
    trial = roll_outs(lambda _batch: Turning(), found, found.judged, (5,), ignore_report)
    assert errors(trial, found, 5)["usual"][2] == FORECAST_CLIP


def test_where_not_all_can_be_foreseen_it_is_the_latest_of_as_many_nodes_as_possible():
    found = exam(nodes=3)
    part = found.judged
    there = len(roll_outs(lambda _b: Turning(), found, part, (5, 15), ignore_report).moments)
    for most, moments, nodes in ((10, 10, [0]), (there, there, [0]), (2 * there, there, [0, 2])):
        trial = roll_outs(lambda _b: Turning(), found, part, (5, 15), ignore_report, most)
        assert (len(trial.moments), trial.nodes.tolist()) == (moments, nodes)
        assert trial.moments[-1] == part.stop - 15 - 1


def test_a_normal_range_holds_all_but_a_thousandth_of_what_was_normal_when_it_was_fitted():
    found = exam()
    rng = np.random.default_rng(3)
    found.compressed[:, :, 2] = 10.0 * rng.normal(size=found.normal.shape)
    found.compressed[found.judged] = 900.0
    found.compressed[: found.fitted.stop : 10] = 500.0
    found.normal[: found.fitted.stop : 10] = False
    ranges = normal_ranges(found, FEATURES, {FEATURES[0].name, FEATURES[2].name})
    assert set(ranges) == {FEATURES[0].name, FEATURES[2].name}
    assert ranges[FEATURES[0].name] == (-LEAST_RANGE, LEAST_RANGE), "a still one has room"
    assert ranges[FEATURES[2].name] == pytest.approx((-30.9, 30.9), rel=0.1)
