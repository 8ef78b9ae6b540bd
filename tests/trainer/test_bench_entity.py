"""One entity of a bench: trained, exported, lived and scored through core; labels come last."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from bench_data import (
    EVENTS,
    INTERVAL_S,
    TRAIN,
    read_scores,
    series,
    server,
    small_config,
    write_folder,
)
from node_anomaly_core.bundle import verify_bundle, write_bundle
from node_anomaly_core.calibration import ENOUGH_TICKS, FEWEST_TICKS, fit_tail
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import rolling_scores
from node_anomaly_trainer.bench.baselines import DETECTORS, alarm_scores, baseline_scores
from node_anomaly_trainer.bench.data import load, read_manifest
from node_anomaly_trainer.bench.entity import bench_entity, lived, score_series
from node_anomaly_trainer.bench.files import apart, scores_csv
from node_anomaly_trainer.bench.lenders import labelled_rows
from node_anomaly_trainer.bench.metrics import judge
from node_anomaly_trainer.bench.plan import Plan, features_of, history_of, planned
from node_anomaly_trainer.bench.record import read_record
from node_anomaly_trainer.bench.yardsticks import largest_z
from node_anomaly_trainer.config_models import MEMBERS
from node_anomaly_trainer.pipeline import prepare
from node_anomaly_trainer.progress import SilentProgress, ignore_report

CONFIG = small_config()


def ticks(count):
    """A train part (count, 1) in which every value is there."""
    return np.zeros((count, 1))


def entries(tmp_path, **arrays):
    """Entries of a folder, one for each keyword, all of the data set web."""
    folder = {f"web/{name}": one for name, one in arrays.items()}
    return read_manifest(write_folder(tmp_path / "data", folder))


def test_a_disk_that_cannot_take_the_scores_is_found_before_anything_is_trained(tmp_path, monkeypatch):
    (entry,) = entries(tmp_path, one=server(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        TrainingError,
        match=re.escape(f"{tmp_path}: 1.0 kB are free, what is to be written takes up to 105.5 kB"),
    ):
        bench_entity(entry, tmp_path, CONFIG, "x", (), _no_step)


@pytest.mark.parametrize(
    ("less", "more", "said"),
    [
        (50_000, 100_000, ("50.0 kB", "100.0 kB")),
        (40_000_000, 2_500_000_000, ("40.0 MB", "2500.0 MB")),
        (1_000_000, 1_000_100, ("1000.0 kB", "1000.1 kB")),
        (1_000_000, 1_000_010, ("1000000 bytes", "1000010 bytes")),
        (0, 1_500_000, ("0.0 MB", "1.5 MB")),
    ],
)
def test_what_is_free_and_what_is_needed_are_told_apart(less, more, said):
    assert apart(less, more) == said


def _no_step(share, what):
    raise AssertionError(f"{what} has begun")


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A server, what it was scored with, and its scores."""
    (entry,) = entries(tmp_path_factory.mktemp("web"), one=server(1))
    loaded, label = load(entry)
    return entry, loaded, label, score_series(loaded, CONFIG, None, ignore_report)


def test_scores_are_those_of_a_node_that_lived_the_end_of_train(web, tmp_path):
    """By hand: train, write, verify, read back, live, step."""
    _, loaded, _, scored = web
    config = planned(CONFIG, loaded.train, INTERVAL_S).config
    candidate = prepare(history_of(loaded, loaded.train), config, SilentProgress())
    bundle = verify_bundle(write_bundle(tmp_path, candidate.manifest, candidate.files))
    node = NodeScorer(bundle, INTERVAL_S, node=loaded.entry.name)
    assert node.known
    rows = np.concatenate([loaded.train, loaded.test]).astype(np.float64)
    stepped = [node.step(loaded.start_s + INTERVAL_S * at, row).score for at, row in enumerate(rows)]
    assert np.array_equal(scored.score, np.array(stepped[TRAIN:]), equal_nan=True)
    assert np.isfinite(scored.score).all()
    assert scored.bundle_bytes == sum(map(len, candidate.files.values()))
    assert 0.0 < scored.tick_ms < 100.0


