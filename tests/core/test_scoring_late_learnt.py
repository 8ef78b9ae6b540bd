"""A feature that came late is learnt alone, by what it has shown itself, as a new node is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import small_bundle
from node_anomaly_core.baseline import Baseline, robust_scale
from node_anomaly_core.bundle import Bundle
from node_anomaly_core.node_memory import NodeMemory
from node_anomaly_core.own_baseline import OwnBaselines
from node_anomaly_core.scoring import NodeScorer
from small_bundle import INTERVAL_S, LIVE

Array = NDArray[np.float64]

NAMES = [feature.name for feature in small_bundle.FEATURES]
WIDTH = len(NAMES)
DISK = NAMES.index("disk_busy_ratio")
OTHERS = np.arange(WIDTH) != DISK
FLOOR = np.array([feature.floor for feature in small_bundle.FEATURES])
LATE = 30
BASELINE = ("centre", "scale", "residual_centre", "residual_scale")


@pytest.fixture(scope="module")
def quick(small: small_bundle.SmallBundle) -> small_bundle.SmallBundle:
    """Of quick members."""
    return small_bundle.only(small, "isolation_forest", "autoregression")


@pytest.fixture(scope="module")
def diskless(quick: small_bundle.SmallBundle) -> Bundle:
    """Of a fleet that never had a disk: what stands for its scale is the floor."""
    cohort = quick.cohort
    centre, scale, spread, relative = (
        array.copy()
        for array in (cohort.node_centre, cohort.node_scale, cohort.prior.spread, cohort.prior.relative)
    )
    centre[:, DISK], scale[:, DISK], spread[DISK], relative[DISK] = np.nan, FLOOR[DISK], FLOOR[DISK], 0.0
    prior = replace(cohort.prior, spread=spread, relative=relative)
    without = replace(cohort, node_centre=centre, node_scale=scale, prior=prior)
    return small_bundle.with_cohort(quick, without).bundle()


def rows(seed: int, ticks: int, late: int = LATE) -> Array:
    """A normal node whose disk is there from tick `late` on, and moves by more than is worth noticing."""
    values = small_bundle.rows(seed, ticks)
    values[:, DISK] *= 20.0
    values[:late, DISK] = np.nan
    return values


def live(scorer: NodeScorer, values: Array, first: int = 0) -> list[int]:
    """Live through rows from tick `first` on; the ticks at which the disk's scale became another."""
    changed = []
    for tick, row in enumerate(values, first):
        before = None if scorer._baseline is None else scorer._baseline.scale[DISK]
        scorer.step(LIVE + tick * scorer.interval_s, row)
        if before is not None and scorer._baseline is not None and scorer._baseline.scale[DISK] != before:
            changed.append(tick)
    return changed


def own_scale(values: Array) -> float:
    return float(robust_scale(values[:, [DISK]], FLOOR[[DISK]])[1][0])


def test_it_is_learnt_when_it_has_been_seen_twice_as_often_and_not_leaning_on_a_floor(
    diskless: Bundle,
) -> None:
    scorer, history = NodeScorer(diskless, INTERVAL_S, "beta"), rows(41, LATE + 340)
    seen = [10, 20, 40, 80, 160, 320]
    assert live(scorer, history) == [LATE + count - 1 for count in seen]
    own = own_scale(history[: LATE + 320])
    assert scorer.state()["scale"][DISK] == pytest.approx(own, rel=1e-3)
    assert own > 5 * FLOOR[DISK]


def test_it_leans_on_a_fleet_that_has_it(quick: small_bundle.SmallBundle) -> None:
    centre = quick.cohort.node_centre.copy()
    centre[quick.manifest.nodes.index("beta"), DISK] = np.nan
    bundle = small_bundle.with_cohort(quick, replace(quick.cohort, node_centre=centre)).bundle()
    scorer, history = NodeScorer(bundle, INTERVAL_S, "beta"), rows(42, LATE + 10)
    assert live(scorer, history) == [LATE + 9]
    fleets = quick.cohort.prior.relative[DISK] * scorer.state()["centre"][DISK]
    off, own_off = (np.log(scale / fleets) for scale in (scorer.state()["scale"][DISK], own_scale(history)))
    assert abs(own_off) > 0.1
    assert off == pytest.approx(own_off * 10 / 250)


