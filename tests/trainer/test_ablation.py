"""bench/ablation.py: its rows are made of the parts they name, and its table counts as a bench does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench_data import server, small_config, write_folder
from bench_programs import program
from node_anomaly_core.calibration import combine, fit_member, fit_tail
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import rolling_scores
from node_anomaly_trainer.bench.data import load, read_manifest
from node_anomaly_trainer.bench.metrics import judge
from node_anomaly_trainer.bench.plan import CALIBRATION_TICKS
from node_anomaly_trainer.calibrate import INCIDENT_SPREAD
from node_anomaly_trainer.fitting import FOREST_WEIGHT, WEIGHTS
from node_anomaly_trainer.progress import ignore_report

MEMBERS = ("isolation_forest", "isolation_forest_absolute", "lstm", "kmeans", "autoregression")
CALIBRATION, TEST = 1200, 800
INTERVAL_S, PER_WEEK = 300.0, 7.0


@pytest.fixture
def rows(monkeypatch):
    return program("ablation_variants", monkeypatch)


@pytest.fixture
def measured(rows):
    """Seven members and three detectors that saw one and the same incident, each in units of its own."""
    rng = np.random.default_rng(5)
    names = (
        *MEMBERS, "random_forest", rows.OTHERS, rows.LSTM_FLOAT,
        *(rows.BASELINE + name for name in ("pca", "kmeans", "isolation_forest")),
    )  # fmt: skip
    lived = {}
    for number, name in enumerate(names):
        score = rng.gamma(2.0, size=CALIBRATION + TEST)
        score[CALIBRATION + 300 : CALIBRATION + 340] += 15.0
        lived[name] = 10.0**number * score
    weights = dict.fromkeys(names, 1.0) | {"random_forest": 0.5, rows.OTHERS: 2.0}
    return rows.Measured(
        calibration={name: score[:CALIBRATION] for name, score in lived.items()},
        lived=lived,
        weights=weights,
        learned=weights | {"lstm": 2.0},
    )


def named(rows, title):
    """The variant with this title, in the first group that has it."""
    return next(each for group in rows.variants().values() for each in group if each.title == title)


def test_every_row_says_something_on_a_node_where_all_was_measured(rows, measured):
    for group in rows.variants().values():
        for variant in group:
            score = rows.scores_of(measured, variant, INTERVAL_S, PER_WEEK)
            assert score.shape == (TEST,), variant.title
            assert (score[310:330] >= 1.0).any(), variant.title


def test_no_two_rows_are_the_same(rows):
    every = [variant for group in rows.variants().values() for variant in group]
    assert len({replace(variant, title="") for variant in every}) == len(every)


def test_the_product_is_scored_as_core_scores_it(rows, measured):
    members = rows.PRODUCT
    scales = [fit_member(measured.calibration[name]) for name in members]
    evidence = peak_held(
        combine(
            [scale.evidence(measured.lived[name]) for scale, name in zip(scales, members, strict=True)],
            [0.5 if name == "random_forest" else 1.0 for name in members],
        )
    )
    tail = fit_tail([evidence[:CALIBRATION]], INTERVAL_S, PER_WEEK)
    expected = rolling_scores(tail, evidence, PER_WEEK, INTERVAL_S)[CALIBRATION:]
    score = rows.scores_of(measured, named(rows, "the product"), INTERVAL_S, PER_WEEK)
    np.testing.assert_allclose(score, expected)


def test_weights_are_those_that_a_row_asks_for(rows, measured):
    product = named(rows, "the product")
    for weights, expected in (("product", 0.5), ("equal", 1.0), ("learned", 0.5)):
        variant = replace(product, weights=weights)
        assert rows.weight_of(measured, variant, "random_forest") == expected
    assert rows.weight_of(measured, replace(product, weights="learned"), rows.LSTM_FLOAT) == 2.0


def test_a_member_in_other_units_says_the_same(rows, measured):
    product = named(rows, "the product")
    tenfold = replace(
        measured,
        calibration={**measured.calibration, "lstm": 10.0 * measured.calibration["lstm"]},
        lived={**measured.lived, "lstm": 10.0 * measured.lived["lstm"]},
    )
    np.testing.assert_allclose(
        rows.scores_of(measured, product, INTERVAL_S, PER_WEEK),
        rows.scores_of(tenfold, product, INTERVAL_S, PER_WEEK),
    )


def test_a_scale_further_out_never_shrinks(rows, measured):
    scores = measured.calibration["lstm"]
    assert rows.scale_of("lstm", scores, 0.95) == fit_member(scores)
    assert rows.scale_of("lstm", scores, 0.99).high == pytest.approx(np.quantile(scores, 0.99))
    flat = np.where(np.arange(1000) < 2, 5.0, 0.0)
    assert rows.scale_of("lstm", flat, 0.99) == fit_member(flat)
    incidents = rows.scale_of(rows.OTHERS, scores, 0.99)
    assert incidents.high == incidents.median + INCIDENT_SPREAD


def test_a_row_is_printed_only_if_every_entity_has_it(monkeypatch):
    table = program("ablation", monkeypatch)
    label = np.zeros(900, dtype=np.int8)
    label[100:140] = 1
    score = np.where(label == 1, 2.0, 0.5)
    both = {budget: judge(label, score, INTERVAL_S) for budget in table.BUDGETS}
    found = table.tabulated([{"alone: a": both, "alone: b": both}, {"alone: b": both}])
    assert list(found) == ["alone: b"]
    assert table.lines_of(found)[2:] == [
        "| *alone* | | | | | | | |",
        "| b | 1.000 | 1.00 | 0.00 | 0.0 % | 1.00 | 0.00 | 0.0 % |",
    ]


def test_what_was_measured_is_read_back_and_a_stranger_is_not(tmp_path, monkeypatch):
    """Two small members and the detectors, on a series of a thousand ticks."""
    measuring = program("ablation_measure", monkeypatch)
    folder = write_folder(tmp_path / "data", {"set/one": server(1)})
    entry = read_manifest(folder)[0]
    path = tmp_path / "out" / "one.npz"
    measuring.MeasureEntity(entry, path, small_config(), "this code", ()).run(ignore_report)
    found = measuring.read_measured(path, "this code")
    series, _ = load(entry)
    assert len(found.calibration["isolation_forest"]) == CALIBRATION_TICKS  # least, of what is held back
    for name in ("isolation_forest", "random_forest", "baseline_pca"):
        assert len(found.lived[name]) == len(found.calibration[name]) + len(series.test)
        assert np.isfinite(found.lived[name][-len(series.test) :]).all()
    assert found.weights == {
        "isolation_forest": WEIGHTS["isolation_forest"],
        "random_forest": FOREST_WEIGHT[False],
    }
    assert measuring.read_measured(path, "other code") is None
    path.write_bytes(path.read_bytes()[:-100])
    assert measuring.read_measured(path, "this code") is None