def test_a_score_depends_on_nothing_that_comes_later(web, tmp_path):
    """Neither on later rows nor on any label: not even the bundle knows that there is a test."""
    _, loaded, _, _ = web
    config = planned(CONFIG, loaded.train, INTERVAL_S).config
    candidate = prepare(history_of(loaded, loaded.train), config, SilentProgress())
    bundle = verify_bundle(write_bundle(tmp_path, candidate.manifest, candidate.files))
    changed = loaded.test.copy()
    changed[200:] = 0.0
    whole, _ = lived(bundle, loaded, ignore_report)
    other, _ = lived(bundle, replace(loaded, test=changed), ignore_report)
    assert np.array_equal(whole[:200], other[:200])
    assert not np.array_equal(whole[200:], other[200:])


def test_it_leaves_scores_those_of_baselines_and_a_record(web, tmp_path):
    entry, loaded, label, scored = web
    bench_entity(entry, tmp_path, CONFIG, "print", (), ignore_report)
    written = read_scores(tmp_path / "web" / "one.csv")
    assert np.array_equal(written, scored.score, equal_nan=True)
    record = read_record(tmp_path, "web", "one")
    assert record is not None
    assert record.fingerprint == "print"
    assert record.refused == ""
    assert record.figures["ours"] == judge(label, written, INTERVAL_S)
    for name in DETECTORS:
        other = read_scores(tmp_path / ".baselines" / name / "web" / "one.csv")
        assert record.figures[name] == judge(label, other, INTERVAL_S)
        assert np.isfinite(other).all()
    assert record.figures["max|z|"] == judge(label, largest_z(loaded.train, loaded.test), INTERVAL_S)
    assert record.figures["ours"].vus_pr > 0.5
    assert {path.name for path in tmp_path.iterdir()} == {"web", ".baselines"}


def test_labels_are_looked_at_after_the_scores(web, tmp_path):
    (entry,) = entries(tmp_path, one=server(1) | {"label": 1 - server(1)["label"]})
    bench_entity(entry, tmp_path, CONFIG, "print", (), ignore_report)
    assert np.array_equal(read_scores(tmp_path / "web" / "one.csv"), web[-1].score)
    record = read_record(tmp_path, "web", "one")
    assert record is not None
    assert record.figures["ours"].events == len(EVENTS) + 1


@pytest.mark.parametrize("arrays", [server(1, train=26), series(1, 173), server(1, train=49)], ids=len)
def test_what_the_trainer_refuses_has_empty_scores_and_a_reason(tmp_path, arrays):
    (entry,) = entries(tmp_path, short=arrays)
    bench_entity(entry, tmp_path, CONFIG, "print", (), ignore_report)
    record = read_record(tmp_path, "web", "short")
    assert record is not None
    assert re.fullmatch(r"its train part has (26|25|49) ticks, 50 are needed", record.refused)
    assert record.refused_hint == "give it a longer train part"
    assert (record.bundle_bytes, record.tick_ms) == (None, None)
    assert np.isnan(read_scores(tmp_path / "web" / "short.csv")).all()
    assert record.figures["ours"].alarms == 0
    assert record.figures["max|z|"].unknown == 0


def test_a_single_series_with_gaps_and_missing_values_is_scored(tmp_path):
    arrays = series(5, 4000)
    arrays["time"][700:] += 2 * 3600
    arrays["time"][900] = arrays["time"][899]
    arrays["value"][1000:1010] = np.nan
    (entry,) = entries(tmp_path, one=arrays)
    bench_entity(entry, tmp_path, CONFIG, "print", (), ignore_report)
    written = read_scores(tmp_path / "web" / "one.csv")
    assert len(written) == 4000
    assert np.isnan(written[:600]).all()
    assert written[899] == written[900]
    assert np.isfinite(written[600:]).mean() > 0.95
    record = read_record(tmp_path, "web", "one")
    assert record is not None
    assert record.figures["ours"].rows == 3400
    assert record.notes == ("fitted on 60% of train, so that enough calibrates",)


