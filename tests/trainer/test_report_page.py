"""The page and the card of a run whose figures are known, and which runs' directories stay."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import small_bundle
from node_anomaly_trainer.candidate import Parts
from node_anomaly_trainer.evaluate import Duel, Evaluation, RegressionSet
from node_anomaly_trainer.forecast_figures import ForecastFigures
from node_anomaly_trainer.incident_figures import IncidentFigures
from node_anomaly_trainer.report.record import Distributions, RunRecord, summarise_data
from node_anomaly_trainer.report.run import figures_of
from node_anomaly_trainer.report.write import card, page, write_report

NAN = float("nan")

EVALUATION = Evaluation(
    false_alarms_per_node_week=0.5,
    node_weeks=2.0,
    budget=1.0,
    false_alarms_on_noise=3.16,
    comparison_budget=4.0,
    fault_recall={"combined": 0.8, "pca": 0.3},
    false_alarms={"combined": 4.0, "pca": NAN},
    recall_by_kind={"cpu_spike": 0.91, "disk_full": NAN},
    faults=40,
    parity_forest_max=1e-12,
    parity_lstm_max=2e-3,
    tick_cpu_seconds=2.5e-3,
    ticks=400,
    weights={"lstm": 1.25},
    bundle_bytes=3 << 19,
    duels={"pca": Duel(won=21, lost=1, faults=40)},
    accuracy=0.9749,
    incidents=IncidentFigures(incidents=8, alarms=5, accuracy=0.993, precision=0.6, recall=0.25),
    regression=RegressionSet(tested=5, untested=1, alarmed=("one", "another")),
)

FORECAST = (
    ForecastFigures(300.0, {"lstm": 0.2, "persistence": 0.3, "usual": 0.4}, -0.12, NAN, {}, NAN),
    ForecastFigures(
        3600.0,
        {"lstm": 0.21, "persistence": 0.31, "seasonal_naive": 0.51, "usual": 0.41},
        0.13,
        0.34,
        {"load1_per_cpu_ratio": 0.35},
        0.6,
    ),
)


@pytest.fixture(scope="module")
def record() -> RunRecord:
    history = small_bundle.history(480)
    parts = Parts(history, history, [], slice(0, 240), slice(240, 360), slice(360, 480))
    return RunRecord(
        outcome="accepted",
        version="0123456789abcdef",
        finished="2026-01-02 03:04Z",
        seconds=12.4,
        reasons=(),
        allowances=(),
        notes=("a note",),
        excluded={"deploys": 1.5},
        events={"incidents": 3},
        data=summarise_data(history, parts),
        evaluation=figures_of(EVALUATION),
        distributions=Distributions((0.0, 1.0), (5,), (2,), (0.5, 1.0), (0.1, 0.01), (0.2, NAN)),
        losses=(0.9, 0.5),
        changes=("in production: x",),
        coverage=((1.0, 0.5),),
        forecast=FORECAST,
        taught_by="injected faults",
    )


@pytest.fixture(scope="module")
def html(record: RunRecord) -> str:
    """Drawn once: its pictures take a second."""
    return page(record)


def plain(html: str) -> str:
    """What a reader sees of it, one space between two words."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def row(html: str, first: str) -> list[str]:
    """The cells of the row of a table whose first is this."""
    found = next(line for line in html.splitlines() if re.match(rf"<tr[^>]*><td>{first}</td>", line))
    return [plain(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", found)]


def test_the_page_leads_with_its_figures_in_units_for_people(html: str) -> None:
    said = plain(html)
    assert "2026-01-02 03:04Z &middot; 12 s &middot; 3 nodes, 8 features, a tick of 15 s" in said
    assert "80% of 40 injected faults found" in said
    assert "0.5 false alarms per node-week; budget 1; a node's own threshold makes up to 3.16 of it" in said
    assert "2.5 ms CPU of one tick on a node" in said
    assert "1.5 MiB bundle" in said
    assert "25% of 8 real incidents found, precision 60%" in said
    assert "3 / 5 labelled false alarms stay silent" in said
    assert "by 1e-12 (forests) and 0.002 (LSTM)" in said
    assert "Accuracy over held-back ticks with injected faults: 97.5%" in said


def test_a_budget_that_noise_alone_keeps_is_not_explained(record: RunRecord) -> None:
    wide = replace(record, evaluation=figures_of(replace(EVALUATION, budget=7.0)))
    assert "a node's own threshold makes" not in page(wide)


def test_each_detector_has_a_row_and_who_found_what_alone_stands_in_its_order(html: str) -> None:
    assert "only it found / only the combined" in html
    assert row(html, "pca") == ["pca", "30%", "unknown", "", "1 / 21"]
    assert row(html, "combined") == ["combined", "80%", "4", "", ""]


def test_the_picture_of_kinds_is_one_of_kinds(html: str) -> None:
    said = plain(html)
    assert "Faults found by the combined score, by kind" in said
    for word in ("cpu spike", "91%", "disk full"):
        assert word in said


def test_a_forecast_has_a_row_for_each_horizon_and_says_where_nothing_is_shown(html: str) -> None:
    assert row(html, "5 min") == [
        "5 min", "0.2", "0.3", "no day to look back", "0.4", "-12%", "", "", "nothing: no skill",
    ]  # fmt: skip
    assert row(html, "1 h") == [
        "1 h", "0.21", "0.31", "0.51", "0.41", "13%", "34%", "0.6", "1: load1_per_cpu_ratio 35%",
    ]  # fmt: skip


def test_a_refused_run_says_why_and_an_accepted_one_that_it_passed(record: RunRecord, html: str) -> None:
    refused = replace(record, outcome="rejected", version="", reasons=("recall <5 %",))
    assert "Passed every rule of the gate." in html
    other = page(refused)
    assert "Refused by the gate. The bundle in use stays. recall &lt;5 %" in plain(other)
    assert "Passed every rule" not in other + card(refused)
    assert card(refused).startswith("# Model card: not published\n")
    assert card(refused).endswith("\n- refused: recall <5 %\n")


def test_the_card_has_the_same_figures(record: RunRecord) -> None:
    said = card(record)
    for line in (
        "| lstm | 1.25 |",
        "| false alarms per node-week (budget 1) | 0.5 in 2 node-weeks |",
        "| recall on 40 injected faults | 80% |",
        "| the same of pca at equal realised false alarms | 30% |",
        "| 8 real incidents: recall, precision, accuracy | 25%, 60%, 99.3% |",
        "| labelled false alarms that stay silent | 3 of 5 |",
        "| CPU of one tick | 2.5 ms |",
        "| size | 1.5 MiB |",
        "Recall by kind of fault: cpu spike 91%, disk full unknown.",
        "| 5 min | 0.2 | 0.3 | unknown | 0.4 | none |",
        "| 1 h | 0.21 | 0.31 | 0.51 | 0.41 | 1, 34% |",
        "- Excluded (node-hours): deploys 1.5",
    ):
        assert line in said.splitlines()


def test_as_many_reports_stay_as_are_to_be_kept_and_nothing_else_goes(
    record: RunRecord, html: str, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "20200101T000000Z.txt").touch()
    for name in ("20200101T000000Z", "20200101T000000Z-2", "20210101T000000Z"):
        (tmp_path / name).mkdir()
    made = write_report(tmp_path, record, 2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "20200101T000000Z.txt",
        "20210101T000000Z",
        made.directory.name,
        "notes",
    ]
    assert made.html.read_text() == html
    assert made.card.read_text() == card(record)
