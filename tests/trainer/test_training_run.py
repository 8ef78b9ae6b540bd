"""A whole run on a small history: what it leaves behind, and how the second one is held against the first."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_info

import small_bundle
from node_anomaly_core.bundle import write_bundle
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.threshold import raised_on_noise
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.feedback import FALSE_ALARM, INCIDENT, Verdict, add_verdict
from node_anomaly_trainer.moment import moment
from node_anomaly_trainer.pipeline import build, labelled_history, train
from node_anomaly_trainer.progress import SilentProgress, ignore_report
from node_anomaly_trainer.report.write import page, write_report
from node_anomaly_trainer.sources import fetch

TICKS = 1_600
INTERVAL_S = 60.0
START = 1_790_000_040.0
EVIL = "<script>alert('$x$')</script>"
BOLD = (1_320, 1_335)  # in the judged part: something that happened, and was nothing


RAW = {
    "interval": INTERVAL_S,
    "models": {
        "enabled": ["isolation_forest", "random_forest", "autoregression"],
        "isolation_forest": {"n_estimators": 20, "max_samples": 128},
        "random_forest": {"n_estimators": 20},
    },
    "training": {"faults_per_node_day": 40},
    "budget": {"false_alarms_per_node_week": 20},
    "gate": {"min_recall": 0.05, "tick_cpu": "1s", "beat_baselines": False},
}


class Notes:
    """A progress that remembers its notes."""

    def __init__(self):
        self.lines = []
        self.blas_threads = {}

    def phase(self, name):
        self.blas_threads[name] = {
            one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"
        }
        return SilentProgress().phase(name)

    def note(self, line):
        self.lines.append(line)


def history(path):
    """Three nodes in a CSV, one with a name that no page may take for its own; ticks missing on another."""
    tables = []
    for seed, node in ((1, "db-1"), (2, EVIL), (3, "web-1")):
        values = small_bundle.rows(seed, TICKS)
        if node == "web-1":
            values[200:260] = np.nan
            values[slice(*BOLD), 2:6] *= 5.0
        table = pd.DataFrame(values, columns=[feature.name for feature in small_bundle.FEATURES])
        table.insert(0, "node", node)
        table.insert(0, "timestamp", START + INTERVAL_S * np.arange(TICKS))
        tables.append(table)
    pd.concat(tables).to_csv(path, index=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs into one directory: without feedback, then with a verdict on the bold ticks of web-1."""
    folder = tmp_path_factory.mktemp("run")
    history(folder / "history.csv")
    raw = RAW | {
        "source": {"type": "file", "file": {"path": str(folder / "history.csv")}},
        "publish": {"directory": str(folder / "bundles")},
        "report": {"directory": str(folder / "runs"), "keep": 2},
    }
    first_notes, second_notes = Notes(), Notes()
    first = train(parse_config(raw), first_notes)
    verdicts = folder / "labels.yml"
    at = [START + INTERVAL_S * tick for tick in BOLD]
    add_verdict(verdicts, Verdict(at[0] - 120, at[1], "web-1", FALSE_ALARM, "load test"))
    add_verdict(verdicts, Verdict(START + 300 * 60, START + 310 * 60, "db-1", INCIDENT))
    second = train(parse_config(raw | {"labels": {"feedback": str(verdicts)}}), second_notes, deploy=False)
    return first, first_notes, second, second_notes


def test_what_cannot_be_calibrated_is_said_before_anything_is_fitted(tmp_path):
    """One node of 1,500 ticks holds back 187 to calibrate on."""
    table = pd.DataFrame(small_bundle.rows(1, 1_500), columns=[one.name for one in small_bundle.FEATURES])
    table.insert(0, "timestamp", START + INTERVAL_S * np.arange(1_500))
    table.to_csv(tmp_path / "history.csv", index=False)
    raw = RAW | {
        "source": {"type": "file", "file": {"path": str(tmp_path / "history.csv")}},
        "publish": {"directory": str(tmp_path / "bundles")},
    }
    notes = Notes()
    with pytest.raises(TrainingError, match="187 normal ticks, 200 are needed") as caught:
        train(parse_config(raw), notes)
    assert "training.fit_fraction" in caught.value.hint
    assert "labels and exclusions" in notes.blas_threads
    assert not any(phase.startswith(("fit", "replay", "baselines")) for phase in notes.blas_threads)


def test_the_first_run_has_nothing_to_be_compared_with_and_says_so(runs):
    first, notes, *_ = runs
    assert first.outcome == "accepted", first.reasons
    assert any("there is no bundle in production" in line for line in notes.lines)
    assert "production" not in first.evaluation.fault_recall


def test_the_second_run_is_compared_with_the_first_at_the_same_false_alarms(runs):
    *_, second, _ = runs
    recall = second.evaluation.fault_recall
    assert 0.0 <= recall["production"] <= 1.0
    assert second.evaluation.duels["production"].faults == second.evaluation.faults
    # the same members on nearly the same history: neither can be far ahead
    assert abs(recall["production"] - recall["combined"]) < 0.35