def test_all_members_take_part_where_there_is_enough_to_learn_from(tmp_path):
    """The LSTM too: two features, one epoch."""
    short = {
        key: array[..., :2] if key in ("train", "test", "columns") else array
        for key, array in server(3, 700).items()
    }
    (entry,) = entries(tmp_path, one=short)
    lstm = replace(CONFIG.models.lstm, epochs=1, units=(4, 4), sequence_length=20)
    config = replace(CONFIG, models=replace(CONFIG.models, enabled=MEMBERS, lstm=lstm))
    scored = score_series(load(entry)[0], config, None, ignore_report)
    assert scored.refused == ""
    assert not any("LSTM" in note for note in scored.notes)
    assert np.isfinite(scored.score).all()


def test_a_plan_keeps_enough_to_calibrate_and_leaves_out_an_lstm_that_cannot_learn():
    everything = replace(CONFIG, models=replace(CONFIG.models, enabled=MEMBERS))
    plan = planned(everything, ticks(604), INTERVAL_S)
    assert plan.config.models.enabled == tuple(name for name in MEMBERS if name != "lstm")
    assert 604 - int(604 * plan.config.training.fit_fraction) >= 240
    assert plan.least_scores == ENOUGH_TICKS
    assert plan.notes == (
        "fitted on 60% of train, so that enough calibrates",
        "without the LSTM, which needs more ticks",
    )
    assert planned(everything, ticks(10_000), INTERVAL_S) == Plan(everything, ENOUGH_TICKS, ())
    assert planned(everything, ticks(600), INTERVAL_S).config.training.fit_fraction == 0.6
    with pytest.raises(TrainingError, match="has 49 ticks, 50 are needed"):
        planned(everything, ticks(49), INTERVAL_S)


def test_a_short_train_part_is_taught_to_those_members_for_whom_it_holds_something():
    """Windows that fit in and centroids that have some; faults only where others lend their incidents."""
    everything = replace(CONFIG, models=replace(CONFIG.models, enabled=MEMBERS))
    plan = planned(everything, ticks(106), 3600.0)
    assert plan.config.models.enabled == tuple(
        name for name in MEMBERS if name not in ("lstm", "random_forest")
    )
    assert plan.config.models.kmeans.centroids == (64 - 39) // 3
    assert plan.config.training.fit_fraction == pytest.approx(64 / 106)
    assert plan.least_scores == 35
    assert "random_forest" in planned(everything, ticks(106), 3600.0, lent=True).config.models.enabled
    shortest = planned(everything, ticks(50), 3600.0)
    assert "kmeans" not in shortest.config.models.enabled
    assert shortest.least_scores == FEWEST_TICKS == 50 - int(50 * shortest.config.training.fit_fraction)
    assert planned(everything, ticks(700), 1.0).notes[-1] == "without k-means, whose windows do not fit in"


def test_ticks_without_a_value_teach_nothing():
    everything = replace(CONFIG, models=replace(CONFIG.models, enabled=MEMBERS))
    gaps = ticks(200)
    gaps[10:30] = gaps[60:80] = np.nan
    assert "kmeans" not in planned(everything, gaps, INTERVAL_S).config.models.enabled
    assert "kmeans" in planned(everything, ticks(160), INTERVAL_S).config.models.enabled
    gaps[80:] = np.nan
    with pytest.raises(TrainingError, match="has 40 ticks with a value, 50 are needed"):
        planned(everything, gaps, INTERVAL_S)
    late = ticks(200)
    late[:110] = np.nan
    with pytest.raises(TrainingError, match="that is fitted has 10 ticks with a value, 20 are needed"):
        planned(everything, late, INTERVAL_S)


def test_a_gap_in_what_is_held_back_leaves_enough_to_calibrate():
    """Ticks with a value are counted: those of a gap calibrate nothing."""
    for missing in (slice(560, 700), slice(460, 1000), slice(400, None, 3)):
        gaps = ticks(1000)
        gaps[missing] = np.nan
        plan = planned(CONFIG, gaps, INTERVAL_S)
        held_back = gaps[int(1000 * plan.config.training.fit_fraction) :]
        known = int(np.isfinite(held_back).any(axis=1).sum())
        assert known >= min(240, round(0.4 * np.isfinite(gaps).any(axis=1).sum())), missing
        assert plan.least_scores <= known
    assert planned(CONFIG, ticks(1000), INTERVAL_S).config.training.fit_fraction == 0.75


