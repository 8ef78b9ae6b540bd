"""The simulated fleet: physically plausible, complete over the catalogue, deterministic."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import CATALOGUE
from node_anomaly_trainer.config import SyntheticConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.incidents import INCIDENTS
from node_anomaly_trainer.sources.synthetic import SIGNALS, simulate


def simulated(interval_s=15.0, features=CATALOGUE, seed=7, **settings):
    return simulate(SyntheticConfig(**settings), features, interval_s, seed, ignore_report)


@pytest.fixture(scope="module")
def fleet():
    return simulated()[0]


def column(history, name):
    return history.values[:, :, history.feature_names.index(name)]


def test_every_feature_of_the_catalogue_has_a_signal():
    assert set(SIGNALS) == {feature.name for feature in CATALOGUE}


def test_a_feature_the_simulation_does_not_know_is_refused_by_name():
    strange = replace(CATALOGUE[0], name="quantum_flux_ratio")
    with pytest.raises(SourceError, match="quantum_flux_ratio"):
        simulated(features=(strange,))


def test_three_days_of_eight_nodes_take_less_than_three_seconds():
    begun = time.process_time()
    history, _ = simulated()
    assert time.process_time() - begun < 3.0
    assert history.values.shape == (17_280, 8, len(CATALOGUE))


def test_the_same_seed_gives_the_same_fleet_and_another_one_another():
    again = [simulated(nodes=3, range=7200.0, seed=seed)[0].values for seed in (1, 1, 2)]
    np.testing.assert_array_equal(again[0], again[1])
    assert not np.array_equal(again[0], again[2], equal_nan=True)


def test_a_node_is_the_same_in_a_larger_fleet_and_with_fewer_features():
    small, large = (simulated(nodes=nodes, range=7200.0)[0] for nodes in (2, 5))
    np.testing.assert_array_equal(small.values, large.values[:, :2])
    few, _ = simulated(nodes=2, range=7200.0, features=CATALOGUE[5:9])
    np.testing.assert_array_equal(few.values, small.values[:, :, 5:9])


@pytest.mark.parametrize("interval_s", [1.0, 5.0, 60.0, 300.0])
def test_the_level_of_the_fleet_does_not_depend_on_the_interval(interval_s):
    busy = [
        np.nanmean(column(simulated(interval, nodes=3, range=43_200.0)[0], "cpu_busy_ratio"), axis=0)
        for interval in (15.0, interval_s)
    ]
    np.testing.assert_allclose(busy[0], busy[1], rtol=0.25, atol=0.01)


def test_shares_of_cpu_time_stay_within_one_and_add_up(fleet):
    parts = [column(fleet, f"cpu_{mode}_ratio") for mode in ("user", "system", "softirq")]
    np.testing.assert_allclose(sum(parts), column(fleet, "cpu_busy_ratio"), atol=0.003)
    total = sum(column(fleet, f"cpu_{mode}_ratio") for mode in ("busy", "iowait", "steal"))
    assert np.nanmax(total) <= 1.003
    assert np.nanmin(total) >= 0.0


def test_ratios_are_ratios_and_nothing_but_the_clock_is_negative(fleet):
    for at, feature in enumerate(fleet.features):
        values = fleet.values[:, :, at]
        if feature.unit == "ratio" and not feature.name.endswith("per_cpu_ratio"):
            assert np.nanmax(values, initial=0.0) <= 1.0 + 1e-9, feature.name
        if feature.name != "clock_offset_seconds":
            assert np.nanmin(values, initial=0.0) >= 0.0, feature.name


def test_counts_read_at_one_moment_are_whole_numbers(fleet):
    for name in ("tcp_established_count", "tcp_time_wait_count", "threads_count", "file_descriptors_count"):
        values = column(fleet, name)
        np.testing.assert_array_equal(values[~np.isnan(values)] % 1, 0)


def test_what_a_machine_lacks_is_missing_for_good_and_never_zero(fleet):
    gone = np.isnan(column(simulated(nodes=16, range=7200.0)[0], "temperature_max_celsius")).all(axis=0)
    assert gone.any()
    assert not gone.all()
    steal = column(fleet, "cpu_steal_ratio")
    hot = ~np.isnan(column(fleet, "temperature_max_celsius")).all(axis=0)
    assert np.nansum(steal[:, hot]) == 0.0  # a machine with a thermal zone is no guest


def test_gaps_are_short_and_rare(fleet):
    empty = np.isnan(fleet.values).all(axis=2)
    assert 0.0 < empty.mean() < 0.01


def test_load_pressure_and_packets_follow_their_causes(fleet):
    web = fleet.select_nodes(["web-01"])
    busy = column(web, "cpu_busy_ratio")[:, 0]
    for follower in ("load1_per_cpu_ratio", "context_switches_per_second", "tcp_established_count"):
        other = column(web, follower)[:, 0]
        known = ~np.isnan(busy) & ~np.isnan(other)
        ranks = [np.argsort(np.argsort(values[known])) for values in (busy, other)]
        assert np.corrcoef(*ranks)[0, 1] > 0.8, follower


def test_users_come_by_day(fleet):
    sent = column(fleet.select_nodes(["web-01"]), "network_transmit_bytes_per_second")[:, 0]
    hours = np.nanmean(sent.reshape(3, 24, -1), axis=(0, 2))
    assert hours.max() > 3 * hours.min()


def test_idle_hosts_are_quiet_with_isolated_bursts(fleet):
    idle = fleet.select_nodes([node for node in fleet.nodes if node.startswith("idle")])
    busy, reads = column(idle, "cpu_busy_ratio"), column(idle, "disk_read_bytes_per_second")
    assert np.nanmedian(busy) < 0.05
    assert np.nanmax(busy) > 0.1
    assert np.nanpercentile(reads, 95) == 0.0
    assert np.nanmedian(column(idle, "disk_written_bytes_per_second")) > 0.0


def test_without_incidents_every_tick_is_normal(fleet):
    assert not fleet.labels.any()


def test_incidents_are_labelled_and_every_kind_moves_the_features_it_names():
    calm, _ = simulated(60.0, nodes=8, range=4 * 86400.0)
    stormy, incidents = simulated(60.0, nodes=8, range=4 * 86400.0, incidents_per_node_day=20.0)
    assert {incident.kind for incident in incidents} == set(INCIDENTS)
    moved = dict.fromkeys(INCIDENTS, False)
    for incident in incidents:
        at = stormy.nodes.index(incident.node)
        window = slice(incident.start, incident.stop)
        assert (stormy.labels[window, at] == 1).all()
        for name in incident.features:
            place = stormy.feature_names.index(name)
            difference = np.abs(stormy.values[window, at, place] - calm.values[window, at, place])
            if np.isnan(calm.values[:, at, place]).all():
                continue
            spread = np.nanstd(calm.values[:, at, place]) + calm.features[place].floor
            moved[incident.kind] |= bool((difference > 3 * spread).any())
    assert moved == dict.fromkeys(INCIDENTS, True)


def test_a_cpu_saturation_shows_in_load_and_pressure_too():
    calm, _ = simulated(60.0, nodes=4, range=4 * 86400.0)
    stormy, incidents = simulated(60.0, nodes=4, range=4 * 86400.0, incidents_per_node_day=20.0)
    struck = [i for i in incidents if i.kind == "cpu_saturation" and i.stop - i.start >= 10]
    assert struck
    for incident in struck:
        at, late = stormy.nodes.index(incident.node), slice(incident.start + 5, incident.stop)
        for name in ("cpu_busy_ratio", "load1_per_cpu_ratio", "pressure_cpu_waiting_ratio"):
            place = stormy.feature_names.index(name)
            if not np.isnan(calm.values[:, at, place]).all():
                before, after = (np.nanmean(h.values[late, at, place]) for h in (calm, stormy))
                assert after > before + 0.2, name
