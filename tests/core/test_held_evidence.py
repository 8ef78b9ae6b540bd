"""Which witness keeps an alarm from being raised, and what a restart keeps of the evidence."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_anomaly_core.held_evidence import HeldEvidence
from node_anomaly_core.steady import PeakHold
from node_anomaly_core.witnesses import Witness, witnessed_one

LSTM, FOREST = Witness(("lstm",), 1.0), Witness(("forest", "other"), 0.5)
WITNESSES = (LSTM, FOREST)
NAN = float("nan")
LEVEL = 2.0


def tick(held: HeldEvidence, combined: float, lstm: float, forest: float, other: float = 0.0) -> None:
    evidence = {"lstm": lstm, "forest": forest, "other": other}
    held.step(combined, witnessed_one(combined, evidence, WITNESSES), evidence)


@pytest.mark.parametrize(
    ("brought", "missing"),
    [
        ((3.0, 3.0, 3.0), ()),
        ((3.0, 1.0, 3.0), (LSTM,)),
        ((3.0, 3.0, 0.5), (FOREST,)),
        ((3.0, 3.0, 0.5, 1.0), ()),
        ((3.0, 1.0, 0.5), (LSTM, FOREST)),
        ((1.9, 0.0, 0.0), ()),  # the whole of it is no alarm
        ((2.0, 2.0, 1.0), ()),  # just reached
        ((3.0, 2.0, 0.5), (FOREST,)),  # just borne out by one
        ((NAN, NAN, NAN), ()),
        ((3.0, NAN, 3.0), ()),  # who does not know stops nothing
    ],
)
def test_it_is_named_who_does_not_bear_an_alarm_out(
    brought: tuple[float, ...], missing: tuple[Witness, ...]
) -> None:
    held = HeldEvidence(WITNESSES)
    tick(held, *brought)
    assert held.missing(LEVEL) == missing


def test_before_the_first_tick_nothing_is_held_back() -> None:
    assert HeldEvidence(WITNESSES).missing(LEVEL) == ()


def test_both_are_missing_where_each_bears_it_out_at_another_tick() -> None:
    held = HeldEvidence(WITNESSES)
    tick(held, 3.0, 3.0, 0.0)
    tick(held, 3.0, 0.0, 3.0)
    assert held.missing(LEVEL) == WITNESSES


def test_what_lies_three_ticks_back_is_no_reason_any_more() -> None:
    held = HeldEvidence(WITNESSES)
    tick(held, 3.0, 0.0, 3.0)
    tick(held, 0.0, 0.0, 0.0)
    tick(held, 0.0, 0.0, 0.0)
    assert held.missing(LEVEL) == (LSTM,)
    tick(held, 0.0, 0.0, 0.0)
    assert held.missing(LEVEL) == ()


def test_who_bore_it_out_three_ticks_ago_does_not_any_more() -> None:
    held = HeldEvidence(WITNESSES)
    tick(held, 3.0, 3.0, 0.0)
    for _ in range(2):
        tick(held, 0.0, 0.0, 0.0)
    tick(held, 3.0, 0.0, 3.0)
    assert held.missing(LEVEL) == (LSTM,)


def test_a_silence_begins_anew() -> None:
    held = HeldEvidence(WITNESSES)
    tick(held, 3.0, 0.0, 3.0)
    held.restart()
    assert held.missing(LEVEL) == ()
    tick(held, 1.0, 1.0, 1.0)
    assert held.state()["whole_evidence"].tolist() == [1.0]


numbers = st.floats(-5, 5) | st.just(NAN)


@given(
    st.lists(
        st.tuples(numbers, st.fixed_dictionaries({"lstm": numbers, "forest": numbers, "other": numbers}))
    ),
    st.integers(0, 10),
)
def test_evidence_is_held_as_by_two_peak_holds_and_outlives_a_restart(
    ticks: list[tuple[float, Mapping[str, float]]], restart: int
) -> None:
    held, counts, whole = HeldEvidence(WITNESSES), PeakHold(), PeakHold()
    for at, (combined, evidence) in enumerate(ticks):
        if at == restart:
            saved, held = held.state(), HeldEvidence(WITNESSES)
            held.restore(saved)
        counted = witnessed_one(combined, evidence, WITNESSES)
        found = held.step(combined, counted, evidence)
        assert repr(found) == repr((counts.step(counted), whole.step(combined)))
        missing = held.missing(LEVEL)
        assert bool(missing) == (found[1] >= LEVEL > found[0])


def test_a_restart_keeps_what_counts_and_the_whole_apart() -> None:
    held, restored = HeldEvidence(WITNESSES), HeldEvidence(WITNESSES)
    tick(held, 3.0, 1.0, 3.0)
    restored.restore(held.state())
    nothing = {"lstm": 0.0, "forest": 0.0, "other": 0.0}
    assert restored.step(0.0, 0.0, nothing) == held.step(0.0, 0.0, nothing) == (1.0, 3.0)
