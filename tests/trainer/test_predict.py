"""Rows in, scores out: each node as an agent would have scored it, in the order of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import small_bundle
from node_anomaly_core.bundle import write_bundle
from node_anomaly_core.calibration import HOLD_TICKS, held
from node_anomaly_core.errors import BundleError, ConfigError, SourceError
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer import predict
from node_anomaly_trainer.predict import predict_rows, rows_of
from node_anomaly_trainer.predicting import explain_file, open_bundle, predict_file
from node_anomaly_trainer.progress import SilentProgress

NAMES = [feature.name for feature in small_bundle.FEATURES]
TICKS = 80


@pytest.fixture(scope="module")
def made():
    return small_bundle.build()


@pytest.fixture(scope="module")
def frame():
    """Two nodes, their rows interleaved at random; the last ticks of one are a fault."""
    tables = []
    for seed, node in ((11, "alpha"), (12, "new-1")):
        values = small_bundle.rows(seed, TICKS)
        if node == "alpha":
            values[-6:, 2:5] *= 6.0
        table = pd.DataFrame(values, columns=NAMES)
        table.insert(0, "node", node)
        table.insert(0, "timestamp", small_bundle.LIVE + small_bundle.INTERVAL_S * np.arange(TICKS))
        tables.append(table)
    return pd.concat(tables).sample(frac=1.0, random_state=3).reset_index(drop=True)


def predicted(made, frame, **options):
    return predict_rows(made.bundle(), rows_of(frame, made.bundle(), "x.csv"), **options)


def test_each_node_is_scored_as_its_agent_would(made, frame):
    found = predicted(made, frame)
    for node in ("alpha", "new-1"):
        rows = frame[frame["node"] == node].sort_values("timestamp")
        scorer = NodeScorer(made.bundle(), small_bundle.INTERVAL_S, node)
        alone = [
            scorer.step(time, values).score
            for time, values in zip(rows["timestamp"], rows[NAMES].to_numpy(), strict=True)
        ]
        np.testing.assert_array_equal(found.score[rows.index], alone)


def test_an_alarm_is_what_the_shipped_rule_calls_one(made, frame):
    found = predicted(made, frame, reasons=3)
    faulty = frame[found.alarm]
    assert set(faulty["node"]) == {"alpha"}
    assert len(faulty) >= 3
    reason = found.reasons[faulty.index[-1]][0]
    assert reason.feature in NAMES[2:5]
    assert reason.observed > reason.expected


def test_a_member_can_be_asked_alone_and_a_wrong_one_is_named(made, frame):
    alone = predicted(made, frame, model="random_forest")
    np.testing.assert_array_equal(alone.score, alone.members["random_forest"])
    with pytest.raises(ConfigError) as caught:
        predicted(made, frame, model="random_forrest")
    assert "did you mean random_forest?" in caught.value.message


def test_an_alarm_of_a_member_alone_is_where_its_own_score_was_held(made, frame):
    alone = predicted(made, frame, model="random_forest")
    for node in ("alpha", "new-1"):
        rows = frame[frame["node"] == node].sort_values("timestamp").index
        np.testing.assert_array_equal(alone.alarm[rows], held(alone.score[rows], HOLD_TICKS) >= 1.0)
    assert (alone.alarm != predicted(made, frame).alarm).any(), "or this would show nothing"


@pytest.mark.parametrize("change", ["a gap", "rows twice", "a day apart"])
def test_the_rhythm_of_a_node_is_what_its_rows_usually_have_and_else_the_bundles(
    made, frame, change, monkeypatch
):
    asked = []

    class Listening(NodeScorer):
        def __init__(self, bundle, interval_s, node, models):
            asked.append(interval_s)
            super().__init__(bundle, interval_s, node, models)

    monkeypatch.setattr(predict, "NodeScorer", Listening)
    rows = frame[frame["node"] == "alpha"].sort_values("timestamp").head(9)
    if change == "a gap":
        rows = rows.assign(timestamp=rows["timestamp"] + np.where(np.arange(9) > 4, 600, 0))
    elif change == "rows twice":
        rows = pd.concat([rows] * 3)
    else:
        rows = rows.assign(timestamp=86_400.0 * np.arange(9))
    predicted(made, rows)
    assert asked == [small_bundle.INTERVAL_S]


def test_a_feature_without_any_share_in_a_score_is_no_reason(made, frame):
    found = predicted(made, frame, reasons=len(NAMES))
    assert all(reason.share > 0 for row in found.reasons for reason in row)
    assert any(row == () for row in found.reasons), "no score yet, nothing behind it"


def test_unknown_columns_and_absent_features_are_told_and_do_no_harm(made, frame):
    less = frame.drop(columns=NAMES[0]).assign(colour="red", label=0)
    found = predicted(made, less)
    assert any("ignored: colour" in note for note in found.notes)
    assert any(f"missing: {NAMES[0]}" in note for note in found.notes)
    empty = frame.assign(**{NAMES[0]: np.nan})
    np.testing.assert_array_equal(found.score, predicted(made, empty).score)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_comes_back_row_by_row(made, frame, tmp_path, suffix):
    source, output = tmp_path / f"in.{suffix}", tmp_path / f"out.{suffix}"
    text = frame.assign(timestamp=pd.to_datetime(frame["timestamp"], unit="s", utc=True).astype(str))
    if suffix == "csv":
        text.to_csv(source, index=False)
        back = pd.read_csv
    else:
        text.to_parquet(source)
        back = pd.read_parquet
    written = predict_file(
        made.bundle(), source, output, SilentProgress(), model="combined", reasons=2, alarm=True
    )
    result = back(output)
    assert list(result.columns) == ["timestamp", "node", "score", "alarm", "reasons"]
    assert list(result["timestamp"]) == list(text["timestamp"])
    assert list(result["node"]) == list(text["node"])
    np.testing.assert_allclose(result["score"], predicted(made, frame).score, rtol=1e-4)
    assert written.rows == len(frame)
    assert written.alarms == result["alarm"].sum() > 0


def test_times_in_parquet_keep_their_seconds_in_csv(made, frame, tmp_path):
    """They are what scores are joined by."""
    source, output = tmp_path / "in.parquet", tmp_path / "out.csv"
    frame.assign(timestamp=frame["timestamp"].astype(float) + 0.125).to_parquet(source)
    predict_file(made.bundle(), source, output, SilentProgress(), model="combined", reasons=0, alarm=False)
    written = pd.read_csv(output)["timestamp"]
    np.testing.assert_array_equal(written, frame["timestamp"] + 0.125)


def test_explaining_a_file_starts_with_its_highest_score(made, frame, tmp_path):
    frame.to_csv(tmp_path / "in.csv", index=False)
    ask = {"rows": 2, "at": None, "node": None, "top": 3}
    rows, _ = explain_file(made.bundle(), tmp_path / "in.csv", SilentProgress(), **ask)
    assert [row.node for row in rows] == ["alpha", "alpha"]
    assert rows[0].score >= rows[1].score >= 1.0
    assert len(rows[0].reasons) == 3
    moment = small_bundle.LIVE + 40 * small_bundle.INTERVAL_S
    rows, _ = explain_file(made.bundle(), tmp_path / "in.csv", SilentProgress(), **(ask | {"at": moment}))
    assert {row.node for row in rows} == {"alpha", "new-1"}
    assert {row.timestamp for row in rows} == {moment}


def test_a_csv_keeps_the_names_and_times_as_they_stand_there(made, frame, tmp_path):
    rows = frame[frame["node"] == "alpha"].sort_values("timestamp").head(9)
    text = rows.assign(node="007", timestamp=[f"{time:.3f}" for time in rows["timestamp"]])
    text.rename(columns={"node": " node ", "timestamp": " timestamp"}).to_csv(
        tmp_path / "in.csv", index=False
    )
    output = tmp_path / "out.csv"
    predict_file(
        made.bundle(), tmp_path / "in.csv", output, SilentProgress(), model="combined", reasons=0, alarm=False
    )
    written = pd.read_csv(output, dtype=str)
    assert list(written["node"]) == ["007"] * 9
    assert list(written["timestamp"]) == list(text["timestamp"])


def test_only_as_many_rows_are_explained_as_were_asked_for_and_only_of_the_node_that_was_named(
    made, frame, tmp_path
):
    frame.to_csv(tmp_path / "in.csv", index=False)
    ask = {"rows": 1, "at": small_bundle.LIVE + 40 * small_bundle.INTERVAL_S, "node": None, "top": 1}
    rows, _ = explain_file(made.bundle(), tmp_path / "in.csv", SilentProgress(), **ask)
    assert len(rows) == 1
    named = ask | {"at": None, "node": "new-1", "rows": 3}
    rows, _ = explain_file(made.bundle(), tmp_path / "in.csv", SilentProgress(), **named)
    assert [row.node for row in rows] == ["new-1"] * 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="timestamp"), "no column 'timestamp'"),
        (lambda frame: frame.iloc[:0], "no row"),
        (lambda frame: frame[["timestamp", "node"]], "not one of the bundle's 8 features"),
        (
            lambda frame: frame.astype({NAMES[1]: object}).replace({NAMES[1]: {frame[NAMES[1]][4]: "x"}}),
            "row 6",
        ),
        (lambda frame: frame.assign(timestamp="noon"), "is no time"),
    ],
)
def test_rows_that_cannot_be_read_are_named(made, frame, change, said):
    with pytest.raises(SourceError) as caught:
        rows_of(change(frame), made.bundle(), "in.csv")
    assert said in caught.value.message
    assert caught.value.hint


def test_without_a_bundle_it_says_where_to_get_one(tmp_path):
    with pytest.raises(BundleError) as caught:
        open_bundle(None, tmp_path / "bundles")
    assert "anomaly-trainer train" in caught.value.hint


def test_a_bundle_is_verified_before_it_scores(made, tmp_path):
    path = write_bundle(tmp_path, made.manifest, made.files)
    assert open_bundle(path, tmp_path / "gone").version == path.name
    (path / "random_forest.safetensors").write_bytes(b"changed")
    with pytest.raises(BundleError):
        open_bundle(path, tmp_path)