@pytest.mark.parametrize(
    "missing", [slice(0, 160), slice(200, None), slice(None, None, 7)], ids=["start", "end", "every 7th"]
)
def test_a_server_with_a_train_part_of_which_much_is_missing_is_scored(tmp_path, missing):
    """One that was switched on late among them: a bundle does not prove itself with the time before."""
    arrays = server(23, train=400)
    arrays["train"][missing] = np.nan
    (entry,) = entries(tmp_path, gaps=arrays)
    bench_entity(entry, tmp_path / "out", CONFIG, "print", (), ignore_report)
    record = read_record(tmp_path / "out", "web", "gaps")
    assert record is not None
    assert record.refused == ""
    assert record.figures["ours"].unknown == 0
    assert record.figures["ours"].vus_pr > 0.8


def test_a_value_that_no_node_would_take_for_a_measurement_spoils_no_train_part(tmp_path):
    arrays = server(23, train=400)
    arrays["train"] = arrays["train"].astype(np.float64)
    arrays["train"][100, 0] = np.finfo(np.float64).max
    (entry,) = entries(tmp_path, huge=arrays)
    bench_entity(entry, tmp_path / "out", CONFIG, "print", (), ignore_report)
    record = read_record(tmp_path / "out", "web", "huge")
    assert record is not None
    assert record.refused == ""
    assert record.figures["ours"].vus_pr > 0.8


def test_values_at_every_other_tick_are_refused_with_what_is_wrong_with_them(tmp_path):
    arrays = series(3, 900)
    arrays["time"] = arrays["time"][0] + 2 * INTERVAL_S * np.arange(900)
    (entry,) = entries(tmp_path, sparse=arrays)
    bench_entity(entry, tmp_path / "out", CONFIG, "print", (), ignore_report)
    record = read_record(tmp_path / "out", "web", "sparse")
    assert record is not None
    assert "has a value where the tick 60 s before has one too" in record.refused
    assert record.refused_hint == "an interval at which there are values at every tick"
    assert len(read_scores(tmp_path / "out" / "web" / "sparse.csv")) == 900


def test_the_only_member_is_never_left_out():
    forest = replace(CONFIG, models=replace(CONFIG.models, enabled=("random_forest",)))
    plan = planned(forest, ticks(106), INTERVAL_S)
    assert plan.config == replace(forest, training=plan.config.training)
    assert plan.notes == ("fitted on 60% of train, so that enough calibrates",)


@pytest.mark.parametrize("train", [50, 53, 60, 106, 187, 479])
def test_a_server_whose_train_part_is_short_is_scored_and_its_incidents_rank_first(tmp_path, train):
    """The least that calibrates is there at every length, for rivals too, as far as their windows fit in."""
    enabled = ("isolation_forest", "isolation_forest_absolute", "kmeans", "autoregression")
    config = replace(CONFIG, models=replace(CONFIG.models, enabled=enabled))
    (entry,) = entries(tmp_path, short=server(4, train=train))
    bench_entity(entry, tmp_path / "out", config, "print", (), ignore_report)
    record = read_record(tmp_path / "out", "web", "short")
    assert record is not None
    assert record.refused == ""
    ours = record.figures["ours"]
    assert ours.unknown == 0
    assert ours.vus_pr > 0.8
    assert ours.false_alarms == 0, "a few ticks promise little, so it is careful"
    assert not [note for note in record.notes if note.startswith(("pca", "isolation_forest"))]
    told = [note for note in record.notes if note.startswith("kmeans")]
    assert bool(told) == (train < 66), "a window of 40 ticks"


def test_every_column_becomes_a_feature_with_a_name_of_its_own():
    names = [feature.name for feature in features_of(["a b", "a_b", "a_b_1", "", "é" * 200, "x" * 200])]
    assert names == ["a_b", "a_b_1", "a_b_1_2", "column", "_", "x" * 80]


