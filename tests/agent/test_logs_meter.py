"""Every source is read each tick within its share of the budget, and its counts survive with its position."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from agent_fakes import FakeLog
from node_anomaly_agent.collectors import CollectorMissing
from node_anomaly_agent.families import TEXT, render
from node_anomaly_agent.logs.meter import LogMeter
from node_anomaly_agent.logs.source import Batch, Budget, SourceStatus
from node_anomaly_agent.logs.status import log_families
from node_anomaly_agent.sampler import Sampler
from node_anomaly_core.features import CATALOGUE

SECRET = b"ERROR hunter2 is the password of user alice"


@dataclass
class FakeSource:
    """Hands out what is put into `pending`, and remembers how much it has handed out."""

    name: str = "files"
    pending: list[Batch] = field(default_factory=list)
    given: int = 0
    found: SourceStatus = field(default_factory=lambda: SourceStatus(success=True, streams=1))
    budgets: list[Budget] = field(default_factory=list)

    def read(self, budget: Budget) -> Iterator[Batch]:
        self.budgets.append(budget)
        while self.pending:
            batch = self.pending.pop(0)
            self.given += batch.lines
            yield batch

    def status(self) -> SourceStatus:
        return self.found

    def state(self) -> dict[str, object]:
        return {"given": self.given}

    def restore(self, state: Mapping[str, object]) -> bool:
        self.given = int(str(state["given"]))
        return True

    def close(self) -> None:
        pass


def batch(*lines: bytes, count: int | None = None, **how) -> Batch:
    data = b"".join(line + b"\n" for line in lines)
    return Batch("", len(lines) if count is None else count, len(data), data, **how)


def meter(*sources: FakeSource, log: FakeLog | None = None, groups: tuple[str, ...] = ()) -> LogMeter:
    return LogMeter(sources, groups, 1.0, 1 << 20, log, wall=lambda: 1000.0)


def scrape(one: LogMeter) -> str:
    return render(log_families(one.status()), TEXT)


def test_the_sources_share_time_and_bytes():
    sources = (FakeSource("files"), FakeSource("journald"))
    started = time.monotonic()
    meter(*sources).read()
    first, second = (source.budgets[0] for source in sources)
    assert first.size == second.size == 1 << 19
    assert first.deadline - started == pytest.approx(0.5, abs=0.1)
    assert second.deadline - started == pytest.approx(1.0, abs=0.1)


def test_a_scrape_has_counts_and_not_a_word_of_what_was_logged():
    source = FakeSource(pending=[batch(SECRET, b"fine", b"fine")])
    one = meter(source)
    reading = one.read()
    assert reading["anomaly_agent_log_errors_total", "files"] == 1
    text = scrape(one)
    assert 'anomaly_agent_log_lines_total{source="files"} 3.0' in text
    assert 'anomaly_agent_log_lines_dropped_total{reason="unread"} 0.0' in text
    assert "hunter2" not in text + json.dumps(one.state())


def test_lines_that_were_only_counted_are_said_by_reason():
    pending = [
        batch(b"x", count=11),
        Batch("", 100, 5000, b"", estimated=True),
        Batch("", 7, 70, b"", late=True),
    ]
    one = meter(FakeSource(pending=pending))
    reading = one.read()
    assert reading["anomaly_agent_log_lines_total", "files"] == 118
    assert one.status().dropped == {"unread": 10, "estimated": 100, "late": 7}


def test_without_time_for_patterns_they_are_sampled_and_a_metric_says_so():
    one = LogMeter((FakeSource(pending=[batch(b"a b", b"c d")]),), (), -1.0, 1 << 20)
    assert one.read()["anomaly_agent_log_lines_total", "files"] == 2
    assert "anomaly_agent_log_lines_unmined_total 2.0" in scrape(one)


def test_a_source_that_is_refused_warns_once_and_its_counters_are_absent():
    log, source = FakeLog(), FakeSource(pending=[batch(b"x")])
    other = FakeSource("journald")
    one = meter(source, other, log=log)
    one.read()
    source.found = SourceStatus(success=False, error="/var/log/syslog: join the group adm")
    for _ in range(3):
        reading = one.read()
    assert ("anomaly_agent_log_lines_total", "files") not in reading
    assert ("anomaly_agent_log_lines_total", "journald") in reading
    assert 'source_success{source="files"} 0.0' in scrape(one)
    assert [line for line in log.lines if "cannot be read" in str(line)].__len__() == 1
    source.found = SourceStatus(success=True)
    assert ("anomaly_agent_log_lines_total", "files") in one.read()


def test_a_host_without_logs_lacks_them():
    source = FakeSource(found=SourceStatus(success=False, error="no file", missing=True))
    with pytest.raises(CollectorMissing, match="no file"):
        meter(source).read()


def test_examples_are_kept_only_where_they_are_asked_for():
    quiet, asked = (
        meter(FakeSource(pending=[batch(SECRET)])),
        meter(FakeSource(pending=[batch(SECRET, b"x y")])),
    )
    asked.keep_examples(1)
    quiet.read()
    asked.read()
    assert (quiet.examples, asked.examples) == ([], [SECRET])


def test_positions_and_counts_are_one_state():
    """After a kill the agent goes on from both as they were saved: nothing twice, nothing lost."""
    source = FakeSource(pending=[batch(b"a", b"b")])
    sampler = Sampler([meter(source)], CATALOGUE, 60.0)
    sampler.sample(1000.0)
    saved = json.loads(json.dumps(sampler.state()))
    source.pending = [batch(b"c")]
    sampler.sample(1015.0)  # and is killed before it saves again
    again = FakeSource(pending=[batch(b"c"), batch(b"d")])
    one = meter(again)
    resumed = Sampler([one], CATALOGUE, 60.0)
    assert resumed.restore(saved)
    assert again.given == 2
    resumed.sample(1030.0)
    assert one.status().counted["files"].lines == 4


def test_rates_over_a_restart_are_right():
    """The lines of the gap are in the first reading, and the window knows how long the gap was."""
    sampler = Sampler([meter(FakeSource(pending=[batch(b"x")]))], CATALOGUE, 60.0)
    sampler.sample(1000.0)
    again = FakeSource(pending=[Batch("", 300, 3000, b"", late=True)])
    resumed = Sampler([meter(again)], CATALOGUE, 60.0)
    assert resumed.restore(json.loads(json.dumps(sampler.state())))
    sample = resumed.sample(1060.0)
    at = [feature.name for feature in CATALOGUE].index("log_lines_per_second")
    assert sample.values[at] == pytest.approx(5.0)


@pytest.mark.parametrize(
    "state", [{}, {"counters": 1, "sources": {}}, {"counters": {}, "sources": {}}], ids=str
)
def test_a_foreign_state_changes_nothing(state):
    one = meter(FakeSource(pending=[batch(b"x")]))
    one.read()
    assert not one.restore(state)
    assert one.status().counted["files"].lines == 1


def test_what_no_source_has_is_missing_and_not_0():
    source = FakeSource(found=SourceStatus(success=False, error="no file", missing=True))
    sample = Sampler([meter(source)], CATALOGUE, 60.0).sample(1000.0)
    logs = [value for feature, value in zip(CATALOGUE, sample.values, strict=True) if feature.group == "logs"]
    assert all(math.isnan(value) for value in logs)
    assert sample.collectors["logs"].missing


def test_a_source_that_cannot_be_read_has_no_counts_in_a_scrape_either():
    source = FakeSource(pending=[batch(b"x")])
    one = meter(source, FakeSource("journald"))
    one.read()
    assert 'lines_total{source="files"} 1.0' in scrape(one)
    source.found = SourceStatus(success=False, error="/var/log/syslog: join the group adm")
    one.read()
    assert 'lines_total{source="files"}' not in scrape(one)


def test_what_was_dropped_is_counted_on_after_a_restart():
    one, other = meter(FakeSource(pending=[batch(b"x", count=11)])), meter(FakeSource())
    one.read()
    assert other.restore(json.loads(json.dumps(one.state())))
    assert other.status().dropped["unread"] == 10


def test_a_source_that_this_host_does_not_have_is_no_warning():
    log = FakeLog()
    absent = FakeSource("journald", found=SourceStatus(success=False, error="no journal", missing=True))
    meter(FakeSource(), absent, log=log).read()
    assert log.lines == []
