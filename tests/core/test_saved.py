"""What a scorer saved is taken over if it is what a scorer has, and refused otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from node_anomaly_core.calibration import HOLD_TICKS
from node_anomaly_core.outgrown import CLOSED
from node_anomaly_core.residuals import BLOCKS, LEVELS
from node_anomaly_core.saved import checked
from node_anomaly_core.summary import SUMMARY_WIDTH

F, MOST = 3, 4
NAN, INF = float("nan"), float("inf")
UNKNOWN = ("rows", "thinned", "centre", "level_level", "forest_scores", "evidence", "whole_evidence")


def state(**changes: Any) -> dict[str, Any]:
    """Of a node that has learnt; what is changed to None is left out."""
    whole = {
        "times": np.arange(2.0),
        "rows": np.ones((2, F)),
        "thinned": np.ones((MOST, F)),
        "counts": np.zeros(5),
        "range": np.array([[INF] * F, [-INF] * F]),
        "late": np.zeros((2, F)),
        "forest_scores": np.ones((5, 2)),
        "evidence": np.ones(3),
        "whole_evidence": np.ones(2),
        "threshold_blocks": np.array([-INF, 1.0]),
        "threshold_level": np.array([2.0, 0.0, 0.0, 1.0]),
        "threshold_open": np.full(2 + HOLD_TICKS, -INF),
        "threshold_outgrown": np.array(CLOSED),
        "centre": np.ones(F),
        "scale": np.ones(F),
        "residual_centre": np.ones((len(BLOCKS), F)),
        "residual_scale": np.ones((len(BLOCKS), F)),
        "level_level": np.ones((len(LEVELS), 1, F)),
        "level_deviation": np.ones((len(LEVELS), 1, F)),
        "level_seen": np.ones((1, F)),
        "summary_mean": np.ones((1, SUMMARY_WIDTH)),
        "summary_scale": np.ones((1, SUMMARY_WIDTH)),
        "summary_ticks": np.ones(1),
    }
    return {name: array for name, array in (whole | changes).items() if array is not None}


def filled(name: str, value: float) -> dict[str, Any]:
    return state(**{name: np.full(state()[name].shape, value)})


def test_a_whole_state_comes_back_as_it_is_in_double_precision() -> None:
    saved = state(rows=np.ones((2, F), dtype=np.float32), counts=np.zeros(5, dtype=np.int64))
    arrays = checked(saved, F, MOST)
    assert set(arrays) == set(saved)
    for name, array in arrays.items():
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, saved[name])


@pytest.mark.parametrize("name", ["late", "threshold_open", "threshold_outgrown"])
def test_what_older_agents_did_not_save_may_be_missing(name: str) -> None:
    assert name not in checked(state(**{name: None}), F, MOST)


def test_a_state_from_before_there_were_witnesses_has_one_evidence_and_no_standing_alarm() -> None:
    old = state(whole_evidence=None, threshold_level=np.array([2.0, 1.0, 3.0]))
    arrays = checked(old, F, MOST)
    assert arrays["whole_evidence"].tolist() == arrays["evidence"].tolist() == [1.0] * 3
    assert arrays["threshold_level"].tolist() == [2.0, 1.0, 3.0, 0.0]


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_may_be_unknown_is_taken_and_never_infinite(name: str) -> None:
    assert np.isnan(checked(filled(name, NAN), F, MOST)[name]).all()
    with pytest.raises(ValueError, match=f"saved {name} holds a number"):
        checked(filled(name, INF), F, MOST)


@pytest.mark.parametrize("name", sorted(set(state()) - set(UNKNOWN)))
def test_what_a_scorer_always_knows_is_never_unknown(name: str) -> None:
    with pytest.raises(ValueError, match=f"saved {name} holds a number"):
        checked(filled(name, NAN), F, MOST)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("counts", 0.0),
        ("late", 0.0),
        ("scale", 1e-9),
        ("residual_scale", 1e-9),
        ("level_deviation", 1e-9),
        ("summary_scale", 1e-9),
    ],
)
def test_a_count_is_not_below_zero_and_a_scale_is_above_it(name: str, least: float) -> None:
    assert (checked(filled(name, least), F, MOST)[name] == least).all()
    with pytest.raises(ValueError, match=f"saved {name} holds a number"):
        checked(filled(name, -1.0 if least == 0.0 else 0.0), F, MOST)


def test_one_row_of_the_past_more_than_a_scorer_keeps_is_refused() -> None:
    with pytest.raises(ValueError, match="saved 5 thinned rows, at most 4"):
        checked(state(thinned=np.ones((MOST + 1, F))), F, MOST)


@pytest.mark.parametrize("kind", [np.complex128, np.bool_, np.uint8, np.str_])
def test_other_kinds_of_numbers_are_refused(kind: type) -> None:
    with pytest.raises(ValueError, match="saved counts is"):
        checked(state(counts=np.zeros(5).astype(kind)), F, MOST)
