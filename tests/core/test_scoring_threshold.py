"""A node's score is judged against the node's own threshold, which outlives restart and reload."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.bundle import Bundle, golden_scores
from node_anomaly_core.calibration import Tail
from node_anomaly_core.members import judge
from node_anomaly_core.score import Score
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.steady import PeakHold
from node_anomaly_core.threshold import RollingThreshold, around_one
from node_anomaly_core.witnesses import Witness
from small_bundle import LIVE

Array = NDArray[np.float64]

INTERVAL_S = 300.0  # few ticks make hours: a block is 50 minutes, and an update comes with each
UPDATE_TICKS = 10
COLD = 19


def lived(scorer: NodeScorer, rows: Array, first: int = 0) -> list[Score]:
    """Consecutive rows, one every five minutes."""
    return [scorer.step(LIVE + (first + tick) * INTERVAL_S, row) for tick, row in enumerate(rows)]


@pytest.fixture(scope="module")
def restless(small: small_bundle.SmallBundle) -> Bundle:
    """Of quick members, promised far too low a threshold, so that it is crossed all the time and moves."""
    made = small_bundle.only(small, "isolation_forest", "autoregression")
    tail = Tail((-5.0, 0.0, 1.0, 5.0), (0.0, -0.5, -1.0, -3.0), -0.6)
    return replace(made, manifest=replace(made.manifest, tail=tail, budget_per_week=7.0)).bundle()


def rows(seed: int, ticks: int) -> Array:
    """A normal node with a disk that is busy now and then."""
    values = small_bundle.rows(seed, ticks)
    values[::7, 4] *= 2.0
    return values


def test_a_score_is_one_exactly_when_the_evidence_reaches_the_level_in_force(restless: Bundle) -> None:
    manifest, history = restless.manifest, rows(60, 300)
    scorer, measured = NodeScorer(restless, INTERVAL_S), NodeScorer(restless, INTERVAL_S)
    own = RollingThreshold(manifest.tail, manifest.budget_per_week, INTERVAL_S)
    peak, above = PeakHold(), []
    for tick, row in enumerate(history):
        score = scorer.step(LIVE + tick * INTERVAL_S, row)
        raw = measured.measure(LIVE + tick * INTERVAL_S, row)
        if not raw:
            assert not score.warm
            continue
        judged = judge(manifest, {name: np.array([one]) for name, one in raw.items()})
        evidence = peak.step(float(judged.combined[0]))
        assert score.threshold_ratio == own.ratio
        level = own.step(evidence)
        assert (score.score >= 1.0) == (evidence >= level)
        above.append(score.score >= 1.0)
    assert 0 < sum(above) < len(above)
    assert own.ratio > 1.1


@pytest.fixture(scope="module")
def witnessed(restless: Bundle) -> Bundle:
    """The same where the autoregression must bear out what the forest says."""
    manifest = replace(restless.manifest, witnesses=(Witness(("autoregression",), 1.2),))
    return replace(restless, manifest=manifest)


def test_what_nobody_bears_out_is_no_alarm_and_is_shown_all_the_same(
    restless: Bundle, witnessed: Bundle
) -> None:
    manifest, history = witnessed.manifest, rows(60, 300)
    scorer, measured = NodeScorer(witnessed, INTERVAL_S), NodeScorer(restless, INTERVAL_S)
    own = RollingThreshold(manifest.tail, manifest.budget_per_week, INTERVAL_S)
    counts, whole, quieted, stood = PeakHold(), PeakHold(), 0, 0
    for tick, row in enumerate(history):
        score = scorer.step(LIVE + tick * INTERVAL_S, row)
        raw = measured.measure(LIVE + tick * INTERVAL_S, row)
        if not raw:
            continue
        judged = judge(manifest, {name: np.array([one]) for name, one in raw.items()})
        decisive, shown = counts.step(float(judged.counted[0])), whole.step(float(judged.combined[0]))
        level = own.step(decisive, shown)
        assert (score.score >= 1.0) == own.reached
        held_back = decisive < level <= shown and not own.reached
        assert score.held_back_by == (manifest.witnesses if held_back else ())
        quieted += held_back
        stood += decisive < level <= shown and own.reached
        if not own.reached:
            assert score.score == around_one(manifest.tail.score_of(shown), math.inf)
    assert quieted > 5
    assert stood > 5


def test_what_counted_and_what_was_shown_outlive_a_restart(witnessed: Bundle) -> None:
    history = rows(68, 120)
    before, after = NodeScorer(witnessed, INTERVAL_S), NodeScorer(witnessed, INTERVAL_S)
    lived(before, history[:100])
    saved = before.state()
    assert not np.array_equal(saved["evidence"], saved["whole_evidence"])
    assert after.restore(saved)
    for name in ("evidence", "whole_evidence"):
        np.testing.assert_array_equal(after.state()[name], saved[name])


def test_a_state_from_before_there_were_witnesses_is_taken(restless: Bundle) -> None:
    before, after = NodeScorer(restless, INTERVAL_S), NodeScorer(restless, INTERVAL_S)
    lived(before, rows(69, 100))
    saved = before.state()
    expected = saved.pop("whole_evidence")
    saved["threshold_level"] = saved["threshold_level"][:3]
    assert after.restore(saved)
    np.testing.assert_array_equal(after.state()["whole_evidence"], expected)


def test_a_cold_node_has_the_threshold_that_training_promised(restless: Bundle) -> None:
    scores = lived(NodeScorer(restless, INTERVAL_S), rows(61, COLD + UPDATE_TICKS))
    assert not scores[COLD - 1].warm
    assert [score.threshold_ratio for score in scores] == [1.0] * (COLD + UPDATE_TICKS)


def test_the_threshold_moves_and_is_reported_as_it_was_applied(restless: Bundle) -> None:
    scores = lived(NodeScorer(restless, INTERVAL_S), rows(62, 200))
    ratios = np.array([score.threshold_ratio for score in scores])
    changes = set((np.flatnonzero(np.diff(ratios)) + 1).tolist())
    assert len(changes) >= 5
    assert changes <= {COLD + UPDATE_TICKS * turn for turn in range(1, 19)}


def test_what_a_member_says_alone_does_not_depend_on_the_nodes_threshold(restless: Bundle) -> None:
    history = rows(63, COLD + UPDATE_TICKS)
    wandered, fresh = NodeScorer(restless, INTERVAL_S), NodeScorer(restless, INTERVAL_S)
    wandered._threshold.level *= 3.0
    for one, other in zip(lived(wandered, history), lived(fresh, history), strict=True):
        np.testing.assert_array_equal(list(one.model_scores.values()), list(other.model_scores.values()))
        assert one.threshold_ratio == 3.0 * other.threshold_ratio


def test_measuring_raw_scores_moves_no_threshold(restless: Bundle) -> None:
    scorer = NodeScorer(restless, INTERVAL_S)
    for tick, row in enumerate(rows(64, 150)):
        scorer.measure(LIVE + tick * INTERVAL_S, row)
    assert scorer._threshold.ratio == 1.0
    assert len(scorer._threshold.state()["blocks"]) == 0


def test_the_threshold_outlives_a_restart(restless: Bundle) -> None:
    history = rows(65, 260)
    before, after = NodeScorer(restless, INTERVAL_S), NodeScorer(restless, INTERVAL_S)
    between = COLD + 180  # two blocks
    lived(before, history[:between])
    assert after.restore(before.state())
    np.testing.assert_array_equal(after.state()["threshold_blocks"], before.state()["threshold_blocks"])
    one, other = (lived(scorer, history[between:], between) for scorer in (before, after))
    assert other[0].threshold_ratio == one[0].threshold_ratio > 1.0
    np.testing.assert_allclose(
        [score.threshold_ratio for score in other], [score.threshold_ratio for score in one], rtol=0.05
    )


def test_a_node_that_never_lives_for_a_whole_block_learns_a_threshold_all_the_same(restless: Bundle) -> None:
    history, life = rows(65, 260), UPDATE_TICKS - 1
    scorer = NodeScorer(restless, INTERVAL_S)
    for first in range(0, len(history), life):
        lived(scorer, history[first : first + life], first)
        scorer, before = NodeScorer(restless, INTERVAL_S), scorer
        assert scorer.restore(before.state())
    uninterrupted = NodeScorer(restless, INTERVAL_S)
    lived(uninterrupted, history)
    blocks = [one.state()["threshold_blocks"] for one in (scorer, uninterrupted)]
    assert len(blocks[0]) == len(blocks[1]) == (len(history) - COLD) // UPDATE_TICKS
    assert scorer._threshold.ratio == pytest.approx(uninterrupted._threshold.ratio, rel=0.05)


def test_a_state_from_before_blocks_were_saved_half_way_is_taken(restless: Bundle) -> None:
    before, after = NodeScorer(restless, INTERVAL_S), NodeScorer(restless, INTERVAL_S)
    lived(before, rows(69, 100))
    saved = before.state()
    del saved["threshold_open"]
    assert after.restore(saved)
    np.testing.assert_array_equal(after.state()["threshold_blocks"], saved["threshold_blocks"])


def test_a_cold_node_keeps_its_threshold_over_a_restart_too(restless: Bundle) -> None:
    scorer, after = NodeScorer(restless, INTERVAL_S), NodeScorer(restless, INTERVAL_S)
    lived(scorer, rows(66, 5))
    assert after.restore(scorer.state())
    assert lived(after, rows(66, 1), 5)[0].threshold_ratio == 1.0


def test_a_reload_goes_on_at_the_same_multiple_of_what_the_new_bundle_promises(restless: Bundle) -> None:
    history = rows(67, 201)
    before = NodeScorer(restless, INTERVAL_S)
    lived(before, history[:200])
    tail = Tail((-5.0, 0.0, 1.0, 5.0), (0.0, -0.5, -1.0, -3.0), -0.9)
    stricter = replace(restless, manifest=replace(restless.manifest, tail=tail))
    after = NodeScorer(replace(stricter, files=restless.files), INTERVAL_S)
    after.replay(before)
    ratio = lived(before, history[200:], 200)[0].threshold_ratio
    assert lived(after, history[200:], 200)[0].threshold_ratio == pytest.approx(ratio)
    assert after._threshold.level == pytest.approx(4 * before._threshold.level)  # evidence 0.8 against 0.2


def test_golden_vectors_do_not_depend_on_how_a_threshold_moves(restless: Bundle) -> None:
    """Else a version that moves it otherwise would refuse a bundle whose models it reads as it should."""
    history, interval_s = rows(71, 600), restless.manifest.interval_s
    restless = replace(restless, manifest=replace(restless.manifest, budget_per_week=1.0))

    def told(scorer: NodeScorer) -> list[Score]:
        return [scorer.step(LIVE + tick * interval_s, row) for tick, row in enumerate(history)]

    moving = told(NodeScorer(restless, interval_s))
    fixed = told(NodeScorer(restless, interval_s, threshold_update_s=math.inf))
    assert moving[-1].threshold_ratio != 1.0
    assert {one.threshold_ratio for one in fixed} == {1.0}
    golden = golden_scores(restless, history)[:, 0]
    np.testing.assert_array_equal(golden, [one.score for one in fixed])
    assert not np.array_equal(golden, [one.score for one in moving], equal_nan=True)
