"""Admission, going back and trying beside, as the loop sees them."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from agent_fakes import START, FakeLog, FakeScorer, make_candidate, make_rig, make_score
from node_anomaly_agent.distribution import Distribution
from node_anomaly_agent.ledger import Ledger
from node_anomaly_agent.scorer import AgentScorer
from node_anomaly_agent.shadow import COSTS_JUDGED, RESIDENT_LIMIT, Shadow
from node_anomaly_core.errors import BundleError

A, B = "a" * 16, "b" * 16
VALUES = np.array([0.5, 2048.0, np.nan])


class Node:
    """A distribution with a ledger on disk and versions to load."""

    def __init__(self, home, versions=(A,), **options) -> None:
        self.ledger = Ledger(home)
        self.log = FakeLog()
        self.woken = 0
        self.versions = {version: make_candidate(version) for version in versions}
        self.distribution = Distribution(
            self.ledger, self.load, self.log, lambda: START, self.wake, **options
        )

    def load(self, version):
        found = self.versions.get(version)
        if isinstance(found, Exception):
            raise found
        return found

    def wake(self) -> None:
        self.woken += 1

    def storm(self) -> None:
        """Alarms until the promise is broken, and the search for an earlier bundle is over."""
        for tick in range(400):
            score = make_score(START + tick * 15.0, 2.0 if tick % 10 > 5 else 0.1)
            self.distribution.after_tick(START + tick * 15.0, VALUES, score, None)
        end = time.monotonic() + 5.0
        while not self.woken and self.distribution._worker is not None and time.monotonic() < end:
            time.sleep(0.01)


def use(node: Node, version: str, trained_at: float) -> None:
    info = replace(make_candidate(version).info, trained_at=trained_at)
    node.distribution.accepted(info)


def test_a_bundle_that_breaks_its_promise_gives_way_to_the_one_before(tmp_path):
    node = Node(tmp_path)
    use(node, A, 10.0)
    use(node, B, 20.0)
    node.storm()
    back = node.distribution.take()
    assert back.info.version == A
    assert node.ledger.read().left == (B,)
    assert node.distribution.status().rollbacks == {"done": 1, "no_previous": 0, "failed": 0}
    assert "bundle breaks its promise" in node.log.events("error")
    with pytest.raises(BundleError, match="raised more alarms"):
        node.distribution.admit(SimpleNamespace(version=B, manifest=SimpleNamespace(trained_at=20.0)))
    node.distribution.admit(SimpleNamespace(version=A, manifest=SimpleNamespace(trained_at=10.0)))
    assert node.distribution.take() is None


def test_without_an_earlier_one_the_bundle_stays_and_it_is_counted(tmp_path):
    node = Node(tmp_path, versions=())
    use(node, B, 20.0)
    node.storm()
    assert node.distribution.take() is None
    assert node.distribution.status().rollbacks["no_previous"] == 1
    assert node.ledger.read().left == ()


def test_an_earlier_one_that_is_refused_is_passed_over_and_counted(tmp_path):
    node = Node(tmp_path)
    node.versions[A] = BundleError("digest", "damaged")
    use(node, A, 10.0)
    use(node, B, 20.0)
    node.storm()
    assert node.distribution.take() is None
    assert node.distribution.status().rollbacks["failed"] == 1


@pytest.mark.parametrize("options", [{"auto_rollback": False}, {}])
def test_nobody_goes_back_when_told_not_to_or_from_the_starter(tmp_path, options):
    node = Node(tmp_path, **options)
    use(node, A, 10.0)
    if options:
        use(node, B, 20.0)
    else:
        node.distribution.accepted(replace(make_candidate(B).info, origin="starter"))
    node.storm()
    assert node.distribution.take() is None
    assert sum(node.distribution.status().rollbacks.values()) == 0


def test_the_loop_goes_back_without_losing_a_tick(tmp_path):
    """The whole way: a bundle that alarms, the one before in use again, every tick evaluated."""
    node = Node(tmp_path)
    rig = make_rig(make_candidate(A), distribution=node.distribution)
    node.distribution._now = rig.clock.time
    rig.daemon.start()
    rig.run_for(60.0)
    noisy = FakeScorer(score=3.0)
    noisy_info = replace(make_candidate(B).info, trained_at=START)
    rig.reloader.results.append(replace(make_candidate(B, noisy), info=noisy_info))
    rig.run_for(4 * 3600.0)
    end = time.monotonic() + 5.0
    while rig.daemon.snapshot.bundle.version == B and time.monotonic() < end:
        rig.run_for(60.0)
    assert rig.daemon.snapshot.bundle.version == A
    assert node.ledger.read().left == (B,)
    assert rig.daemon.snapshot.distribution.rollbacks["done"] == 1
    counters = rig.daemon.snapshot.counters
    assert sum(counters.skipped.values()) == sum(counters.failures.values()) == 0
    assert counters.evaluations == len(rig.sampler.times)


class Trial:
    """A shadow beside a fake scorer, whose costs are told by a fake clock."""

    def __init__(self, cost_s: float = 0.001, resident: float = 60 << 20) -> None:
        self.arrivals: list[object] = []
        self.stopped = False
        self.cost_s, self.cpu = cost_s, 0.0
        self.log = FakeLog()
        self.active = AgentScorer(make_candidate(A, FakeScorer(0.4)))
        self.shadow = Shadow(self, 15.0, lambda: resident, self.log, self.clock)

    def poll(self):
        return self.arrivals.pop(0) if self.arrivals else None

    def stop(self) -> None:
        self.stopped = True

    def clock(self) -> float:
        self.cpu += self.cost_s
        return self.cpu

    def run(self, scores: list[float]) -> None:
        for tick, score in enumerate(scores):
            at = START + tick * 15.0
            self.shadow.tick(at, VALUES, make_score(at, score), self.active)


def test_a_candidate_is_scored_beside_and_agreement_is_counted():
    trial = Trial()
    candidate = FakeScorer(1.5)
    candidate.ticks = 10
    trial.active._active.scorer.ticks = 10
    trial.arrivals.append(make_candidate(B, candidate))
    trial.run([0.4])
    assert candidate.replayed_from is trial.active._active.scorer
    trial.run([0.4, 0.4, 2.0])
    status = trial.shadow.status
    assert status.version == B
    assert status.score == 1.5
    assert status.agreement == {"both": 1, "active_only": 0, "shadow_only": 2, "neither": 0}
    assert status.cpu_s == pytest.approx(0.003)


def test_a_candidate_over_the_cpu_budget_is_put_away_with_the_reason():
    trial = Trial(cost_s=0.016)  # 0.1 % of a core at 15 s is 0.015
    trial.arrivals.append(make_candidate(B))
    trial.run([0.4] * (COSTS_JUDGED + 11))
    status = trial.shadow.status
    assert np.isnan(status.score)
    assert status.skipped["cpu"] == 11
    assert "16.0 ms a tick of 15.0 ms" in status.message


def test_a_candidate_over_the_memory_budget_is_put_away_at_once():
    trial = Trial(resident=RESIDENT_LIMIT + 1)
    trial.arrivals.append(make_candidate(B))
    trial.run([0.4] * 5)
    assert trial.shadow.status.skipped["memory"] == 5
    assert sum(trial.shadow.status.agreement.values()) == 0


def test_a_candidate_that_fails_or_is_refused_disturbs_nothing():
    trial = Trial()
    broken = FakeScorer()
    trial.arrivals.append(make_candidate(B, broken))
    trial.run([0.4])
    broken.error = RuntimeError("no")
    trial.run([0.4] * 3)
    assert trial.shadow.status.skipped["failed"] == 3
    trial.arrivals.append(BundleError("digest", "damaged"))
    trial.run([0.4] * 2)
    assert trial.shadow.status.skipped["refused"] == 2
    assert trial.shadow.status.message == "damaged"


def test_of_several_earlier_ones_the_latest_comes_back(tmp_path):
    node = Node(tmp_path, versions=(A, B))
    for trained_at, version in enumerate((A, B, "c" * 16)):
        use(node, version, float(trained_at))
    node.storm()
    assert node.distribution.take().info.version == B


def test_one_that_was_left_before_is_not_gone_back_to(tmp_path):
    node = Node(tmp_path, versions=(A, B))
    for trained_at, version in enumerate((A, B, "c" * 16)):
        use(node, version, float(trained_at))
    node.ledger.leave(B, A)
    node.storm()
    assert node.distribution.take().info.version == A


def test_a_bundle_is_judged_once_also_where_it_is_loaded_again(tmp_path):
    node = Node(tmp_path, versions=())
    use(node, B, 20.0)
    for _ in range(2):
        node.woken = 0
        node.storm()
        node.distribution.take()
        use(node, B, 20.0)  # SIGHUP
    assert node.distribution.status().rollbacks["no_previous"] == 1


def test_what_a_threshold_raises_on_noise_at_the_budget_breaks_no_promise(tmp_path):
    node = Node(tmp_path)
    use(node, A, 10.0)
    use(node, B, 20.0)
    for alarm in range(6):
        for tick, value in enumerate((1.5, 1.5, 1.5, 0.1)):
            at = START + 47 * 3600.0 + alarm * 60.0 + tick * 15.0
            node.distribution.after_tick(at, VALUES, make_score(at, value), None)
    assert node.log.events("error") == []


def test_what_a_candidate_cost_is_not_held_against_the_next():
    trial = Trial(cost_s=0.016)
    trial.arrivals.append(make_candidate(A))
    trial.run([0.4] * (COSTS_JUDGED + 1))
    trial.cost_s = 0.001
    trial.arrivals.append(make_candidate(B))
    trial.run([0.4] * 5)
    assert trial.shadow.status.skipped["cpu"] == 0


def test_only_the_bundle_that_broke_its_promise_is_left(tmp_path):
    """Another one was put to use between the verdict and its consequence."""
    node = Node(tmp_path)
    use(node, A, 10.0)
    use(node, B, 20.0)
    node.storm()
    use(node, "c" * 16, 30.0)
    assert node.distribution.take() is None
    assert "c" * 16 not in node.ledger.read().left


def test_what_looks_for_candidates_stops_with_the_distribution(tmp_path):
    trial = Trial()
    node = Node(tmp_path, shadow=trial.shadow)
    assert not trial.stopped
    node.distribution.stop()
    assert trial.stopped
