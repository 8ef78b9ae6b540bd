"""The loop: deadlines, failures, reloads, state."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agent_fakes import START, FakeClock, FakeLog, FakeScorer, Rig, make_candidate, make_rig
from node_anomaly_agent import state_keeper
from node_anomaly_agent.exposition import expose
from node_anomaly_agent.families import TEXT
from node_anomaly_agent.sampler import CollectorStatus
from node_anomaly_agent.state import AgentState, StateError, load_state
from node_anomaly_agent.state_keeper import StateKeeper
from node_anomaly_agent.state_lock import StateLock
from node_anomaly_core.errors import BundleError


@pytest.fixture
def rig() -> Rig:
    rig = make_rig(first=make_candidate())
    rig.daemon.start()
    return rig


def test_ticks_keep_to_their_deadlines_however_long_a_tick_takes(rig):
    rig.sampler.takes_s = 4.0
    rig.run_for(100)
    assert [time - START for time in rig.sampler.times] == [0, 15, 30, 45, 60, 75, 90]
    assert rig.daemon.snapshot.counters.skipped["overrun"] == 0


def test_a_tick_that_overruns_is_counted_and_never_made_up_for_in_a_burst(rig):
    rig.sampler.takes_s = 40.0
    rig.run_for(200)
    times = [time - START for time in rig.sampler.times]
    assert times[:3] == [0, 40, 80]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 40
    # Every deadline up to that of the tick at 160, which was 150, has either a tick or a count.
    assert len(times) + rig.daemon.snapshot.counters.skipped["overrun"] == 150 / 15 + 1
    assert "ticks skipped" in rig.log.events("warning")


def test_the_score_is_unknown_until_the_scorer_is_warm(rig):
    rig.daemon.tick()
    assert not rig.daemon.snapshot.warm
    assert math.isnan(rig.daemon.snapshot.score.score)
    assert (rig.daemon.snapshot.warmup_done, rig.daemon.snapshot.warmup_ticks) == (1, 3)
    rig.daemon.tick()
    rig.daemon.tick()
    assert rig.daemon.snapshot.warm
    assert rig.daemon.snapshot.score.score == 0.4


@pytest.mark.parametrize("phase", ["sample", "score"])
def test_an_exception_in_a_tick_is_counted_logged_once_and_the_loop_goes_on(phase):
    scorer = FakeScorer()
    rig = make_rig(first=make_candidate(scorer=scorer))
    rig.daemon.start()
    broken = rig.sampler if phase == "sample" else scorer
    rig.run_for(60)
    broken.error = RuntimeError("boom")
    rig.run_for(60)
    failed = rig.daemon.snapshot
    assert failed.counters.failures[phase] == 4
    assert failed.score is None, "an old score must not pass for the present one"
    assert rig.log.events("exception") == ["evaluation failed"]
    broken.error = None
    rig.run_for(30)
    assert rig.daemon.snapshot.score is not None
    assert "evaluation works again" in rig.log.events("info")


def test_without_any_bundle_ticks_are_skipped_and_said_so():
    rig = make_rig(first=BundleError("digest", "manifest.json does not match", "publish again"))
    rig.daemon.start()
    rig.run_for(30)
    snapshot = rig.daemon.snapshot
    assert snapshot.counters.skipped["no_bundle"] == 2
    assert snapshot.counters.reload_failures["digest"] == 1
    assert "does not match" in snapshot.not_ready()


def test_the_starter_is_used_when_the_bundle_on_offer_is_refused():
    rig = make_rig(first=BundleError("size", "too large"))
    rig.fallbacks[""] = make_candidate("5" * 16)
    rig.daemon.start()
    snapshot = rig.daemon.snapshot
    assert snapshot.bundle.version == "5" * 16
    assert not snapshot.reload.successful
    assert snapshot.reload.reason == "size"


def test_a_refused_starter_is_counted_too():
    rig = make_rig()
    rig.fallbacks[""] = BundleError("model", "broken")
    rig.daemon.start()
    assert rig.daemon.snapshot.bundle is None
    assert rig.daemon.snapshot.counters.reload_failures["model"] == 1


def test_after_a_restart_the_bundle_used_before_comes_ahead_of_the_starter(tmp_path):
    before = make_rig(first=make_candidate("a" * 16), state=tmp_path)
    before.daemon.start()
    before.run_for(30)
    before.daemon.stop()
    rig = make_rig(first=BundleError("digest", "damaged"), state=tmp_path)
    rig.fallbacks["a" * 16] = make_candidate("a" * 16)
    rig.fallbacks[""] = make_candidate("5" * 16)
    rig.daemon.start()
    assert rig.daemon.snapshot.bundle.version == "a" * 16
    assert "continuing from the saved state" in rig.log.events()


def test_a_new_bundle_takes_over_the_history_and_no_tick_is_lost(rig):
    rig.run_for(60)
    replacement = FakeScorer(score=0.9)
    rig.reloader.results = [None, make_candidate("b" * 16, replacement)]
    rig.run_for(60)
    snapshot = rig.daemon.snapshot
    assert snapshot.bundle.version == "b" * 16
    assert replacement.replayed_from is not None
    assert snapshot.warm
    assert snapshot.score.score == 0.9
    assert snapshot.counters.reloads == 1
    assert len(rig.sampler.times) == 8
    assert snapshot.counters.skipped["overrun"] == 0


def test_a_scrape_between_a_swap_to_other_features_and_the_next_tick_is_answered(rig):
    """The last score speaks of features that the new bundle does not have: it is not shown as theirs."""
    rig.run_for(45)
    candidate = make_candidate("b" * 16, FakeScorer(features=2))
    fewer = replace(candidate.info, features=candidate.info.features[:2])
    rig.daemon._bundles._accept(replace(candidate, info=fewer), reloaded=True)
    text = expose(rig.daemon.snapshot, "1", TEXT)
    assert f'version="{"b" * 16}"' in text
    assert "anomaly_feature_value" not in text


def test_with_little_time_before_the_deadline_the_swap_waits_for_the_tick(rig):
    rig.daemon.tick()
    rig.daemon._deadline = rig.clock.now + 1.0
    rig.reloader.results = [make_candidate("b" * 16)]
    rig.daemon._bundles.check(rig.daemon._deadline)
    assert rig.daemon.snapshot.bundle.version != "b" * 16
    rig.run_for(5)
    assert rig.daemon.snapshot.bundle.version == "b" * 16


def test_a_refused_bundle_leaves_the_last_good_one_scoring(rig):
    rig.run_for(60)
    rig.reloader.results = [BundleError("selftest", "other scores", "compare versions")]
    rig.run_for(30)
    snapshot = rig.daemon.snapshot
    assert snapshot.warm
    assert snapshot.bundle.version == "0123456789abcdef"
    assert snapshot.counters.reload_failures["selftest"] == 1
    assert not snapshot.reload.successful
    assert snapshot.reload.success_timestamp == START
    line = next(fields for _, event, fields in rig.log.lines if event == "bundle refused")
    assert line["reason"] == "selftest"
    assert line["hint"] == "compare versions"
    assert line["still_using"] == "0123456789abcdef"


def test_a_bundle_that_cannot_take_over_is_refused(rig):
    rig.run_for(30)
    broken = FakeScorer()
    broken.error = ValueError("shapes")
    rig.reloader.results = [make_candidate("b" * 16, broken)]
    rig.run_for(30)
    assert rig.daemon.snapshot.bundle.version == "0123456789abcdef"
    assert rig.daemon.snapshot.counters.reload_failures["selftest"] == 1


def test_reloading_the_same_bundle_keeps_its_scorer(rig):
    rig.run_for(30)
    scorer = rig.daemon._bundles.scorer._active.scorer
    rig.reloader.results = [make_candidate()]
    rig.run_for(30)
    assert rig.daemon._bundles.scorer._active.scorer is scorer
    assert rig.daemon.snapshot.counters.reloads == 1
    assert "bundle unchanged" in rig.log.events("info")


def test_the_first_bundle_to_arrive_is_put_to_use():
    rig = make_rig()
    rig.daemon.start()
    rig.reloader.results = [make_candidate()]
    rig.run_for(45)
    assert rig.daemon.snapshot.bundle is not None
    assert rig.daemon.snapshot.counters.evaluations >= 2


def test_state_is_saved_once_warm_every_two_minutes_and_at_the_stop(tmp_path):
    """Warm after three ticks of 15 s, so at 30; then two minutes later; then at the stop."""
    rig = make_rig(first=make_candidate(), state=tmp_path)
    rig.daemon.start()
    rig.run_for(15)
    assert load_state(tmp_path) is None
    rig.run_for(30)
    rig.daemon._parts.keeper._writer.join()
    assert load_state(tmp_path).saved_at == START + 30
    rig.run_for(120)
    rig.daemon._parts.keeper._writer.join()
    assert load_state(tmp_path).saved_at == START + 150
    rig.run_for(15)
    rig.daemon.stop()
    saved = load_state(tmp_path)
    assert saved.saved_at == START + 180
    assert saved.sampler["ticks"] == len(rig.sampler.times)


def test_a_reload_is_saved_at_once_for_once_to_read(tmp_path):
    rig = make_rig(first=make_candidate(), state=tmp_path)
    rig.daemon.start()
    rig.run_for(45)
    rig.daemon._parts.keeper._writer.join()
    rig.reloader.results = [make_candidate("fedcba9876543210")]
    rig.run_for(15)
    rig.daemon._parts.keeper._writer.join()
    assert load_state(tmp_path).bundle_version == "fedcba9876543210"


def test_a_restart_goes_on_where_the_last_run_ended(tmp_path):
    first = make_rig(first=make_candidate(), state=tmp_path)
    first.daemon.start()
    first.run_for(60)
    first.daemon.stop()
    second = make_rig(first=make_candidate(), state=tmp_path)
    second.daemon.start()
    second.daemon.tick()
    assert second.daemon.snapshot.warm
    assert second.sampler.restored == {"ticks": 4}


@pytest.mark.parametrize(
    ("version", "interval_s", "later_s", "why"),
    [
        ("b" * 16, 15.0, 60, "belongs to bundle"),
        ("0123456789abcdef", 5.0, 60, "recorded every 15 s"),
        ("0123456789abcdef", 15.0, 8 * 86400, "more than a week"),
    ],
)
def test_a_history_that_does_not_fit_is_left_and_said_so(tmp_path, version, interval_s, later_s, why):
    first = make_rig(first=make_candidate(), state=tmp_path)
    first.daemon.start()
    first.run_for(60)
    first.daemon.stop()
    second = make_rig(first=make_candidate(version), state=tmp_path, interval_s=interval_s)
    second.clock.advance(later_s)
    second.daemon.start()
    second.daemon.tick()
    assert not second.daemon.snapshot.warm
    line = next(f for _, event, f in second.log.lines if event.startswith("saved history is of no use"))
    assert why in line["reason"]


def test_a_damaged_state_file_is_counted_and_replaced(tmp_path):
    (tmp_path / "agent.state").write_bytes(b"node-anomaly state\ngarbage")
    rig = make_rig(first=make_candidate(), state=tmp_path)
    rig.daemon.start()
    assert rig.daemon.snapshot.counters.state_failures == {"load": 1, "save": 0}
    rig.run_for(30)
    rig.daemon.stop()
    assert load_state(tmp_path) is not None


def test_a_state_that_cannot_be_saved_is_counted_and_logged_once(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    rig = make_rig(first=make_candidate(), state=blocked)
    rig.daemon.start()
    for _ in range(3):
        rig.run_for(60)
        if rig.daemon._parts.keeper._writer:
            rig.daemon._parts.keeper._writer.join()
    rig.run_for(5)
    assert rig.daemon.snapshot.counters.state_failures["save"] >= 2
    assert rig.log.events().count("state is not saved") == 1
    blocked.unlink()
    rig.run_for(60)
    rig.daemon.stop()
    assert "state is saved again" in rig.log.events("info")


def test_a_second_agent_leaves_the_state_of_the_first_alone_and_says_so(tmp_path):
    first, second = (make_rig(first=make_candidate(), state=tmp_path) for _ in range(2))
    first.daemon.start()
    first.run_for(60)
    second.daemon.start()
    second.run_for(150)
    _written(second)
    assert second.daemon.snapshot.counters.state_failures["save"] >= 1
    assert second.log.events("warning").count("state is not saved") == 1
    _, _, fields = next(line for line in second.log.lines if line[1] == "state is not saved")
    assert "another agent" in fields["error"]
    assert "--state.directory" in fields["hint"]
    first.daemon.stop()
    second.run_for(150)
    _written(second)
    second.run_for(15)
    assert "state is saved again" in second.log.events("info")


def _written(rig) -> None:
    if rig.daemon._parts.keeper._writer:
        rig.daemon._parts.keeper._writer.join()


def test_nowhere_to_save_is_said_and_nothing_else(tmp_path):
    rig = make_rig(first=make_candidate())
    rig.daemon.start()
    rig.run_for(90)
    rig.daemon.stop()
    assert "state is not kept: no directory is writable" in rig.log.events("warning")
    assert rig.daemon.snapshot.counters.state_failures == {"load": 0, "save": 0}


def test_a_state_that_cannot_be_encoded_does_not_stop_the_loop(tmp_path):
    rig = make_rig(first=make_candidate(), state=tmp_path)
    rig.daemon.start()
    rig.sampler.state = lambda: {"x": object()}
    rig.run_for(90)
    assert rig.daemon.snapshot.counters.state_failures["save"] == 1
    assert rig.daemon.snapshot.counters.evaluations == 6


def test_a_collector_that_begins_or_ceases_to_fail_is_logged_once(rig):
    rig.sampler.collectors = {"cpu": CollectorStatus(False, 0.1, "OSError: no")}
    rig.run_for(60)
    assert rig.log.events().count("collector failed") == 1
    rig.sampler.collectors = {"cpu": CollectorStatus(True, 0.1, "")}
    rig.run_for(30)
    assert rig.log.events().count("collector works") == 1
    rig.sampler.collectors = {"cpu": CollectorStatus(False, 0.1, "none here", missing=True)}
    rig.run_for(30)
    assert rig.log.events().count("collector failed") == 1


def test_every_snapshot_is_a_new_object_so_that_a_reader_keeps_a_consistent_one(rig):
    rig.daemon.tick()
    seen = rig.daemon.snapshot
    before = seen.counters.evaluations
    rig.daemon.tick()
    assert seen.counters.evaluations == before
    assert rig.daemon.snapshot is not seen


def test_the_last_hours_of_the_score_survive_a_restart(tmp_path):
    before = make_rig(first=make_candidate("a" * 16), state=tmp_path)
    before.daemon.start()
    before.run_for(300)
    before.daemon.stop()
    rig = make_rig(first=make_candidate("a" * 16), state=tmp_path)
    rig.clock.now = before.clock.now + 120.0
    rig.daemon.start()
    rig.daemon.tick()
    peaks = rig.daemon.snapshot.history.peaks
    kept = before.daemon.snapshot.history.peaks
    assert (peaks == np.nanmax(kept)).sum() >= (kept == np.nanmax(kept)).sum() > 3


def test_a_second_agent_does_not_write_over_the_state_of_the_first(tmp_path):
    first, second = (make_rig(first=make_candidate(), state=tmp_path) for _ in range(2))
    first.daemon.start()
    first.run_for(60)
    _written(first)
    saved = (tmp_path / "agent.state").read_bytes()
    second.daemon.start()
    second.run_for(150)
    _written(second)
    assert (tmp_path / "agent.state").read_bytes() == saved


def test_a_disk_that_hangs_is_tried_again_soon_and_keeps_the_lock(tmp_path, monkeypatch):
    answers = threading.Event()
    monkeypatch.setattr(state_keeper, "save_state", lambda *_: answers.wait(20))
    clock = FakeClock()
    keeper = StateKeeper(tmp_path, clock, FakeLog())
    state = AgentState(START, 15.0, "a" * 16, {}, {})
    for _ in range(2):
        clock.advance(state_keeper.SAVE_EVERY_S)
        keeper.save_if_due(lambda: state)
    assert keeper.next_save - clock.monotonic() <= state_keeper.RETRY_S
    keeper.finish(lambda: state)
    with pytest.raises(StateError, match="another agent"):
        StateLock(tmp_path).take()
    answers.set()


def test_waiting_for_the_lock_of_another_agent_costs_no_descriptors(tmp_path):
    first, second = StateLock(tmp_path), StateLock(tmp_path)
    first.take()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(StateError):
            second.take()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_evaluation_that_fails_does_not_pass_for_a_recent_one():
    scorer = FakeScorer()
    rig = make_rig(first=make_candidate(scorer=scorer))
    rig.daemon.start()
    rig.run_for(60)
    last = rig.daemon.snapshot.timestamp
    scorer.error = RuntimeError("no")
    rig.run_for(60)
    assert rig.daemon.snapshot.timestamp == last


def test_a_stop_ends_the_recording_of_episodes_too():
    rig = make_rig(first=make_candidate())
    stopped: list[str] = []
    episodes = SimpleNamespace(stop=lambda: stopped.append("episodes"))
    rig.daemon._parts = replace(rig.daemon._parts, episodes=episodes)
    rig.daemon.stop()
    assert stopped == ["episodes"]
