"""Episodes: when they begin and end, what is recorded, and what survives."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_fakes import START, FakeLog, make_info, make_score, make_snapshot
from node_anomaly_agent import api
from node_anomaly_agent.config_episodes import EpisodesConfig
from node_anomaly_agent.episode import (
    MAX_EPISODE_BYTES,
    Episode,
    EpisodeError,
    Flight,
    ProcessUse,
    decode,
    encode,
)
from node_anomaly_agent.episode_commands import find_directory, list_episodes, show_episode
from node_anomaly_agent.episode_store import EpisodeStore, episode_files, prune, read_episode, write_episode
from node_anomaly_agent.episodes import Episodes
from node_anomaly_agent.logs.status import LogStatus
from node_anomaly_agent.quiet import parse_window

TICK_S = 15.0
USED = (ProcessUse(42, "postgres", 1.5, 1e9, math.nan),)


class Life:
    """A recorder and the ticks it has been given, in a directory of its own."""

    def __init__(self, directory: Path | None, **settings) -> None:
        self.log = FakeLog()
        self.now = START
        self.directory = directory
        self.looks = 0
        settings = {"flight_ticks": 4, "end_after_s": 60.0, **settings}
        quiet = settings.pop("quiet", lambda _now: False)
        self.store = EpisodeStore(directory, settings.pop("max_count", 9), 1 << 20, self.log)
        self.episodes = Episodes(
            self.store, TICK_S, settings["end_after_s"], settings["flight_ticks"], self.look, self.log, quiet
        )

    def look(self):
        self.looks += 1
        return USED

    def tick(self, *scores, templates: int = 0, outgrown: bool = False):
        for value in scores:
            observed = (0.5, 2048.0 + (value or 0.0), math.nan)
            score = None if value is None else make_score(self.now, value, observed, outgrown=outgrown)
            snapshot = make_snapshot(score=score, logs=LogStatus(new_templates=templates))
            status = self.episodes.tick(self.now, snapshot)
            self.now += TICK_S
        return status

    def stored(self) -> list[Episode]:
        self.store.finish()
        return [read_episode(path) for path in episode_files(self.directory)]


@pytest.fixture
def life(tmp_path) -> Life:
    return Life(tmp_path / "episodes")


def test_an_episode_begins_with_the_third_tick_in_a_row_and_at_the_first(life):
    assert not life.tick(0.5, 1.2, 1.0, 0.9, 1.1, 1.3).ongoing
    status = life.tick(1.2)
    assert (status.ongoing, status.detected) == (True, 1)
    assert life.looks == 1
    (episode,) = life.stored()
    assert episode.start == START + 4 * TICK_S
    assert (episode.peak, episode.peak_time) == (1.3, START + 5 * TICK_S)
    assert episode.ongoing
    assert episode.bundle_version == make_info().version
    assert episode.start_reasons[0].feature == "cpu_busy_ratio"
    assert episode.start_reasons[0].direction == "above"


@pytest.mark.parametrize("hole", [None, 0.99, math.nan])
def test_a_tick_without_a_high_score_starts_the_count_anew(life, hole):
    assert not life.tick(1.5, 1.5, hole, 1.5, 1.5).ongoing
    assert life.tick(1.5).ongoing


def test_ticks_with_a_gap_between_them_are_not_in_a_row(life):
    life.tick(2.0, 2.0)
    life.now += 10 * TICK_S
    assert not life.tick(2.0, 2.0).ongoing


def test_an_episode_ends_where_the_score_last_was_high_once_it_has_stayed_below_long_enough(life):
    life.tick(1.5, 1.5, 1.5, 2.5, 1.1, 0.5, 0.5, 1.2, 0.5, 0.5, 0.5)
    assert life.tick(0.4).ongoing is False
    (episode,) = life.stored()
    assert (episode.end, episode.ended) == (START + 7 * TICK_S, "recovered")
    assert (episode.peak, episode.peak_time) == (2.5, START + 3 * TICK_S)
    assert life.tick(1.5, 1.5, 1.5).detected == 2


def test_an_episode_that_the_threshold_rose_over_has_not_recovered_unless_what_it_was_for_went_away(life):
    life.tick(1.5, 1.5, 1.5)
    life.tick(0.9, 0.9, 0.9, 0.9, outgrown=True)
    life.tick(1.5, 1.5, 1.5)
    life.tick(0.9, 0.9, 0.9, outgrown=True)
    life.tick(0.4)
    assert [episode.ended for episode in life.stored()] == ["outgrown", "recovered"]


def test_an_episode_whose_score_vanishes_ends_and_says_that_nobody_knows(life):
    life.tick(1.5, 1.5, 1.5, None, None, None, None)
    (episode,) = life.stored()
    assert episode.ended == "no_score"


def test_the_flight_record_is_that_of_the_ticks_around_the_start(life):
    life.tick(*[0.1 * n for n in range(10)], 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1, 2.2, templates=7)
    (episode,) = life.stored()
    flight = episode.flight
    assert flight.features[1] == "disk_read_bytes_per_second"
    before = [time for time in flight.times if time < episode.start]
    after = [time for time in flight.times if time > episode.start]
    assert (len(before), len(after)) == (4, 4)
    assert flight.scores[flight.times.index(episode.start)] == 1.5
    assert flight.rows[-1][1] == pytest.approx(2049.9)
    assert math.isnan(flight.rows[0][2])


def test_whole_scores_are_kept_of_the_ticks_of_an_alarm_alone(life):
    """What reasons are worked out from is too much to keep of every tick that is recorded."""
    life.tick(*[0.5] * 12)
    kept = [moment.score is not None for moment in life.episodes._past]
    assert kept == [False] * (len(kept) - 3) + [True] * 3
    assert len(kept) == 4 + 3


def test_new_log_patterns_and_the_processes_at_the_start_are_recorded(life):
    life.tick(0.5, 0.5, templates=3)
    life.tick(1.5, 1.5, 1.5, templates=5)
    life.tick(1.5, 1.5, 1.5, templates=6)
    (episode,) = life.stored()
    assert episode.new_log_templates == 3
    assert episode.processes[0].name == "postgres"
    assert math.isnan(episode.processes[0].io_bytes_per_second)


def test_an_open_episode_goes_on_after_a_restart_and_is_not_counted_twice(tmp_path):
    first = Life(tmp_path)
    first.tick(1.5, 1.5, 3.5)
    first.episodes.stop()
    second = Life(tmp_path)
    second.now = first.now
    second.episodes.start(second.now)
    assert second.episodes.status.ongoing
    status = second.tick(1.2, 0.5, 0.5, 0.5, 0.5)
    assert (status.ongoing, status.detected) == (False, 0)
    (episode,) = second.stored()
    assert (episode.start, episode.peak, episode.end) == (START, 3.5, first.now)


def test_an_episode_that_was_open_long_ago_is_closed_at_its_last_high_score(tmp_path):
    first = Life(tmp_path)
    first.tick(1.5, 1.5, 1.5)
    first.episodes.stop()
    second = Life(tmp_path)
    second.episodes.start(START + 86400.0)
    assert not second.episodes.status.ongoing
    (episode,) = second.stored()
    assert (episode.end, episode.ended) == (START + 2 * TICK_S, "no_score")


def test_a_kill_during_an_episode_costs_at_most_a_minute_of_it(life):
    life.tick(*[1.5] * 11)
    (killed,) = life.stored()
    assert life.now - TICK_S - killed.last <= 60.0


def test_in_a_quiet_window_none_begins_and_one_that_is_open_goes_on(tmp_path):
    hush = {"now": True}
    life = Life(tmp_path, quiet=lambda _now: hush["now"])
    assert life.tick(*[2.0] * 5).quiet
    assert not life.episodes.status.ongoing
    hush["now"] = False
    assert not life.tick(2.0, 2.0).ongoing, "what was high in the window does not count"
    assert life.tick(2.0).ongoing
    hush["now"] = True
    assert life.tick(2.0).ongoing


def test_a_full_disk_is_counted_and_said_once_and_the_episode_goes_on(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    life = Life(blocked / "episodes")
    life.tick(1.5, 1.5, 1.5)
    life.store.finish()
    life.tick(*[1.5] * 5)
    life.store.finish()
    status = life.tick(1.5)
    assert status.ongoing
    assert status.failures["write"] == 2
    assert life.log.events("warning").count("episode is not written") == 1


def test_damaged_files_are_counted_and_the_others_are_used(tmp_path):
    life = Life(tmp_path)
    life.tick(1.5, 1.5, 1.5, 0.0, 0.0, 0.0, 0.0)
    (path,) = [life.stored()[0].id]
    for name, content in (("20200101T000000Z", b"{"), ("20200102T000000Z", b""), ("20200103T000000Z", b"[]")):
        write_episode(tmp_path, name, content)
    (tmp_path / "20200104T000000Z.json").write_bytes((tmp_path / f"{path}.json").read_bytes())
    later = Life(tmp_path)
    later.episodes.start(START + 3600)
    assert [one.id for one in later.episodes.status.recent] == [path]
    assert later.episodes.status.failures["load"] == 4
    _, complaints = list_episodes(tmp_path, as_json=False)
    assert len(complaints) == 4


@pytest.mark.parametrize(
    "change",
    [
        {"start": 1e18},
        {"last": -1.0},
        {"end": 1e12},
        {"peak_time": 1e300},
        {"flight": {"features": [], "times": [1e18], "scores": [1.0], "rows": [[]]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_file_whose_times_are_no_dates_is_named_and_the_others_are_listed(tmp_path, change):
    good = Episode("20260101T000000Z", 1.0, 2.0, 3.0, 2.0, (), (), "v", 1.0)
    absurd = json.loads(encode(replace(good, id="20260102T000000Z"))) | change
    write_episode(tmp_path, good.id, encode(good))
    write_episode(tmp_path, absurd["id"], json.dumps(absurd).encode())
    listed, (complaint,) = list_episodes(tmp_path, as_json=False)
    assert good.id in listed
    assert f"{absurd['id']}.json is of no use" in complaint
    assert list_episodes(tmp_path, as_json=True)[1] == [complaint]
    life = Life(tmp_path)
    life.episodes.start(START)
    assert [one.id for one in life.episodes.status.recent] == [good.id]


def test_a_file_that_is_not_utf_8_is_damaged_however_it_is_shown(tmp_path):
    episode = Episode("20260101T000000Z", 1.0, 2.0, 3.0, 2.0, (), (), "v", 1.0)
    write_episode(tmp_path, episode.id, encode(episode).decode().encode("utf-16"))
    for as_json in (True, False):
        with pytest.raises(EpisodeError, match="is of no use"):
            show_episode(tmp_path, "latest", as_json=as_json)


def test_names_that_no_terminal_can_show_are_shown_without_what_it_cannot(tmp_path):
    used = replace(USED[0], name="a\ud800b\x1b[2J\nc")
    episode = Episode("20260101T000000Z", 1.0, 2.0, 3.0, 2.0, (), (), "\udcff", 1.0, processes=(used,))
    write_episode(tmp_path, episode.id, encode(episode))
    shown = show_episode(tmp_path, "latest", as_json=False)
    assert "  a?b?[2J?c " in shown
    assert shown.encode()
    assert list_episodes(tmp_path, as_json=False)[0].encode()


def test_the_oldest_go_beyond_the_limits_and_never_the_latest(tmp_path):
    names = [f"2026010{day}T000000Z" for day in range(1, 6)]
    for name in names:
        write_episode(tmp_path, name, b"x" * 1000)
    (tmp_path / f".{names[0]}.half").write_bytes(b"x")
    prune(tmp_path, 3, 10_000)
    assert [path.stem for path in episode_files(tmp_path)] == names[2:]
    prune(tmp_path, 3, 10)
    assert [path.stem for path in episode_files(tmp_path)] == names[4:]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_error_in_the_recorder_disturbs_no_tick(life):
    life.store.work = lambda: 1 / 0
    life.tick(1.5, 1.5)
    assert life.log.events("exception") == ["episodes failed"]


numbers = st.floats(allow_nan=True, allow_infinity=False, width=32)


@given(st.lists(st.lists(numbers, min_size=2, max_size=2), max_size=4), numbers)
def test_a_file_says_what_was_written(rows, ratio):
    flight = Flight(
        ("a", "b"), tuple(map(float, range(len(rows)))), (1.0,) * len(rows), tuple(map(tuple, rows))
    )
    episode = Episode("20260101T000000Z", 1.0, 2.0, 3.0, 2.0, (), (), "v", ratio, flight=flight)
    back = decode(encode(episode))
    assert repr(replace(back, flight=Flight())) == repr(replace(episode, flight=Flight()))
    assert back.flight.rows == tuple(
        tuple(pytest.approx(value, rel=1e-5, nan_ok=True) for value in row) for row in rows
    )


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_only_an_episode_error_comes_of_them(content):
    with pytest.raises(EpisodeError):
        decode(content)


@given(st.data())
def test_a_truncated_or_changed_file_is_refused_or_read_and_never_crashes(data):
    whole = encode(Episode("20260101T000000Z", 1.0, 2.0, 3.0, 2.0, (), (), "v", 1.0, processes=USED))
    document = json.loads(whole)
    key = data.draw(st.sampled_from(sorted(document)))
    document[key] = data.draw(st.one_of(st.none(), st.integers(), st.text(max_size=3), st.lists(st.none())))
    try:
        encode(decode(json.dumps(document).encode()))
    except EpisodeError:
        return


def test_a_flight_record_of_very_many_features_is_shortened_around_the_start():
    rows = tuple((1.23456e-7 + at,) * 1000 for at in range(400))
    flight = Flight(("f",) * 1000, tuple(map(float, range(400))), (1.0,) * 400, rows)
    content = encode(Episode("20260101T000000Z", 200.0, 300.0, 3.0, 2.0, (), (), "v", 1.0, flight=flight))
    assert len(content) <= MAX_EPISODE_BYTES
    times = decode(content).flight.times
    assert min(times) < 200.0 < max(times)


def test_the_command_lists_and_shows_them(tmp_path):
    life = Life(tmp_path)
    life.tick(0.1, 0.2, 1.5, 1.5, 2.25, 0.0, 0.0, 0.0, 0.0)
    (episode,) = life.stored()
    listed, _ = list_episodes(tmp_path, as_json=False)
    assert episode.id in listed
    assert "2.25" in listed
    assert "cpu_busy_ratio↑" in listed
    shown = show_episode(tmp_path, "latest", as_json=False)
    assert "postgres" in shown
    assert "score below 1 again" in shown
    assert "*+0" in shown
    assert json.loads(show_episode(tmp_path, episode.id, as_json=True))["id"] == episode.id
    assert json.loads(list_episodes(tmp_path, as_json=True)[0])[0]["peak"] == 2.25
    for wrong in ("../../etc/passwd", "20200101T000000Z", ""):
        with pytest.raises(EpisodeError, match="no episode"):
            show_episode(tmp_path, wrong, as_json=False)


def test_a_directory_that_this_user_may_not_read_is_said_to_be_one(tmp_path):
    if os.geteuid() == 0:
        assert find_directory([tmp_path / "none", tmp_path]) == tmp_path / "none" / "episodes"
        return
    (tmp_path / "episodes").mkdir(mode=0)
    with pytest.raises(EpisodeError, match="cannot be read"):
        find_directory([tmp_path])


def test_a_directory_that_is_not_needed_and_cannot_be_looked_at_disturbs_nothing(tmp_path):
    (tmp_path / "episodes").mkdir()
    beyond = tmp_path / ("x" * 300)  # which is an error for root, too
    assert find_directory([tmp_path, beyond]) == tmp_path / "episodes"
    assert find_directory([beyond, tmp_path]) == tmp_path / "episodes"
    with pytest.raises(EpisodeError, match="cannot be read"):
        find_directory([tmp_path / "none", beyond])


def test_the_api_names_processes_and_nothing_else_of_them(life):
    life.tick(1.5, 1.5, 1.5, 1.5)
    snapshot = make_snapshot(episodes=life.tick(*[1.5] * 5))
    (recorded,) = api.episodes_document(snapshot)["recorded"]
    assert recorded["processes"] == ["postgres"]
    assert "flight" not in recorded


MONDAY = 1_767_571_200.0  # 2026-01-05 00:00 UTC


@pytest.mark.parametrize(
    ("window", "hours", "quiet"),
    [
        ("daily 02:00-04:00", 3, True),
        ("daily 02:00-04:00", 4, False),
        ("mon 22:00-06:00", 23, True),
        ("mon 22:00-06:00", 24 + 5, True),
        ("mon 22:00-06:00", 5, False),
        ("sat-mon 00:00-24:00", 12, True),
        ("tue,thu 00:00-24:00", 12, False),
        ("MON 03:00-04:00 Europe/Berlin", 2.5, True),
        ("mon 03:00-04:00 Europe/Berlin", 3.5, False),
    ],
)
def test_a_quiet_window_holds_at_its_time_of_the_week(window, hours, quiet):
    settings = EpisodesConfig(quiet=(parse_window(window),))
    assert settings.is_quiet(MONDAY + 3600 * hours) is quiet


@pytest.mark.parametrize(
    "wrong",
    ["", 7, "daily", "mon-fri 25:00-26:00", "xyz 01:00-02:00", "daily 01:00-02:00 Mars/Base", "daily 1-2"],
)
def test_a_window_that_is_none_is_refused_with_what_one_looks_like(wrong):
    with pytest.raises(ValueError, match=r"expected|unknown time zone"):
        parse_window(wrong)


def test_no_more_episodes_go_than_the_bytes_ask_for(tmp_path):
    names = [f"2026010{day}T000000Z" for day in range(1, 6)]
    for name in names:
        write_episode(tmp_path, name, b"x" * 1000)
    prune(tmp_path, 100, 3_500)
    assert [path.stem for path in episode_files(tmp_path)] == names[2:]


def test_names_of_processes_are_not_for_every_user(life):
    life.tick(1.5, 1.5, 1.5)
    life.store.finish()
    (path,) = episode_files(life.directory)
    assert path.stat().st_mode & 0o777 == 0o640


def test_ticks_before_and_after_a_clock_that_was_set_back_are_not_in_a_row(life):
    life.tick(2.0, 2.0)
    life.now -= 3600.0
    assert not life.tick(2.0, 2.0).ongoing


def test_the_processes_of_an_earlier_episode_are_not_those_of_this_one(life):
    life.tick(1.5, 1.5, 1.5, 1.5)
    life.episodes._found = ("20200101T000000Z", (replace(USED[0], name="innocent"),))
    life.tick(1.5)
    life.episodes.stop()
    assert [one.name for one in life.stored()[0].processes] == ["postgres"]


def test_an_episode_ends_in_time_where_the_clock_was_set_back_in_it(life):
    life.tick(1.5, 1.5, 1.5)
    life.now -= 3600.0
    assert not life.tick(*[0.5] * 6).ongoing


def test_a_stop_writes_what_an_open_episode_has_become(life):
    life.tick(1.5, 1.5, 1.5, 3.5)
    life.episodes.stop()
    assert life.stored()[0].peak == 3.5


def test_a_pause_before_the_score_vanished_is_no_recovery(life):
    life.tick(1.5, 1.5, 1.5, 0.5, 1.5, *[None] * 5)
    assert life.stored()[0].ended == "no_score"


def test_a_quiet_window_ends_with_its_last_minute_and_may_last_a_whole_day():
    hours = {
        "mon 22:00-06:00": (30, False),
        "mon 22:00-22:00": (45.9, True),
        "tue 22:00-22:00": (45.9, False),
    }
    for window, (after, quiet) in hours.items():
        assert parse_window(window).holds(MONDAY + 3600 * after) is quiet