@pytest.mark.parametrize(("interval_s", "seen"), [(900.0, [10, 20, 40, 80]), (3_600.0, [10, 20])])
def test_it_is_learnt_for_a_day_of_its_own(diskless: Bundle, interval_s: float, seen: list[int]) -> None:
    scorer = NodeScorer(diskless, interval_s, "beta")
    assert live(scorer, rows(43, LATE + 200)) == [LATE + count - 1 for count in seen]


def test_a_node_that_nobody_knows_learns_what_comes_after_its_first_day(diskless: Bundle) -> None:
    scorer, came = NodeScorer(diskless, 900.0), 120
    assert live(scorer, rows(44, came + 200, came)) == [came + count - 1 for count in (20, 40, 80)]


def test_what_came_just_before_a_node_was_learnt_for_the_last_time_is_learnt_on(diskless: Bundle) -> None:
    scorer, last = NodeScorer(diskless, 900.0), 80  # of 20, 40, 80 ticks
    came = last - 5
    expected = [last - 1, *(came + count - 1 for count in (20, 40, 80))]
    assert live(scorer, rows(45, came + 200, came)) == expected


def test_what_the_bundle_knows_of_the_node_is_not_touched(diskless: Bundle) -> None:
    """Its baseline stands to the bit, and its adapted levels are those of a node to which no disk came."""
    with_disk, without = NodeScorer(diskless, INTERVAL_S, "beta"), NodeScorer(diskless, INTERVAL_S, "beta")
    known, history = with_disk.state(), rows(46, LATE + 340)
    live(with_disk, history)
    live(without, np.where(OTHERS, history, np.nan))
    after, alone = with_disk.state(), without.state()
    for name in BASELINE:
        np.testing.assert_array_equal(after[name][..., OTHERS], known[name][..., OTHERS])
    for name in ("level_level", "level_deviation", "level_seen"):
        np.testing.assert_allclose(after[name][..., OTHERS], alone[name][..., OTHERS], rtol=1e-4, atol=1e-5)
    assert np.isfinite(after["level_level"][..., DISK]).all()


@pytest.mark.parametrize("life", [1, 7, 33])
def test_it_is_learnt_the_same_however_often_the_agent_is_restarted(diskless: Bundle, life: int) -> None:
    history = rows(47, LATE + 90)
    uninterrupted, scorer = (NodeScorer(diskless, INTERVAL_S, "beta") for _ in range(2))
    live(uninterrupted, history)
    live(scorer, history[:LATE])
    for first in range(LATE, len(history), life):
        live(scorer, history[first : first + life], first)
        scorer, before = NodeScorer(diskless, INTERVAL_S, "beta"), scorer
        assert scorer.restore(before.state())
    for name in (*BASELINE, "late"):
        np.testing.assert_array_equal(scorer.state()[name], uninterrupted.state()[name])


def test_a_state_of_an_agent_that_learnt_it_once_is_read_and_it_is_learnt_anew(diskless: Bundle) -> None:
    history, before = rows(48, LATE + 150), NodeScorer(diskless, INTERVAL_S, "beta")
    live(before, history[: LATE + 100])
    saved = before.state()
    del saved["late"]
    saved["scale"][DISK] = 1.1 * FLOOR[DISK]
    after = NodeScorer(diskless, INTERVAL_S, "beta")
    assert after.restore(saved)
    now = LATE + 100
    assert live(after, history[now:], now) == [now]
    assert after.state()["scale"][DISK] == pytest.approx(own_scale(history[: now + 1]), rel=1e-3)
    for name in BASELINE:
        np.testing.assert_array_equal(after.state()[name][..., OTHERS], saved[name][..., OTHERS])


def test_a_reload_has_all_that_it_has_shown_and_goes_on(diskless: Bundle) -> None:
    history, before, after = rows(49, LATE + 170), *(NodeScorer(diskless, INTERVAL_S, "beta") for _ in "12")
    now = LATE + 100
    live(before, history[:now])
    after.replay(before)
    assert after.state()["scale"][DISK] == pytest.approx(own_scale(history[:now]), rel=1e-3)
    assert live(after, history[now:], now) == [LATE + 159]


def test_a_bundle_that_knows_it_by_now_is_believed(quick: small_bundle.SmallBundle, diskless: Bundle) -> None:
    history, before = rows(50, LATE + 170), NodeScorer(diskless, INTERVAL_S, "beta")
    now = LATE + 100
    live(before, history[:now])
    after = NodeScorer(quick.bundle(), INTERVAL_S, "beta")
    known = after.state()
    after.replay(before)
    assert live(after, history[now:], now) == []
    for name in BASELINE:
        np.testing.assert_array_equal(after.state()[name], known[name])


