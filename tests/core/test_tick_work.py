"""How much a tick does, counted and not timed: the same number on a busy machine as on an idle one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import numpy as np

from node_anomaly_core.bundle import starter_bundle, verify_bundle
from node_anomaly_core.scoring import NodeScorer

INTERVAL_S = 15.0
MOST_CALLS = 510
"""Of a tick of the starter bundle: an eighth more than it makes. Each costs one to two microseconds."""


def calls(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, `work` calls."""
    count = 0

    def look(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_a_tick_of_the_starter_does_no_more_than_it_did_and_no_more_with_age() -> None:
    scorer = NodeScorer(verify_bundle(starter_bundle()), INTERVAL_S)
    rng = np.random.default_rng(0)
    usual = rng.lognormal(size=len(scorer.features))
    counts = {}
    for tick in range(190):
        row = usual * np.exp(0.1 * rng.normal(size=len(usual)))
        row[3] = np.nan
        counts[tick] = calls(lambda at=tick, row=row: scorer.step(1.8e9 + INTERVAL_S * at, row))  # type: ignore[misc]
    young, old = counts[45], max(counts[tick] for tick in range(181, 190))
    assert old <= 1.1 * young
    assert young <= MOST_CALLS
    score = scorer.step(1.8e9 + INTERVAL_S * 190, usual)
    assert calls(lambda: score.contributions) > 100, "reasons are no part of a tick"
    assert calls(lambda: score.contributions) < 10, "and are worked out once"
    assert counts[159] > 10 * young, "the count sees work: the node is learnt anew at this tick"
