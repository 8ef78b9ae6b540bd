"""Excluded ticks neither fit, nor calibrate, nor judge; enough incidents teach the Random Forest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node_anomaly_core.calibration import MemberScale, Tail
from node_anomaly_core.features import CATALOGUE
from node_anomaly_core.manifest import BOTH_SUMMARIES, Manifest, ModelEntry
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_trainer.calibrate import INCIDENT_SPREAD, calibrate_known, member_scale
from node_anomaly_trainer.candidate import split
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.faults import inject_faults
from node_anomaly_trainer.fitting import (
    BURN_IN_TICKS,
    FOREST_WEIGHT,
    TAUGHT_BY,
    own_incidents,
    training_set,
    with_incidents,
)
from node_anomaly_trainer.parity import forest_parity
from node_anomaly_trainer.pipeline import prepare
from node_anomaly_trainer.progress import SilentProgress, ignore_report
from node_anomaly_trainer.replay import Replayed, fit_cohort, with_summary

TICKS, NODES = 2_000, ("a", "b")
FEATURES = CATALOGUE[:4]
EXCLUDED = slice(300, 500)  # on a
INCIDENT = slice(700, 760)  # on b


@pytest.fixture(scope="module")
def history():
    """Noise, with nonsense where it is excluded or an incident."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0.2, 0.4, (TICKS, 2, len(FEATURES)))
    labels = np.zeros((TICKS, 2), dtype=np.int8)
    values[EXCLUDED, 0] = values[INCIDENT, 1] = 1e9
    labels[EXCLUDED, 0], labels[INCIDENT, 1] = -1, 1
    return History(FEATURES, 15.0, NODES, 15.0 * np.arange(TICKS), values, labels)


@pytest.fixture(scope="module")
def parts(history):
    return split(history, parse_config({"training": {"faults_per_node_day": 100}}))


def numbered(first: int) -> Replayed:
    """Summaries whose every number tells the tick and the node they belong to, counted from `first`."""
    cells = first + np.arange(TICKS * 2, dtype=np.float32).reshape(TICKS, 2, 1)
    rows = np.broadcast_to(cells, (TICKS, 2, SUMMARY_WIDTH))
    compressed = np.zeros((TICKS, 2, len(FEATURES)), dtype=np.float32)
    return Replayed(compressed, np.array(rows), np.array(rows), *[compressed[:, :, 0]] * 2)


@pytest.fixture(scope="module")
def replayed():
    return numbered(0)


@pytest.fixture(scope="module")
def disturbed():
    """The same ticks with faults in them."""
    return numbered(TICKS * 2)


def test_no_fault_is_injected_into_excluded_ticks(history):
    faulted, faults = inject_faults(history, 400.0, 1)
    assert len(faults) > 10
    np.testing.assert_array_equal(faulted.labels[EXCLUDED, 0], -1)
    np.testing.assert_array_equal(faulted.values[EXCLUDED, 0], history.values[EXCLUDED, 0])


def test_baselines_are_those_of_the_normal_ticks_alone(history):
    cohort = fit_cohort(history, ignore_report)
    assert (cohort.node_centre < 1.0).all()
    assert (cohort.node_scale < 1.0).all()
    other = np.array(history.values)
    other[EXCLUDED, 0] = -5e5
    again = fit_cohort(replace(history, values=other), ignore_report)
    for name, tensor in cohort.tensors().items():
        np.testing.assert_array_equal(tensor, again.tensors()[name])


def test_the_scale_of_the_summary_is_that_of_the_normal_ticks_of_the_fitted_part(history):
    normal = np.zeros((1_000, 2), dtype=bool)
    normal[100:201, 1] = True
    cohort = fit_cohort(history, ignore_report)
    replayed = numbered(0)  # one of its own: it is normalised in place
    assert with_summary(replayed, cohort, normal, 15.0)[1].summary_mean == pytest.approx(2 * 150.0 + 1)


@pytest.mark.parametrize("real", [False, True])
def test_the_unsupervised_members_see_neither_incidents_nor_excluded_ticks(parts, replayed, disturbed, real):
    data = training_set(parts, replayed, disturbed, 1, real_labels=real)
    assert len(data.summary) == 2 * (parts.fit.stop - BURN_IN_TICKS) - 200 - 60
    assert not data.mask[EXCLUDED, 0].any()
    assert not data.mask[INCIDENT, 1].any()
    assert data.mask[INCIDENT, 0].all()


def cells(where, node):
    """The numbers of a node's ticks."""
    return set((2.0 * np.arange(where.start, where.stop) + node).tolist())


def taught(data):
    """Numbers of the rows that the Random Forest is taught, anomalous and normal."""
    np.testing.assert_array_equal(data.fault_summary, data.fault_normalised)
    return tuple(set(data.fault_summary[data.fault_labels == label, 0].tolist()) for label in (1, 0))


@pytest.mark.parametrize("real", [False, True])
def test_the_random_forest_learns_from_incidents_only_if_there_are_enough(parts, replayed, disturbed, real):
    anomalous, normal = taught(training_set(parts, replayed, disturbed, 1, real_labels=real))
    anomalous = {number - 2 * TICKS for number in anomalous}  # from the history with faults
    assert (cells(INCIDENT, 1) <= anomalous) == real
    assert bool(cells(INCIDENT, 1) & anomalous) == real
    assert not cells(EXCLUDED, 0) & (anomalous | normal)
    for fault in parts.faults:  # injected ones teach in both cases
        own = cells(slice(max(fault.start, BURN_IN_TICKS), fault.stop), NODES.index(fault.node))
        if fault.stop <= parts.fit.stop:
            assert own - cells(INCIDENT, 1) <= anomalous


