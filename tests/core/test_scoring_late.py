"""A feature that appears after the baseline was fitted, as a disk plugged in on the second day."""

from __future__ import annotations

from dataclasses import replace

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


def test_a_feature_that_was_forgotten_while_it_is_gone_is_not_learnt_at_every_tick(bundle: Bundle) -> None:
    """A refit may miss the few rows of a rare feature; there is nothing to admit until it is back."""
    scorer = NodeScorer(bundle, INTERVAL_S)
    rows = small_bundle.rows(23, 130)
    rows[60:115, DISK] = np.nan
    live(scorer, rows[:100])
    assert scorer._baseline is not None
    forgotten = np.where(np.arange(len(NAMES)) == DISK, np.nan, scorer._baseline.centre)
    scorer._baseline = replace(scorer._baseline, centre=forgotten)
    path = scorer._residuals
    live(scorer, rows[100:115], first=100)
    assert scorer._residuals is path, "its windows were lived through anew"
    live(scorer, rows[115:], first=115)
    assert np.isfinite(scorer.state()["centre"][DISK])


def test_a_known_node_keeps_its_late_feature_over_a_restart(bundle: Bundle) -> None:
    """With the baseline that it had, and not one of what happens now."""
    models = NodeScorer(bundle, INTERVAL_S, "beta").models
    centre = models.cohort.node_centre.copy()
    centre[bundle.manifest.nodes.index("beta"), DISK] = np.nan
    object.__setattr__(models.cohort, "node_centre", centre)
    scorer = NodeScorer(bundle, INTERVAL_S, "beta", models)
    rows = without_disk(small_bundle.rows(24, 160), LATE)
    rows[120:, DISK] += 0.6  # an incident that stands
    live(scorer, rows[:140])
    restarted = NodeScorer(bundle, INTERVAL_S, "beta", models)
    assert restarted.restore(scorer.state())
    assert restarted.state()["centre"][DISK] == scorer.state()["centre"][DISK]
    on, again = live(scorer, rows[140:], first=140), live(restarted, rows[140:], first=140)
    np.testing.assert_allclose([one.score for one in again], [one.score for one in on], atol=0.05)


def test_a_feature_that_came_just_before_the_node_was_learnt_is_expected_as_the_fleet_has_it(
    bundle: Bundle,
) -> None:
    """Five quiet rows of it weigh as five, whatever else the node has shown."""
    scorer = NodeScorer(bundle, INTERVAL_S)
    rows = without_disk(small_bundle.rows(25, 80), 75)
    rows[75:, DISK] = rows[75, DISK]
    live(scorer, rows)
    prior = scorer.models.cohort.prior.residual_scale[:, DISK]
    assert scorer._baseline is not None
    own = scorer._baseline.residual_scale[:, DISK]
    assert (own > 0.85 * prior).all(), own / prior
