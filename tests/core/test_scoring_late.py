"""A feature that appears after the baseline was fitted, as a disk plugged in on the second day."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle import Bundle
from node_anomaly_core.scoring import NodeScorer
from small_bundle import INTERVAL_S, live

NAMES = [feature.name for feature in small_bundle.FEATURES]
DISK = NAMES.index("disk_busy_ratio")
LATE = 70  # between two learning moments, 40 and 80


def without_disk(rows: NDArray[np.float64], until: int) -> NDArray[np.float64]:
    rows = rows.copy()
    rows[:until, DISK] = np.nan
    return rows


@pytest.mark.parametrize("node", ["", "beta"], ids=["learnt here", "known to the bundle"])
def test_a_feature_that_appears_late_is_expected_and_judged(bundle: Bundle, node: str) -> None:
    """Its baseline comes after a warm-up of its own, and a jump of it is then the first reason."""
    scorer = NodeScorer(bundle, INTERVAL_S, node)
    if node:  # as if this node had had no disk when the bundle was trained
        centre = scorer.models.cohort.node_centre.copy()
        centre[bundle.manifest.nodes.index(node), DISK] = np.nan
        object.__setattr__(scorer.models.cohort, "node_centre", centre)
        scorer = NodeScorer(bundle, INTERVAL_S, node, scorer.models)
    rows = without_disk(small_bundle.rows(21, 140), LATE)
    scores = live(scorer, rows[:130])
    assert np.isnan(scores[LATE - 1].expected[DISK])
    assert np.isfinite(scores[-1].expected[DISK])
    jump = rows[130].copy()
    jump[DISK] = 1.0
    disturbed = live(scorer, [jump], first=130)[0]
    assert int(np.nanargmax(disturbed.contributions)) == DISK
    assert disturbed.score > max(score.score for score in scores[100:])


def test_the_other_features_keep_what_was_learnt(bundle: Bundle) -> None:
    """The late one gets a baseline; centres and scales of the rest are those of before, to the bit."""
    scorer = NodeScorer(bundle, INTERVAL_S)
    rows = without_disk(small_bundle.rows(22, 120), 45)
    live(scorer, rows[:64])
    before = scorer.state()
    live(scorer, rows[64:70], first=64)
    after = scorer.state()
    others = np.arange(len(NAMES)) != DISK
    assert np.isnan(before["centre"][DISK])
    assert np.isfinite(after["centre"][DISK])
    np.testing.assert_array_equal(after["centre"][others], before["centre"][others])
    np.testing.assert_array_equal(after["scale"][others], before["scale"][others])
