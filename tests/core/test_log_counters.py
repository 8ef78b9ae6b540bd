"""What is counted of logs, and what counts as unusual silence."""

from __future__ import annotations

import json

import pytest

from node_anomaly_core.features import CATALOGUE, FeatureEvaluator
from node_anomaly_core.log_counters import LogCounters

LOGS = tuple(feature for feature in CATALOGUE if feature.group == "logs")
LINES = b"".join([b"INFO fine\n"] * 8 + [b"ERROR bad\n", b"WARN hm\n"])


def counted(counters: LogCounters, lines: int = 10, data: bytes = LINES, group: str = "") -> None:
    counters.add("files", group, lines, len(data), data, None)


def test_lines_count_for_their_source_and_their_group():
    counters = LogCounters(("files", "journald"), ("db",))
    counted(counters, group="db")
    counted(counters)
    counters.tick(1.0)
    reading = counters.reading(1.0)
    assert reading["anomaly_agent_log_lines_total", "files"] == 20
    assert reading["anomaly_agent_log_errors_total", "files"] == 2
    assert reading["anomaly_agent_log_lines_total", "journald"] == 0
    assert reading["anomaly_agent_log_group_warnings_total", "db"] == 1
    assert reading["anomaly_agent_log_new_templates_total", ""] == 3


def test_of_lines_that_were_only_counted_the_others_severities_stand_for_all():
    counters = LogCounters(("files",))
    counted(counters, lines=1000)
    reading = counters.reading(0.0)
    assert reading["anomaly_agent_log_errors_total", "files"] == pytest.approx(100)
    assert counters.unmined == 990