def test_enough_incidents_teach_alone_from_the_history_into_which_nothing_was_put(parts, replayed, disturbed):
    data = training_set(parts, replayed, disturbed, 1, real_labels=True)
    data = with_incidents(data, own_incidents(parts, replayed, data))
    assert data.real
    anomalous, normal = taught(data)
    assert anomalous == cells(INCIDENT, 1)
    assert normal == set(data.summary[:, 0].tolist())


def test_a_node_that_was_gone_teaches_nothing(parts, replayed, disturbed):
    """An incident in which nothing was measured says nothing about a node that is there."""
    summary = replayed.summary.copy()
    gone = slice(INCIDENT.start, INCIDENT.start + 20)
    summary[gone, 1] = np.nan
    data = training_set(parts, replayed, disturbed, 1, real_labels=True)
    rows = own_incidents(parts, replace(replayed, summary=summary), data)
    struck = rows.summary[rows.labels == 1]
    assert set(struck[:, 0].tolist()) == cells(slice(gone.stop, INCIDENT.stop), 1)
    summary[INCIDENT, 1] = np.nan
    assert not (own_incidents(parts, replace(replayed, summary=summary), data).labels == 1).any()


def test_the_forest_of_real_incidents_has_the_same_unit_on_every_server():
    """However seldom a server looks like an incident: log-odds mean the same everywhere."""
    scale, tail = MemberScale(0.0, 1.0), Tail((0.0, 1.0), (0.0, -1.0), -1.0)
    rng = np.random.default_rng(0)
    for spread in (0.1, 10.0):
        scores = np.append(rng.normal(-4.0, spread, 999), np.nan)
        real, injected = (
            member_scale(ModelEntry("f", "random_forest", "f.safetensors", given, scale, tail), scores)
            for given in (BOTH_SUMMARIES, "summary")
        )
        assert real.median == injected.median
        assert real.high == real.median + INCIDENT_SPREAD
        assert injected.high == pytest.approx(np.nanquantile(scores, 0.95))


def test_what_is_normal_is_taught_as_it_is_without_any_fault(parts, replayed, disturbed):
    """The same ticks as the unsupervised members see, from the history into which nothing was put."""
    data = training_set(parts, replayed, disturbed, 1, real_labels=True)
    _, normal = taught(data)
    assert max(normal) < 2 * TICKS
    assert normal == set(data.summary[:, 0].tolist())
    assert not normal & cells(INCIDENT, 1)


@pytest.mark.parametrize(("count", "taught_by"), [(4, "summary"), (12, "summary"), (20, BOTH_SUMMARIES)])
def test_a_fleet_with_many_incidents_gets_the_forest_that_a_bench_with_labels_measures(count, taught_by):
    rng = np.random.default_rng(1)
    values = rng.uniform(0.2, 0.4, (TICKS, 2, len(FEATURES)))
    labels = np.zeros((TICKS, 2), dtype=np.int8)
    for start in np.linspace(150, 1_400, count, dtype=int):
        values[start : start + 8, 1] += 0.3
        labels[start : start + 8, 1] = 1
    history = History(FEATURES, 15.0, NODES, 15.0 * np.arange(TICKS), values, labels)
    config = parse_config({"models": {"enabled": ["isolation_forest", "random_forest"]}})
    progress = Noted()
    candidate = prepare(history, config, progress)
    _, forest = candidate.manifest.models
    assert forest.input == taught_by
    assert forest.weight == FOREST_WEIGHT[taught_by == BOTH_SUMMARIES]
    assert forest_parity(candidate) < 1e-12
    assert (
        candidate.manifest.provenance[TAUGHT_BY]
        == {
            4: "injected faults",
            12: "injected faults and 12 incidents",
            20: "20 incidents",
        }[count]
    )
    said = {4: "too few of the 5 needed", 12: "beside injected faults", 20: "which teach it alone"}[count]
    assert f"labels: {count} incidents in the fitted part for the Random Forest, {said}" in progress.notes


def test_incidents_of_which_nothing_was_seen_leave_the_forest_to_injected_faults():
    rng = np.random.default_rng(1)
    values = rng.uniform(0.2, 0.4, (TICKS, 2, len(FEATURES)))
    labels = np.zeros((TICKS, 2), dtype=np.int8)
    for start in np.linspace(150, 1_400, 20, dtype=int):
        values[start : start + 8, 1] = np.nan
        labels[start : start + 8, 1] = 1
    history = History(FEATURES, 15.0, NODES, 15.0 * np.arange(TICKS), values, labels)
    config = parse_config({"models": {"enabled": ["isolation_forest", "random_forest"]}})
    progress = Noted()
    _, forest = prepare(history, config, progress).manifest.models
    assert forest.input == "summary"
    assert any(line.endswith("beside injected faults") for line in progress.notes)


class Noted(SilentProgress):
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, line):
        self.notes.append(line)


def test_calibration_does_not_look_at_excluded_ticks(history):
    labels = np.zeros((TICKS, 2), dtype=np.int8)
    labels[1_600:1_700, 0] = -1
    parts = split(replace(history, labels=labels), parse_config({}))
    scores = np.random.default_rng(2).normal(size=(TICKS, 2))
    wild = scores.copy()
    wild[1_600:1_700, 0] = 1e6
    scale, tail = MemberScale(0.0, 1.0), Tail((0.0, 1.0), (0.0, -1.0), -1.0)
    model = ModelEntry("m", "isolation_forest", "m.safetensors", "summary", scale, tail)
    manifest = Manifest(FEATURES, 15.0, (model,), tail, 1.0, 0.0, "trained", NODES, {}, {})
    calm, disturbed = (
        calibrate_known(parts, {"m": raw}, manifest, parts.calibration) for raw in (scores, wild)
    )
    assert calm == disturbed
