"""The residual blocks are running updates of plain definitions, node by node and feature by feature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from node_anomaly_core.relations import Past, Relations, bounded, no_relations, past_width
from node_anomaly_core.residuals import BLOCKS, CENTRED, ResidualBlocks, longest_window, one_sided
from node_anomaly_core.summary import SIDES

Array = NDArray[np.float64]

NAN = float("nan")
INTERVAL_S = 300.0  # the shortest windows, so that they fill and wrap within a test
DAY = 86_400.0

LINEAR = [BLOCKS.index(name) for name in ("unpredicted", "unexplained", "unrelated", "unpredicted_15m")]
"""Blocks in which features have to do with each other."""
TWO_SIDED = [at for at, name in enumerate(BLOCKS) if name.startswith("spread")]


def fleets(ticks: int = 30) -> st.SearchStrategy[NDArray[Any]]:
    """Compressed values (t, m, f) with gaps; their squares are exact in float32."""
    return hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, ticks), st.integers(1, 3), st.integers(1, 4)),
        elements=st.floats(-8, 8, width=16) | st.just(NAN),
    )


def related(features: int, seed: int = 0) -> Relations:
    """A fleet in which everything has to do with everything."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(features, features)))
    partial = rng.normal(size=(features, features))
    np.fill_diagonal(partial, 1.0)
    memory = 0.1 * rng.normal(size=(past_width(features), features))
    return Relations(directions[: features // 2], partial, memory)


def run(
    values: Array,
    relations: Relations | None = None,
    sides: Array | None = None,
    interval_s: float = INTERVAL_S,
) -> Array:
    """Residuals (t, m, blocks, f) of consecutive values (t, m, f)."""
    features = values.shape[2]
    blocks = ResidualBlocks(
        values.shape[1],
        np.zeros(features) if sides is None else sides,
        interval_s,
        no_relations(features) if relations is None else relations,
    )
    return np.stack([blocks.step(row) for row in values])


def single(features: int = 1, sides: Array | None = None) -> ResidualBlocks:
    """One node without relations, at the shortest windows."""
    sides = np.zeros(features) if sides is None else sides
    return ResidualBlocks(1, sides, INTERVAL_S, no_relations(features))


# ----------------------------------------------------------------------------------------- the definitions


def mean_of(values: Array, ticks: int) -> float:
    """Of the known ones among the latest; NaN without any."""
    latest = values[-ticks:]
    known = latest[np.isfinite(latest)]
    return float(known.mean()) if len(known) else NAN


def log_spread(values: Array, ticks: int) -> float:
    variance = mean_of(values**2, ticks) - mean_of(values, ticks) ** 2
    return float(0.5 * np.log(max(variance, 0.0) + 0.01))


@dataclass
class Level:
    """One adapted level, number by number."""

    half_life_s: float
    level: float = NAN
    deviation: float = 0.25
    seen: int = 0
    history: list[float] = field(default_factory=list)

    def innovation(self, value: float) -> float:
        """How far a value is from the level; then the level moves."""
        away = value - self.level
        if np.isnan(value):
            return NAN
        self.seen += 1
        if np.isnan(self.level):
            self.level = value
            return away
        limit = 3.0 * self.deviation
        weight = max(1 - 0.5 ** (INTERVAL_S / self.half_life_s), 1 / self.seen)
        self.level += weight * min(max(away, -limit), limit)
        pull = max(1 - 0.5 ** (INTERVAL_S / (3 * DAY)), 1 / (self.seen + 60))
        self.deviation += pull * (1.25 * min(abs(away), 2 * limit) - self.deviation)
        self.deviation = max(self.deviation, 0.05)
        return away


def plain(values: Array, relations: Relations, side: Array) -> Array:
    """Residuals (t, blocks, f) of one node's whole history (t, f), each by its own definition."""
    ticks, features = values.shape
    result = np.full((ticks, len(BLOCKS), features), NAN)
    seen = bounded(values)
    past = Past(1, features, INTERVAL_S)
    levels = [[Level(half_life) for half_life in (DAY, 3_600.0, DAY)] for _ in range(features)]
    for tick in range(ticks):
        expected = (past.row() @ relations.autoregression)[0]
        past.push(seen[tick : tick + 1])
        row = seen[tick]
        pattern = (relations.components @ row) @ relations.components
        for one in range(features):
            so_far = values[: tick + 1, one]
            if np.isnan(so_far[-1]):
                continue
            spreads = [log_spread(so_far, length) for length in (5, 15, 60)]
            day, hour, spread_day = levels[one]
            numbers = [
                so_far[-1],
                day.innovation(so_far[-1]),
                hour.innovation(so_far[-1]),
                so_far[-1] - so_far[-2] if tick else NAN,
                mean_of(so_far, 5) - mean_of(so_far, 60),
                mean_of(so_far, 15) - mean_of(so_far, 240),
                mean_of(so_far, 3) - mean_of(so_far, 15),
                *spreads,
                spread_day.innovation(spreads[1]),
                row[one] - expected[one],
                row[one] - pattern[one],
                sum(row[other] * relations.partial[other, one] for other in range(features)),
            ]
            for block, number in enumerate(numbers):
                harmless = block not in TWO_SIDED and number * side[one] < 0
                result[tick, block, one] = 0.0 if harmless else number
            for block, source in (("unpredicted_15m", "unpredicted"), ("level_day_15m", "level_day")):
                sizes = np.abs(result[: tick + 1, BLOCKS.index(source), one])
                result[tick, BLOCKS.index(block), one] = mean_of(sizes, 15)
    return result


@settings(max_examples=60, deadline=None)
@given(fleets(), st.integers(0, 5), st.data())
def test_every_block_is_its_definition_over_the_whole_history(
    values: Array, seed: int, data: st.DataObject
) -> None:
    features = values.shape[2]
    sides = np.array(
        data.draw(st.lists(st.sampled_from((-1.0, 0.0, 1.0)), min_size=features, max_size=features))
    )
    relations = related(features, seed)
    residuals = run(values, relations, sides)
    for node in range(values.shape[1]):
        expected = plain(values[:, node], relations, sides)
        np.testing.assert_allclose(residuals[:, node], expected, atol=1e-5)


def test_every_block_is_its_definition_when_its_windows_have_long_been_full() -> None:
    rng = np.random.default_rng(3)
    values = np.round(rng.normal(size=(520, 3)), 2)
    values[rng.random(values.shape) < 0.05] = NAN
    values[300:330, 1] = NAN
    sides = np.array([0.0, 1.0, -1.0])
    residuals = run(values[:, None], related(3), sides)[:, 0]
    np.testing.assert_allclose(residuals, plain(values, related(3), sides), atol=2e-4)


@pytest.mark.parametrize(
    ("interval_s", "minutes"),
    [
        (1.0, {3: 180, 5: 300, 15: 900, 60: 3_600, 240: 14_400}),
        (5.0, {3: 36, 5: 60, 15: 180, 60: 720, 240: 2_880}),
        (15.0, {3: 12, 5: 20, 15: 60, 60: 240, 240: 960}),
        (60.0, {3: 3, 5: 5, 15: 15, 60: 60, 240: 240}),
        (300.0, {3: 3, 5: 5, 15: 15, 60: 60, 240: 240}),
    ],
    ids=str,
)
def test_windows_are_counted_in_time_but_never_fewer_ticks_than_were_measured_with(
    interval_s: float, minutes: dict[int, int]
) -> None:
    blocks = ResidualBlocks(1, np.zeros(1), interval_s, no_relations(1))
    lengths = np.array(blocks._means.lengths)
    assert lengths[blocks._short].tolist() == [minutes[5], minutes[15], minutes[3]]
    assert lengths[blocks._long].tolist() == [minutes[60], minutes[240], minutes[15]]
    assert lengths[blocks._spread].tolist() == [minutes[5], minutes[15], minutes[60]]
    assert blocks._squares.lengths == (minutes[5], minutes[15], minutes[60])
    assert blocks._sizes.lengths == (minutes[15],)
    assert longest_window(interval_s) == minutes[240]


# -------------------------------------------------------------------------------------- what touches what


@settings(max_examples=60)
@given(fleets())
def test_a_batch_of_nodes_is_as_many_single_nodes(values: Array) -> None:
    relations = related(values.shape[2])
    together = run(values, relations)
    for node in range(values.shape[1]):
        alone = run(values[:, node : node + 1], relations)
        np.testing.assert_allclose(together[:, node : node + 1], alone, atol=1e-12)


@settings(max_examples=60)
@given(fleets(), st.randoms(use_true_random=False))
def test_the_order_of_features_does_not_matter(values: Array, random: Any) -> None:
    order = list(range(values.shape[2]))
    random.shuffle(order)
    np.testing.assert_array_equal(run(values)[..., order], run(values[..., order]))


@settings(max_examples=60)
@given(fleets())
def test_what_is_missing_now_has_no_residual_now(values: Array) -> None:
    """NaN never becomes 0, in any block."""
    residuals = run(values, related(values.shape[2]))
    assert np.isnan(residuals.transpose(0, 1, 3, 2)[np.isnan(values)]).all()


@settings(max_examples=60)
@given(fleets(), st.integers(0, 2**32 - 1))
def test_a_missing_value_touches_other_features_only_as_one_at_its_centre(values: Array, seed: int) -> None:
    """Nothing but the linear maps sees two features at once, and they see 0 for what is not there."""
    features = values.shape[2]
    gone = np.random.default_rng(seed).random(len(values)) < 0.3
    missing, centred = values.copy(), values.copy()
    missing[gone, :, 0], centred[gone, :, 0] = NAN, 0.0
    relations = related(features)
    others = (slice(None), slice(None), slice(None), slice(1, None))
    with_gap = run(missing, relations)[others]
    np.testing.assert_array_equal(with_gap, run(centred, relations)[others])
    apart = [block for block in range(len(BLOCKS)) if block not in LINEAR]
    np.testing.assert_array_equal(with_gap[:, :, apart], run(values, relations)[others][:, :, apart])


def test_a_gap_in_the_past_is_skipped_by_means_and_levels() -> None:
    values = np.array([1.0, 3.0, NAN, 4.0])[:, None, None]
    residuals = run(values)[:, 0, :, 0]
    np.testing.assert_array_equal(residuals[:, BLOCKS.index("level")], values[:, 0, 0])
    np.testing.assert_array_equal(residuals[:, BLOCKS.index("difference")], [NAN, 2.0, NAN, NAN])
    assert residuals[3, BLOCKS.index("mean_3m_15m")] == pytest.approx(3.5 - 8 / 3)


def test_the_harmless_side_is_silent_and_missing_stays_missing() -> None:
    sides = np.array([SIDES["high"], SIDES["low"], SIDES["both"], SIDES["high"]])
    rises = one_sided(np.array([2.0, 2.0, 2.0, NAN]), sides)
    falls = one_sided(np.array([-2.0, -2.0, -2.0, NAN]), sides)
    np.testing.assert_array_equal(rises, [2.0, 0.0, 2.0, NAN])
    np.testing.assert_array_equal(falls, [0.0, -2.0, -2.0, NAN])


@settings(max_examples=60)
@given(fleets(), st.sampled_from((-1.0, 1.0)))
def test_a_side_silences_values_and_no_spread(values: Array, side: float) -> None:
    """More unrest of a ratio that may fall is still unrest."""
    features = values.shape[2]
    both, one = run(values), run(values, sides=np.full(features, side))
    np.testing.assert_array_equal(one[:, :, TWO_SIDED], both[:, :, TWO_SIDED])
    others = [block for block in range(14) if block not in TWO_SIDED]
    np.testing.assert_array_equal(one[:, :, others], one_sided(both[:, :, others], np.full(features, side)))


# ------------------------------------------------------------------------------------------ what they mean


def test_an_adapted_level_follows_a_lasting_shift_and_the_fixed_one_does_not() -> None:
    values = np.concatenate([np.zeros(200), np.full(400, 2.0)])[:, None, None]
    residuals = np.abs(run(values)[:, 0, :, 0])
    hour, fixed = BLOCKS.index("level_hour"), BLOCKS.index("level")
    assert residuals[201, hour] > 1.5
    assert residuals[-1, hour] < 0.2
    assert residuals[-1, fixed] == 2.0


def test_one_spike_moves_an_adapted_level_little() -> None:
    """Innovations are clipped, so an incident of one tick is not learnt to be normal."""
    values = np.zeros((300, 1, 1))
    values[250] = 50.0
    residuals = run(values)[:, 0, :, 0]
    assert abs(residuals[251, BLOCKS.index("level_day")]) < 0.1


def test_unrest_around_an_unchanged_level_shows_in_the_spreads() -> None:
    values = np.zeros((300, 1, 1))
    values[240:] = np.where(np.arange(60) % 2, 1.0, -1.0)[:, None, None]
    residuals = run(values)[:, 0, :, 0]
    for name in ("spread_5m", "spread_15m", "spread_60m", "spread_day"):
        assert residuals[-1, BLOCKS.index(name)] > residuals[239, BLOCKS.index(name)] + 1.0
    assert residuals[239, CENTRED] == pytest.approx(np.log(0.1))
    assert residuals[-1, BLOCKS.index("spread_60m")] == pytest.approx(0.0, abs=0.02)


def test_a_flat_metric_that_moves_is_large_but_finite_in_every_block() -> None:
    values = np.zeros((300, 1, 1))
    before, last = run(values)[-1, 0, :, 0], run(np.concatenate([values, [[[7.0]]]]))[-1, 0, :, 0]
    assert np.isfinite(last).all()
    assert (np.abs(last - before) > 0.3).all()
    assert last[BLOCKS.index("difference")] == 7.0


def test_a_broken_relation_is_unexplained_and_a_kept_one_is_not() -> None:
    """Two features that move together explain each other; one that moves alone does not."""
    pattern = np.array([[np.sqrt(0.5), np.sqrt(0.5), 0.0]])
    relations = Relations(pattern, np.eye(3), np.zeros((past_width(3), 3)))
    for moved, unexplained in (([3.0, 3.0, 0.0], 0.0), ([3.0, -3.0, 0.0], 3.0), ([0.0, 0.0, 2.0], 2.0)):
        residual = run(np.array([[moved]]), relations)[0, 0, BLOCKS.index("unexplained")]
        assert np.abs(residual).max() == pytest.approx(unexplained, abs=1e-9)


# ------------------------------------------------------------------------------------- levels and restarts


def test_adapted_levels_survive_a_restart() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(600, 2, 3))
    values[rng.random(values.shape) < 0.05] = NAN
    uninterrupted, restarted = (ResidualBlocks(2, np.zeros(3), INTERVAL_S, related(3)) for _ in range(2))
    for row in values[:300]:
        uninterrupted.step(row)
    for row in values[300 - longest_window(INTERVAL_S) : 300]:
        restarted.step(row)
    restarted.restore(uninterrupted.state())
    level_sizes = BLOCKS.index("level_day_15m")  # of levels that were not yet those of before
    for tick, row in enumerate(values[300:]):
        after, before = restarted.step(row), uninterrupted.step(row)
        np.testing.assert_allclose(after[:, level_sizes], before[:, level_sizes], atol=0.1)
        if tick < 15:
            after[:, level_sizes] = before[:, level_sizes]
        np.testing.assert_allclose(after, before, atol=1e-5)


@settings(max_examples=40)
@given(fleets(), st.integers(0, 2**32 - 1))
def test_a_node_that_shall_not_learn_keeps_its_levels_and_the_others_do_not_notice(
    values: Array, seed: int
) -> None:
    ticks, nodes, features = values.shape
    learns = np.random.default_rng(seed).random((ticks, nodes)) < 0.5
    told, free = (
        ResidualBlocks(nodes, np.zeros(features), INTERVAL_S, no_relations(features)) for _ in range(2)
    )
    for row, learn in zip(values, learns, strict=True):
        before = told.state()
        free.restore(before)
        np.testing.assert_array_equal(told.step(row, learn), free.step(row))
        for name, array in told.state().items():
            kept, moved = before[name], free.state()[name]
            np.testing.assert_array_equal(array[..., ~learn, :], kept[..., ~learn, :])
            np.testing.assert_array_equal(array[..., learn, :], moved[..., learn, :])


@pytest.mark.parametrize("name", ["level", "deviation", "seen"])
def test_levels_of_another_shape_are_refused(name: str) -> None:
    state = single(3).state()
    state[name] = state[name][..., :2]
    with pytest.raises(ValueError, match=name):
        single(3).restore(state)


def test_a_state_is_a_copy() -> None:
    blocks = single()
    blocks.step(np.zeros((1, 1)))
    state = blocks.state()
    blocks.step(np.ones((1, 1)))
    assert state["level"][0].max() == 0.0
    assert state["seen"].max() == 1.0


def test_input_is_not_changed() -> None:
    values = np.array([[1.0, NAN]])
    before = values.copy()
    single(2).step(values)
    np.testing.assert_array_equal(values, before)
