"""Histories from CSV and Parquet files, good and bad."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import CATALOGUE, FEATURES_BY_NAME
from node_anomaly_trainer.config import FileConfig, parse_config
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources import fetch
from node_anomaly_trainer.sources.file import read_file


@pytest.fixture
def read(tmp_path):
    """Write text (or a frame as Parquet) to a file and read it; returns the history and the notes."""

    def reader(content, interval_s=15.0, name="data.csv"):
        path = tmp_path / name
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path)
        else:
            path.write_text(content)
        notes = []
        history = read_file(FileConfig(path=str(path)), CATALOGUE, interval_s, ignore_report, notes.append)
        return history, notes

    return reader


def test_iso_times_unix_times_down_to_nanoseconds_and_parquet_give_the_same_history(read):
    stamps = 1_700_000_100 + 15 * np.arange(4)
    rows = [f"n1,{value}" for value in (0.1, 0.2, 0.3, 0.4)]
    head = "timestamp,node,cpu_busy_ratio\n"
    texts = [
        [str(stamp) for stamp in stamps],
        *([str(stamp * parts) for stamp in stamps] for parts in (10**3, 10**6, 10**9)),
        [pd.Timestamp(stamp, unit="s").isoformat() for stamp in stamps],
        [pd.Timestamp(stamp, unit="s", tz="UTC").tz_convert("Europe/Paris").isoformat() for stamp in stamps],
    ]
    histories = [
        read(head + "".join(f"{time},{row}\n" for time, row in zip(times, rows, strict=True)))[0]
        for times in texts
    ]
    frame = pd.DataFrame(
        {"timestamp": pd.to_datetime(stamps, unit="s"), "node": "n1", "cpu_busy_ratio": [0.1, 0.2, 0.3, 0.4]}
    )
    histories.append(read(frame, name="data.parquet")[0])
    for history in histories:
        np.testing.assert_array_equal(history.timestamps, stamps)
        np.testing.assert_array_equal(history.values[:, 0, 0], [0.1, 0.2, 0.3, 0.4])
        assert history.nodes == ("n1",)


def test_what_a_node_takes_for_no_measurement_is_missing_and_counted(tmp_path):
    path = tmp_path / "data.csv"
    rows = enumerate(("0.1", "1.7e308", "-1e200", "0.4"))
    path.write_text(
        "timestamp,node,cpu_busy_ratio\n" + "".join(f"{15 * at},n1,{value}\n" for at, value in rows)
    )
    config, notes = parse_config({"source": {"type": "file", "file": {"path": str(path)}}}), []
    history = fetch(config, ignore_report, notes.append)
    np.testing.assert_array_equal(history.values[:, 0, 0], [0.1, np.nan, np.nan, 0.4])
    assert "history: values that are infinite or beyond 1e+38 count as missing: 2" in notes, notes


def test_spaces_around_the_names_of_parquet_columns_are_no_part_of_them(read):
    frame = pd.DataFrame({"timestamp ": [0, 15], " node": "a", " cpu_busy_ratio": [0.1, 0.2]})
    history, notes = read(frame, name="data.parquet")
    assert history.nodes == ("a",)
    assert history.features == (FEATURES_BY_NAME["cpu_busy_ratio"],)
    assert notes == []


def test_gaps_and_empty_cells_stay_missing_and_order_does_not_matter(read):
    history, notes = read(
        "timestamp,node,cpu_busy_ratio,load1_per_cpu_ratio\n"
        "1700000160,b,0.5,1\n1700000100,a,0.1,\n1700000145,a,0.4,inf\n1700000115,b,NaN,2\n1700000130,b,0.3,2\n"
    )
    expected = [[0.1, np.nan], [np.nan, np.nan], [np.nan, 0.3], [0.4, np.nan], [np.nan, 0.5]]
    np.testing.assert_array_equal(history.values[:, :, 0], expected)
    assert np.isnan(history.values[:, 0, 1]).all()
    assert notes == []


def test_known_columns_are_catalogue_features_and_others_keep_their_name(read):
    history, notes = read("timestamp,cpu_busy_ratio,queue_depth\n0,0.1,5\n15,0.2,6\n")
    known, unknown = history.features
    assert known is FEATURES_BY_NAME["cpu_busy_ratio"]
    assert (unknown.name, unknown.expression) == ("queue_depth", None)
    assert "queue_depth" in notes[0]
    assert history.nodes == ("node",)


def test_of_rows_in_one_tick_the_latest_counts_and_the_others_are_reported(read):
    history, notes = read("timestamp,cpu_busy_ratio\n0,0.1\n16,0.2\n29,0.3\n16,0.9\n30,0.4\n")
    np.testing.assert_array_equal(history.values[:, 0, 0], [0.1, 0.9, 0.4])
    assert "2 of 5 rows" in notes[0]


def test_labels_are_kept_and_absent_ones_are_unknown(read):
    history, _ = read("timestamp,cpu_busy_ratio,label\n0,1,1\n15,1,0\n30,1,\n60,1,-1\n")
    np.testing.assert_array_equal(history.labels[:, 0], [1, 0, -1, -1, -1])
    assert (read("timestamp,cpu_busy_ratio\n0,1\n15,1\n")[0].labels == -1).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param("timestamp,cpu_busy_ratio\n", "a header but no row", id="no rows"),
        pytest.param("time,cpu_busy_ratio\n0,1\n", "no column 'timestamp'", id="no timestamp"),
        pytest.param("timestamp,node\n0,a\n", "no feature column", id="no feature"),
        pytest.param("timestamp,a,a\n0,1,2\n", "column 'a' appears twice", id="doubled column"),
        pytest.param(
            "timestamp,a\n0,1\nsoon,2\n", "row 3, column timestamp: 'soon' is no time", id="bad time"
        ),
        pytest.param("timestamp,a\n0,1\n,2\n", "row 3, column timestamp", id="no time"),
        pytest.param("timestamp,a\n0,1\n15,many\n", "row 3, column a: 'many' is no number", id="text"),
        pytest.param("timestamp,a,label\n0,1,0\n15,1,7\n", "row 3, column label: 7 is no label", id="label"),
        pytest.param("timestamp,a\n0,1\n15,2,3\n", "cannot be read", id="ragged"),
        pytest.param("timestamp,a\n0,1\n60,2\n120,3\n", "60 s apart, the interval is 15 s", id="coarse"),
    ],
)
def test_a_bad_file_says_where_and_what_to_do(read, content, said):
    with pytest.raises(SourceError) as caught:
        read(content)
    assert said in caught.value.message
    assert "data.csv" in caught.value.message
    assert caught.value.hint
    assert ("set interval: 60s" in caught.value.hint) == ("60 s apart" in said), "backtest has no flag for it"


def test_one_timestamp_far_off_is_named_instead_of_filling_memory(read):
    rows = "".join(f"{1_700_000_000 + 15 * at},1\n" for at in range(100))
    with pytest.raises(SourceError, match="the row furthest off is 102 at 0"):
        read("timestamp,a\n" + rows + "0,1\n")


def test_a_file_that_is_not_there_or_not_parquet_is_an_error_with_a_hint(read, tmp_path):
    with pytest.raises(SourceError, match="No such file"):
        read_file(FileConfig(path=str(tmp_path / "no.csv")), CATALOGUE, 15.0, ignore_report, print)
    with pytest.raises(SourceError, match="cannot be read"):
        read("timestamp,a\n", name="wrong.parquet")


def test_a_million_values_are_read_in_seconds(read):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.random((25_000, 40)), columns=[feature.name for feature in CATALOGUE[:40]])
    frame.insert(0, "timestamp", 1_700_000_100 + 15 * np.arange(25_000))
    history, _ = read(frame, name="big.parquet")
    np.testing.assert_array_equal(history.values[:, 0], frame.iloc[:, 1:].to_numpy())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("timestamp,cpu_busy_ratio\n1700000100,0.5,\n1700000115,0.6,\n", "more fields than the header"),
        (",timestamp,cpu_busy_ratio\n0,1700000100,0.5\n", "column 1 has no name"),
        ("timestamp,cpu_busy_ratio, cpu_busy_ratio\n1700000100,0.5,0.5\n", "appears twice"),
    ],
)
def test_columns_that_would_be_mistaken_for_others_are_refused(read, rows, said):
    with pytest.raises(SourceError, match=said):
        read(rows)


def test_names_of_columns_are_what_people_mean(read):
    history, _ = read("timestamp, node, cpu_busy_ratio\n1700000100, web-1,0.5\n")
    assert history.nodes == ("web-1",)
    assert history.feature_names == ("cpu_busy_ratio",)


@pytest.mark.parametrize("names", [("001", "002"), ("12e4", "3e5"), ("true", "false"), ("NA", "null")])
def test_a_node_has_the_name_that_stands_there(read, names):
    rows = "".join(f"1700000100,{name},0.5\n" for name in names)
    history, notes = read("timestamp,node,cpu_busy_ratio\n" + rows)
    assert history.nodes == tuple(sorted(names))
    assert not notes


def test_categories_with_an_empty_one_are_names_of_nodes_too(read):
    frame = pd.DataFrame(
        {
            "timestamp": [1_700_000_100, 1_700_000_100],
            "node": pd.Categorical(["web-1", None]),
            "cpu_busy_ratio": [0.5, 0.6],
        }
    )
    assert read(frame, name="data.parquet")[0].nodes == ("node", "web-1")


@pytest.mark.parametrize("phase", [0.0, 0.2, 7.0, 14.9])
def test_rows_a_little_early_or_late_are_not_lost_to_their_neighbours(read, phase):
    """As a collector writes them that wakes at whole quarters of a minute."""
    rng = np.random.default_rng(3)
    stamps = 1_700_000_100 + phase + 15 * np.arange(400) + rng.uniform(-3, 3, 400)
    history, notes = read(
        "timestamp,cpu_busy_ratio\n" + "".join(f"{stamp:.3f},0.5\n" for stamp in stamps.tolist())
    )
    assert not notes
    assert np.isfinite(history.values).all()
    assert history.ticks == 400
    assert np.abs(history.timestamps - stamps).max() < 15


def test_rows_that_lie_anywhere_begin_their_ticks_at_whole_intervals(read):
    stamps = np.sort(np.random.default_rng(4).uniform(1_700_000_100, 1_700_006_100, 2_000))
    history, _ = read(
        "timestamp,cpu_busy_ratio\n" + "".join(f"{stamp:.3f},0.5\n" for stamp in stamps.tolist())
    )
    assert history.timestamps[0] == 1_700_000_100