def test_a_batch_that_is_judged_in_pieces_is_judged_line_by_line():
    """What the records said goes with their lines, and examples are as many as were asked for."""
    lines = [b"word " * (number // 8 + 1) + b"x" * 4_500 + b"\n" for number in range(40)]
    severities = bytes([6] * 30 + [3] * 10)
    counters, data = LogCounters(("files",)), b"".join(lines)
    new = counters.add("files", "", len(lines), len(data), data, severities, examples=1)
    assert counters.reading(0.0)["anomaly_agent_log_errors_total", "files"] == 10
    assert new == [lines[0].rstrip(b"\n")]


def test_lines_whose_patterns_nobody_looked_for_are_counted_as_such():
    counters = LogCounters(("files",))
    counters.add("files", "", 10, len(LINES), LINES, None, mine=False)
    assert counters.unmined == 10
    assert counters.reading(0.0)["anomaly_agent_log_errors_total", "files"] == 1
    assert counters.reading(0.0)["anomaly_agent_log_new_templates_total", ""] == 0


def test_of_batches_that_were_only_counted_the_tick_s_others_stand_for_all_but_for_late_ones():
    counters = LogCounters(("files",), ("db",))
    counters.add("files", "db", 900, 9000, b"", None)
    counted(counters, lines=100, group="db")
    counters.add("files", "db", 5000, 50_000, b"", None, late=True)
    for _ in range(2):  # a tick in which nothing came adds nothing
        counters.tick(1.0)
        reading = counters.reading(1.0)
        assert reading["anomaly_agent_log_lines_total", "files"] == 6000
        assert reading["anomaly_agent_log_errors_total", "files"] == pytest.approx(100)
        assert reading["anomaly_agent_log_group_warnings_total", "db"] == pytest.approx(100)
    counters.add("files", "db", 400, 4000, b"", None)  # nothing of this tick says how severe they are
    counters.tick(2.0)
    assert counters.reading(2.0)["anomaly_agent_log_errors_total", "files"] == pytest.approx(100)


def test_a_source_that_cannot_be_read_says_nothing_rather_than_0():
    counters = LogCounters(("files",))
    assert counters.reading(0.0, frozenset({"files"})) == {}


def test_the_features_are_the_rates_of_the_counters():
    counters, evaluator = LogCounters(("files",)), FeatureEvaluator(LOGS, 60.0)
    for tick in range(8):
        counted(counters)
        counters.tick(15.0 * tick)
        values = evaluator.update(15.0 * tick, counters.reading(15.0 * tick))
    found = dict(zip((feature.name for feature in LOGS), values.tolist(), strict=True))
    assert found["log_lines_per_second"] == pytest.approx(10 / 15)
    assert found["log_errors_per_second"] == pytest.approx(1 / 15)
    assert found["log_errors_ratio"] == pytest.approx(1 / 15)  # of one line a second, as there are fewer
    assert found["log_new_templates_per_second"] == 0
    assert found["log_templates_count"] == 3


class TestSilence:
    def run(self, gaps: list[float]) -> tuple[LogCounters, float]:
        counters, now = LogCounters(("files",)), 0.0
        for gap in gaps:
            counted(counters)
            counters.tick(now)
            now = self.wait(counters, now, gap)
        return counters, now

    def wait(self, counters: LogCounters, now: float, seconds: float) -> float:
        """Ticks without a line."""
        step = max(60.0, min(seconds, 900.0)) if seconds == 900.0 else 60.0
        while seconds > step:
            now, seconds = now + step, seconds - step
            counters.tick(now)
        return now + seconds

    def silence(self, counters: LogCounters, now: float) -> float | None:
        counters.tick(now)
        return counters.reading(now).get(("anomaly_agent_log_silence_seconds", "files"))

    def test_a_source_that_has_not_spoken_often_is_not_known_to_speak(self):
        counters, now = self.run([15.0] * 10)
        assert self.silence(counters, self.wait(counters, now, 3600.0)) is None

    def test_what_lasts_longer_than_the_longest_usual_gap_is_silence(self):
        counters, now = self.run([15.0] * 20 + [120.0] + [15.0] * 5)
        assert self.silence(counters, now + 60) == 0
        assert self.silence(counters, now + 405) == pytest.approx(300, abs=1)

    def test_a_long_gap_is_forgotten_by_half_a_day(self):
        counters, now = self.run([3600.0] + [60.0] * 1440 + [60.0])
        assert self.silence(counters, self.wait(counters, now, 3540.0)) == pytest.approx(1800, abs=5)

    @pytest.mark.parametrize("jump", [10_800.0, -10_800.0, 1.8e9], ids=["on", "back", "from 1970"])
    def test_time_in_which_nobody_looked_is_no_usual_gap_and_no_silence(self, jump):
        """A clock that was set, a host that was suspended, an agent that was stopped."""
        counters, now = self.run([15.0] * 30)
        now += jump
        assert self.silence(counters, now) == 0
        for _ in range(5):
            now += 15.0
            counted(counters)
            counters.tick(now)
        assert self.silence(counters, self.wait(counters, now, 600.0)) == pytest.approx(585, abs=1)

    def test_at_an_interval_of_a_quarter_of_an_hour_silence_is_still_heard(self):
        counters, now = self.run([900.0] * 30)
        for _ in range(20):
            counters.tick(now)
            now += 900.0
        assert self.silence(counters, now) == pytest.approx(20 * 900, abs=900)

    def test_an_agent_that_was_away_for_hours_goes_on_where_it_was(self):
        counters, now = self.run([15.0] * 30)
        now = self.wait(counters, now, 120.0)
        other = LogCounters(("files",))
        assert other.restore(json.loads(json.dumps(counters.state())))
        assert self.silence(other, now + 3 * 3600.0) == pytest.approx(105, abs=61)


def test_all_of_it_survives_a_restart():
    counters = LogCounters(("files",), ("db",))
    for tick in range(30):
        counted(counters, group="db")
        counters.tick(15.0 * tick)
    other = LogCounters(("files",), ("db",))
    assert other.restore(json.loads(json.dumps(counters.state())))
    assert other.reading(600.0) == counters.reading(600.0)


def test_a_source_that_is_no_longer_configured_does_not_come_back_with_the_state():
    counters = LogCounters(("files", "journald"), ("db", "web"))
    counted(counters, group="db")
    fewer = LogCounters(("files",), ("web",))
    assert fewer.restore(json.loads(json.dumps(counters.state())))
    assert (set(fewer.sources), set(fewer.groups)) == ({"files"}, {"web"})
    assert fewer.reading(0.0)["anomaly_agent_log_lines_total", "files"] == 10


def saved(**changes: object) -> dict[str, object]:
    return {"sources": {}, "groups": {}, "miner": {}, "unmined": 0, **changes}


@pytest.mark.parametrize("state", [{}, {"sources": 1}, saved(), saved(sources={"files": [1]})], ids=str)
def test_a_foreign_state_is_refused(state):
    assert not LogCounters(("files",)).restore(state)
