"""Reasons are worked out once, at the first question, and from nothing that a later tick changes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from node_anomaly_core.bundle import starter_bundle, verify_bundle
from node_anomaly_core.reasons import Reasons, Shares
from node_anomaly_core.scoring import NodeScorer

INTERVAL_S = 15.0


def test_reasons_asked_for_late_and_from_another_thread_are_those_of_their_own_tick() -> None:
    bundle = verify_bundle(starter_bundle())
    asked, left = NodeScorer(bundle, INTERVAL_S), NodeScorer(bundle, INTERVAL_S)
    rng = np.random.default_rng(0)
    usual = rng.lognormal(size=len(asked.features))
    at_once, scores = [], []
    for tick in range(60):
        row = usual * np.exp(0.3 * rng.normal(size=len(usual)))
        row[3] = np.nan
        at_once.append(asked.step(1.8e9 + INTERVAL_S * tick, row).why.shares())
        scores.append(left.step(1.8e9 + INTERVAL_S * tick, row))
    with ThreadPoolExecutor(4) as threads:
        late = list(threads.map(lambda score: score.why.shares(), scores * 2))
    for then, now in zip(at_once * 2, late, strict=True):
        np.testing.assert_array_equal(then.combined, now.combined)
        assert then.members.keys() == now.members.keys()
        for name, shares in then.members.items():
            np.testing.assert_array_equal(shares, now.members[name])
    assert set(late[59].members) > set(left.models.forests)


def test_who_asks_first_works_it_out_and_who_asks_later_does_not() -> None:
    made: list[int] = []

    def make() -> Shares:
        made.append(threading.get_ident())
        return Shares(np.array([1.0]), {})

    reasons = Reasons(make)
    assert not made
    assert reasons.shares() is reasons.shares()
    assert len(made) == 1


def test_reasons_that_could_not_be_worked_out_can_be_asked_for_again() -> None:
    answers = iter([None, Shares(np.array([1.0]), {})])

    def make() -> Shares:
        answer = next(answers)
        if answer is None:
            raise MemoryError
        return answer

    reasons = Reasons(make)
    with pytest.raises(MemoryError):
        reasons.shares()
    assert reasons.shares().combined.tolist() == [1.0]


def test_what_reasons_were_made_of_is_let_go_once_they_are_known() -> None:
    reasons = Reasons(lambda: Shares(np.array([1.0]), {}))
    reasons.shares()
    assert reasons._make is None
