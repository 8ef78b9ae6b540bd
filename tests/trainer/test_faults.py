"""Injected faults: labelled exactly, visible, separated, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_anomaly_core.features import CATALOGUE
from node_anomaly_trainer.config import SyntheticConfig
from node_anomaly_trainer.faults import (
    KINDS,
    SEPARATION_TICKS,
    fault_windows,
    inject_faults,
    observed_scale,
)
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.synthetic import simulate


@pytest.fixture(scope="module")
def fleet():
    config = SyntheticConfig(nodes=4, range=2 * 86400.0)
    return simulate(config, CATALOGUE, 60.0, 3, ignore_report)[0]


def test_labels_are_one_exactly_where_a_fault_is_listed(fleet):
    faulty, faults = inject_faults(fleet, 12.0, 5)
    expected = np.zeros_like(fleet.labels)
    for fault in faults:
        expected[fault.start : fault.stop, fleet.nodes.index(fault.node)] = 1
    np.testing.assert_array_equal(faulty.labels, expected)
    assert len(faults) > 40


def test_only_the_listed_features_change_and_only_inside_the_fault(fleet):
    faulty, faults = inject_faults(fleet, 12.0, 5)
    touched = np.zeros(fleet.values.shape, dtype=bool)
    for fault in faults:
        columns = [fleet.feature_names.index(name) for name in fault.features]
        touched[fault.start : fault.stop, fleet.nodes.index(fault.node), columns] = True
    changed = ~np.isclose(faulty.values, fleet.values, rtol=0, atol=0, equal_nan=True)
    assert not (changed & ~touched).any()


def test_every_fault_changes_something_and_each_kind_occurs(fleet):
    faulty, faults = inject_faults(fleet, 30.0, 5)
    assert {fault.kind for fault in faults} == set(KINDS)
    for fault in faults:
        at = fleet.nodes.index(fault.node)
        window = slice(fault.start, fault.stop)
        assert not np.array_equal(faulty.values[window, at], fleet.values[window, at], equal_nan=True)


def test_missing_stays_missing_ratios_stay_ratios_and_counts_stay_positive(fleet):
    faulty, _ = inject_faults(fleet, 30.0, 6)
    np.testing.assert_array_equal(np.isnan(faulty.values), np.isnan(fleet.values))
    for column, feature in enumerate(fleet.features):
        values, before = faulty.values[:, :, column], fleet.values[:, :, column]
        if feature.unit == "ratio" and np.nanmax(before, initial=0.0) <= 1.0:
            assert np.nanmax(values, initial=0.0) <= 1.0
        if np.nanmin(before, initial=0.0) >= 0.0:
            assert np.nanmin(values, initial=0.0) >= 0.0


def test_the_same_seed_gives_the_same_faults_and_the_input_is_not_changed(fleet):
    before = fleet.values.copy()
    first, listed = inject_faults(fleet, 8.0, 1)
    second, again = inject_faults(fleet, 8.0, 1)
    assert listed == again
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(fleet.values, before)
    assert inject_faults(fleet, 8.0, 2)[1] != listed


def test_no_fault_lies_on_ticks_that_are_anomalous_already():
    config = SyntheticConfig(nodes=2, range=2 * 86400.0, incidents_per_node_day=20.0)
    fleet, _ = simulate(config, CATALOGUE, 60.0, 3, ignore_report)
    _, faults = inject_faults(fleet, 30.0, 5)
    assert faults
    for fault in faults:
        assert not fleet.labels[fault.start : fault.stop, fleet.nodes.index(fault.node)].any()


@settings(max_examples=60)
@given(st.integers(0, 20_000), st.floats(1, 300), st.floats(0, 500), st.integers(0, 2**31))
def test_fault_windows_are_ordered_separated_and_inside(ticks, interval_s, rate, seed):
    windows = fault_windows(ticks, interval_s, rate, np.random.default_rng(seed))
    edge = 0
    for start, stop in windows:
        assert start >= edge
        assert 3 <= stop - start <= max(7200 / interval_s, 4)
        edge = stop + SEPARATION_TICKS
    assert not windows or windows[-1][1] <= ticks


def test_a_history_too_short_for_a_fault_gets_none(fleet):
    faulty, faults = inject_faults(fleet.between(0, 0.01), 100.0, 1)
    assert faults == []
    assert not faulty.labels.any()


def test_the_scale_of_a_column_without_samples_is_unknown_and_a_flat_one_has_its_floor():
    values = np.array([[np.nan, 0.0], [np.nan, 0.0]])
    np.testing.assert_array_equal(observed_scale(values, np.array([1.0, 0.5])), [np.nan, 0.5])
