"""The agent looks ahead every five minutes, shows what it may, and never fails by it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import small_bundle
from agent_fakes import FEATURES, FakeLog, make_candidate, make_rig, make_score, make_snapshot
from node_anomaly_agent import api
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import TEXT
from node_anomaly_agent.forecast import Outlook
from node_anomaly_agent.forecast_status import ForecastStatus
from node_anomaly_agent.once import Exit, Outcome, render_json, render_prom, render_table
from node_anomaly_agent.page import render_page
from node_anomaly_agent.scorer import AgentScorer, Candidate, load_candidate
from node_anomaly_agent.site import Site
from node_anomaly_core.bundle import write_bundle
from node_anomaly_core.calibration import Tail
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.forecast import EVERY_S, Forecast, Leaving, horizon_label
from node_anomaly_core.forecast_entry import ForecastEntry, HorizonEntry

FORECAST = Forecast(
    made_at=1_700_000_000.0 - 60.0,
    scores={900.0: 1.25, 3600.0: math.nan},
    leaving=(Leaving(FEATURES[0], 720.0, 0.9, 0.8),),
)


class FakeForecaster:
    """Gives one forecast; counts how often it was asked."""

    name = "lstm"

    def __init__(self) -> None:
        self.asked = 0
        self.error: Exception | None = None

    def look(self, state, interval_s):
        self.asked += 1
        if self.error is not None:
            raise self.error
        assert interval_s == 15.0
        return FORECAST


@pytest.fixture
def forecaster() -> FakeForecaster:
    return FakeForecaster()


def candidate(forecaster: FakeForecaster | None, version: str = "0123456789abcdef") -> Candidate:
    made = make_candidate(version)
    made.scorer.interval_s = 15.0
    return Candidate(made.scorer, made.columns, made.info, forecaster)


def test_it_looks_every_five_minutes_and_at_once_with_another_bundle(forecaster):
    outlook, scorer = Outlook(FakeLog()), AgentScorer(candidate(forecaster))
    for tick in range(41):
        assert outlook.tick(15.0 * tick, make_score(), scorer).forecast is FORECAST
    assert forecaster.asked == 41 * 15 // EVERY_S + 1
    outlook.tick(615.0, make_score(), AgentScorer(candidate(forecaster, "f" * 16)))
    assert forecaster.asked == 4


def test_nothing_is_expected_of_a_node_that_is_not_warm_or_a_tick_that_failed(forecaster):
    outlook, scorer = Outlook(FakeLog()), AgentScorer(candidate(forecaster))
    assert outlook.tick(0.0, make_score(warm=False), scorer).forecast is None
    assert outlook.tick(15.0, None, scorer).forecast is None
    assert outlook.tick(30.0, make_score(), None).forecast is None
    assert forecaster.asked == 0


def test_a_forecast_that_raises_is_counted_said_once_and_shown_no_longer(forecaster):
    log = FakeLog()
    outlook, scorer = Outlook(log), AgentScorer(candidate(forecaster))
    assert outlook.tick(0.0, make_score(), scorer).forecast is FORECAST
    forecaster.error = RuntimeError("the runtime is broken")
    for round_ in (1, 2):
        status = outlook.tick(EVERY_S * round_, make_score(), scorer)
        assert (status.forecast, status.failures) == (None, round_)
    assert log.events() == ["no forecast could be made"]
    forecaster.error = None
    assert outlook.tick(EVERY_S * 3, make_score(), scorer) == ForecastStatus(FORECAST, 2)


def test_without_the_lstm_there_is_no_forecast(forecaster):
    scorer = AgentScorer(candidate(forecaster))
    scorer.afford(everything=False)
    assert scorer.look_ahead() is None
    scorer.afford(everything=True)
    assert scorer.look_ahead() is FORECAST
    assert AgentScorer(candidate(None)).look_ahead() is None


def test_a_bundle_on_disk_foresees_through_the_agents_own_columns(tmp_path):
    """The whole way: verified, aligned with the catalogue, lived with, looked ahead, reloaded."""
    small = small_bundle.build()
    names = [feature.name for feature in small_bundle.FEATURES]
    tail = Tail((0.0, 1.0, 2.0), (0.0, -2.0, -4.0), -2.0)
    shown = HorizonEntry(300.0, {"lstm": 0.1, "persistence": 0.2}, {names[0]: 0.5}, 0.5, 0.0, tail)
    manifest = replace(small.manifest, forecast=ForecastEntry((shown,), {names[0]: (-2.0, 2.0)}))
    path = write_bundle(tmp_path, manifest, small.files)
    scorer = AgentScorer(load_candidate(path, CATALOGUE, 15.0, ""))
    columns = [[feature.name for feature in CATALOGUE].index(name) for name in names]
    for tick, values in enumerate(small_bundle.rows(4, 40)):
        row = np.full(len(CATALOGUE), np.nan)
        row[columns] = values
        scorer.step(1_700_000_000.0 + 15.0 * tick, row)
    forecast = scorer.look_ahead()
    assert list(forecast.scores) == [300.0]
    assert 0.0 < forecast.scores[300.0] < 2.0
    assert forecast.made_at == 1_700_000_000.0 + 39 * 15.0
    scorer.swap(load_candidate(path, CATALOGUE, 15.0, ""))
    assert scorer.look_ahead() is not None, "a new bundle has lived through the old one's past"
    plain = load_candidate(write_bundle(tmp_path, small.manifest, small.files), CATALOGUE, 15.0, "")
    scorer.swap(plain)
    assert scorer.look_ahead() is None


def test_the_daemon_publishes_it_with_the_tick(forecaster):
    rig = make_rig(candidate(forecaster))
    rig.daemon.start()
    rig.run_for(60.0)
    assert rig.daemon.snapshot.forecast.forecast is FORECAST


def test_a_scrape_shows_what_is_known():
    text = expose(make_snapshot(forecast=ForecastStatus(FORECAST, 2)), "1", TEXT)
    assert 'anomaly_forecast_score{horizon="15m"} 1.25\n' in text
    assert 'horizon="1h"' not in text, "what is not known is absent"
    assert 'anomaly_forecast_leaves_normal_seconds{feature="cpu_busy_ratio"} 720.0\n' in text
    assert "anomaly_forecast_timestamp_seconds 1699999940.0\n" in text
    assert "anomaly_agent_forecast_failures_total 2.0\n" in text
    nothing = expose(make_snapshot(), "1", TEXT)
    assert "anomaly_forecast" not in nothing
    assert "anomaly_agent_forecast_failures_total 0.0\n" in nothing


def test_page_api_and_once_say_it_too():
    snapshot = make_snapshot(forecast=ForecastStatus(FORECAST))
    page = render_page(snapshot, Site("1", "db-1", "/metrics"), 1_700_000_000.0)
    assert "in 12 min: 90 %, normal up to 80 %" in page
    assert "<h2>Forecast" in page
    assert "Forecast</h2>" not in render_page(make_snapshot(), Site("1", "db-1", "/metrics"), 1.0)
    document = api.score_document(snapshot)["forecast"]
    assert document["scores"]["15m"] == 1.25
    assert document["leaving"][0]["feature"] == "cpu_busy_ratio"
    assert api.score_document(make_snapshot())["forecast"] is None
    outcome = Outcome(snapshot, exit=Exit.NORMAL)
    table = render_table(outcome, "1")
    assert "in 15m  1.25" in table
    assert "cpu_busy_ratio leaves its normal range in 12 min: 90 %, normal up to 80 %" in table
    said = json.loads(render_json(outcome, "1"))["forecast"]
    assert said["scores"] == {"15m": 1.25, "1h": None}
    assert 'anomaly_forecast_score{horizon="15m"} 1.25' in render_prom(outcome, "1")
    assert "Forecast" not in render_table(Outcome(make_snapshot(), exit=Exit.NORMAL), "1")


@pytest.mark.parametrize(
    ("seconds", "label"), [(300.0, "5m"), (3600.0, "1h"), (5400.0, "90m"), (90.0, "90s"), (7200.0, "2h")]
)
def test_a_horizon_is_written_as_a_duration(seconds, label):
    assert horizon_label(seconds) == label