def test_baselines_get_their_threshold_on_the_part_that_calibrates(web):
    """The same meaning as ours: the node's own threshold, which begins where the calibration part puts it."""
    rng = np.random.default_rng(0)
    evidence = rng.gamma(2.0, size=3000)
    tail = fit_tail([peak_held(evidence[:2000])], INTERVAL_S, 7.0)
    scores = alarm_scores(evidence[:2000], evidence[2000:], INTERVAL_S, 7.0)
    assert np.array_equal(scores, rolling_scores(tail, peak_held(evidence), 7.0, INTERVAL_S)[2000:])
    _, loaded, _, _ = web
    train, test = loaded.train.astype(float), loaded.test.astype(float)
    changed = train.copy()
    changed[350:] *= 5.0  # a wilder calibration part
    for name, detector in DETECTORS.items():
        tame = baseline_scores(detector, train, test, 350, INTERVAL_S, 7.0, 1)
        wild = baseline_scores(detector, changed, test, 350, INTERVAL_S, 7.0, 1)
        assert wild.mean() < tame.mean(), name
        assert tame[EVENTS[0][0] + 5] > np.median(tame), name


def test_a_baseline_that_cannot_be_calibrated_says_so():
    with pytest.raises(TrainingError, match="at least 20 normal ticks, got 19"):
        alarm_scores(np.ones(19), np.ones(9), INTERVAL_S, 7.0)


@pytest.mark.parametrize("value", [5.0, 1e30, np.nan])
@pytest.mark.filterwarnings("error")
def test_what_never_moves_or_is_beyond_all_measure_makes_nobody_complain(value):
    """Whoever runs a bench reads the table, not numpy's worries."""
    train = np.full((100, 2), value, dtype=np.float32)
    train[3] = 0.0 if value > 1e9 else value
    assert largest_z(train, train).shape == (100,)
    if np.isfinite(value):
        assert baseline_scores(DETECTORS["pca"], np.full((100, 2), 5.0), train, 60, INTERVAL_S, 7.0, 1).shape


def test_missing_values_do_not_silence_the_largest_z():
    train, test = server(1)["train"].copy(), server(1)["test"].copy()
    whole = largest_z(train, test)
    train[3, 0] = test[5, 0] = np.nan
    test[6] = np.nan
    patchy = largest_z(train, test)
    assert np.isnan(patchy[6])
    assert np.isfinite(np.delete(patchy, 6)).all()
    assert patchy[100] == pytest.approx(whole[100], rel=0.05)


def test_scores_are_written_to_the_last_bit_and_readers_of_csv_see_every_row():
    """They leave out empty lines: an unknown score is a word."""
    content = scores_csv(np.array([0.1 + 0.2, np.nan, 1e-300]))
    assert content == b"score\n0.30000000000000004\nnan\n1e-300\n"
    rows = [float(row["score"]) for row in csv.DictReader(content.decode().splitlines())]
    assert rows == pytest.approx([0.1 + 0.2, np.nan, 1e-300], rel=0, abs=0, nan_ok=True)


def test_an_hour_at_a_second_is_scored_though_no_fault_falls_into_it(tmp_path):
    """Faults are injected by the day; a forest that nobody teaches is left out, and that is said."""
    arrays = server(1, train=3600) | {"interval_s": np.array(1)}
    (entry,) = entries(tmp_path, one=arrays)
    config = replace(CONFIG, training=replace(CONFIG.training, faults_per_node_day=0.5))
    scored = score_series(load(entry)[0], config, None, ignore_report)
    assert scored.refused == ""
    assert np.isfinite(scored.score).all()
    assert any("without the Random Forest: the fitted part" in note for note in scored.notes)


def test_borrowed_incidents_change_what_the_random_forest_says(web, tmp_path):
    (other,) = entries(tmp_path, two=server(2))
    _, loaded, _, alone = web
    taught = score_series(loaded, CONFIG, labelled_rows(*load(other), CONFIG, ignore_report), ignore_report)
    assert np.isfinite(taught.score).all()
    assert not np.array_equal(taught.score, alone.score)