def test_what_it_did_before_the_windows_began_counts_too(diskless: Bundle) -> None:
    """At a tick of a minute four hours are kept in full; the day before them thinned out."""
    history = rows(51, LATE + 660)
    history[LATE : LATE + 400, DISK] += 5.0
    scorer = NodeScorer(diskless, 60.0, "beta")
    assert LATE + 639 in live(scorer, history)
    assert scorer.state()["centre"][DISK] > 4.0


def test_after_a_silence_it_waits_for_rows_to_be_learnt_from(diskless: Bundle) -> None:
    history, scorer = rows(52, LATE + 60), NodeScorer(diskless, INTERVAL_S, "beta")
    live(scorer, history[: LATE + 39])
    later = LATE + 39 + 2 * round(3_600.0 / INTERVAL_S)
    assert live(scorer, history[LATE + 39 :], later) == [later + 9]


def test_one_that_was_away_for_days_keeps_what_was_learnt_until_there_is_enough_of_it_again(
    diskless: Bundle,
) -> None:
    """Nothing of it is left in the memory, and a scale of its first row would be the floor."""
    seen, away = 79, 600
    history = rows(53, LATE + seen + away + 70)
    history[LATE + seen : LATE + seen + away, DISK] = np.nan
    scorer = NodeScorer(diskless, 300.0, "beta")
    back = LATE + seen + away
    assert live(scorer, history) == [*(LATE + count - 1 for count in (10, 20, 40)), back + 59]
    assert scorer.state()["scale"][DISK] == pytest.approx(own_scale(history[back : back + 60]), rel=1e-3)


def test_short_visits_are_no_warm_up(diskless: Bundle) -> None:
    history = rows(54, LATE + 700)
    gone = np.ones(len(history), dtype=bool)
    gone[[LATE, LATE + 1, LATE + 2]] = False  # three ticks of a device, and it is gone for days
    gone[LATE + 620 :] = False
    history[gone, DISK] = np.nan
    scorer = NodeScorer(diskless, 300.0, "beta")
    assert live(scorer, history)[0] == LATE + 620 + 9


@pytest.mark.parametrize("age", [5, 12, 19])
def test_a_reload_of_a_node_that_nobody_knows_learns_on_what_came_just_before(
    diskless: Bundle, age: int
) -> None:
    came = 200  # of 96 ticks in which the whole node is learnt
    history, before, after = rows(55, came + 120, came), *(NodeScorer(diskless, 900.0) for _ in "12")
    live(before, history[: came + age])
    after.replay(before)
    assert live(after, history[came + age :], came + age) == [came + count - 1 for count in (20, 40, 80)]
    assert after.state()["scale"][DISK] == pytest.approx(own_scale(history[: came + 80]), rel=1e-3)


class Counted:
    """Fits what another fits, and counts how often."""

    def __init__(self, own: OwnBaselines) -> None:
        self.own, self.fits = own, 0

    def with_late(self, kept: Baseline, late: NDArray[np.bool_], memory: NodeMemory) -> Baseline:
        self.fits += 1
        return self.own.with_late(kept, late, memory)


def test_what_comes_shortly_after_another_is_learnt_with_it(quick: small_bundle.SmallBundle) -> None:
    """Each fit costs a second of a slow machine, however many features it is of."""
    cohort = quick.cohort
    centre = np.full_like(cohort.node_centre, np.nan)
    centre[:, 0] = cohort.node_centre[:, 0]
    bundle = small_bundle.with_cohort(quick, replace(cohort, node_centre=centre)).bundle()
    scorer, history = NodeScorer(bundle, INTERVAL_S, "beta"), small_bundle.rows(56, LATE + 400)
    for column in range(1, WIDTH):
        history[: LATE + column, column] = np.nan
    counted = Counted(scorer._own)
    scorer._own = counted  # type: ignore[assignment]
    for tick, row in enumerate(history):
        scorer.step(LIVE + tick * INTERVAL_S, row)
    assert np.isfinite(scorer.state()["centre"]).all()
    assert counted.fits <= WIDTH - 1 + 2 * 5, "each is admitted when it may be; then they go together"