def test_a_fleet_is_replayed_by_one_thread(runs):
    """The products of a tick are small: threads that share them wait for each other, by spinning."""
    _, notes, *_ = runs
    assert {name: notes.blas_threads[name] for name in ("replay history", "calibrate and judge")} == {
        "replay history": {1},
        "calibrate and judge": {1},
    }
    usual = {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
    assert notes.blas_threads["history"] == usual, "and nobody else has to put up with it"


def test_a_labelled_false_alarm_is_tested_and_named(runs):
    first, _, second, _ = runs
    assert first.evaluation.regression is None
    found = second.evaluation.regression
    assert (found.tested, found.untested) == (1, 0)
    if found.alarmed:
        assert second.outcome == "rejected"
        assert any("you said there was nothing: false-alarm on web-1" in line for line in second.reasons)
    assert second.events == {"incidents": 1}


def test_the_same_history_and_seed_give_the_same_bundle_to_the_byte(runs, monkeypatch, tmp_path):
    """But for the moment of training, which SOURCE_DATE_EPOCH sets."""
    first, *_ = runs
    source = first.path.parent.parent / "history.csv"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    config = parse_config(RAW | {"source": {"type": "file", "file": {"path": str(source)}}})
    made = []
    for _ in range(2):
        past = fetch(config, ignore_report, lambda _line: None)
        past = labelled_history(past, config, SilentProgress()).history
        candidate = build(past, config, SilentProgress()).candidate
        made.append(write_bundle(tmp_path / str(len(made)), candidate.manifest, candidate.files).name)
    assert made[0] == made[1]


def test_without_deploy_nothing_is_published(runs):
    first, _, second, _ = runs
    assert first.path.exists()
    assert "witnesses" not in json.loads((first.path / "manifest.json").read_text()), "not at twenty a week"
    assert second.path is None
    assert second.version == ""


def test_the_report_is_one_page_that_needs_nothing_and_believes_nobody(runs):
    *_, second, _ = runs
    page = second.artifacts.html.read_text()
    assert "<script" not in page
    assert "alert(" in page, "the node's name is there, as text"
    assert not re.search(r"(src|href)\s*=\s*[\"'](https?:|//)", page)
    assert page.count("<svg") >= 5
    assert "Against production" in page
    assert "1 / 1</b>" in page or "0 / 1</b>" in page


def known(value):
    """What JSON has for a figure that is not known, as the record has it."""
    if isinstance(value, dict):
        return {key: known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [known(item) for item in value]
    return np.nan if value is None else value


def test_the_report_has_each_alarm_on_held_back_data_with_what_was_odd(runs):
    *_, second, _ = runs
    record = known(json.loads(second.artifacts.json.read_text()))
    assert [one["node"] for one in record["evaluation"]["by_node"]] == [EVIL, "db-1", "web-1"]
    assert record["evaluation"]["held_back"] == []
    assert "Alarms on held-back" not in second.artifacts.html.read_text()
    alarm = {"node": EVIL, "at": START, "seconds": 2100.0, "peak": 1.25, "features": ["a_ratio", "b_ratio"]}
    record["evaluation"] |= {"held_back": [alarm], "incidents": None, "regression": None}
    parts = {name: SimpleNamespace(**record[name]) for name in ("data", "distributions")}
    shown = page(SimpleNamespace(**record | parts))
    assert "Alarms on held-back normal data" in shown
    row = next(line for line in shown.splitlines() if "a_ratio, b_ratio" in line)
    assert f"<td>{moment(START)}</td>" in row
    assert "1.25</td>" in row
    assert EVIL not in row, "names are escaped"


def test_the_same_is_there_as_json_and_as_a_card(runs):
    first, _, second, _ = runs
    record = json.loads(second.artifacts.json.read_text())
    assert record["outcome"] == second.outcome
    assert record["data"]["nodes"] == [EVIL, "db-1", "web-1"]
    assert (record["data"]["gaps"][0]["node"], record["data"]["gaps"][0]["hours"]) == ("web-1", 1.0)
    assert record["evaluation"]["fault_recall"] == pytest.approx(second.evaluation.fault_recall)
    assert record["evaluation"]["budget"] == 20
    assert record["evaluation"]["false_alarms_on_noise"] == pytest.approx(raised_on_noise(20.0))
    assert sum(record["distributions"]["normal"]) > 100
    assert any(line.startswith("in production: ") for line in record["changes"])
    card = first.artifacts.card.read_text()
    assert "\n\n## Training data\n\n- Source: " in card
    assert "\n\n\n" not in card
    assert card.startswith(f"# Model card: {first.version}\n")
    assert "| random_forest |" in card
    assert "raises at this budget where nothing happens |" in card
    assert "Passed every rule." in card


def test_reports_appear_whole_and_the_oldest_retire(runs, tmp_path):
    from node_anomaly_trainer.report.record import RunRecord

    *_, second, _ = runs
    assert len(list(second.artifacts.directory.parent.glob("[0-9]*"))) == 2
    broken = RunRecord(**dict.fromkeys(RunRecord.__slots__))
    with pytest.raises(TypeError):  # no page can be made of it
        write_report(tmp_path, broken, 2)
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_is_an_error_with_a_hint(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError) as caught:
        write_report(tmp_path / "file" / "runs", None, 2)
    assert "report.directory" in caught.value.hint
