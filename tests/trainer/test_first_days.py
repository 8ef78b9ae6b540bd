"""bench/first_days.py and bench/fresh_threshold.py: a first day is one, and its figures are counted right."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import agent_bundle
from bench_data import INTERVAL_S, write_folder
from bench_programs import program
from node_anomaly_core.bundle import verify_bundle
from node_anomaly_core.calibration import fit_tail
from node_anomaly_core.members import Models
from node_anomaly_core.steady import peak_held
from node_anomaly_trainer.bench.data import read_manifest

DAY = 86_400 // INTERVAL_S
DAYS = 6


@pytest.fixture
def fresh(monkeypatch):
    return program("fresh_threshold", monkeypatch)


def test_a_promise_of_louder_nodes_is_the_same_tail_further_out(fresh):
    tail = fit_tail([peak_held(np.random.default_rng(1).exponential(size=20 * DAY))], INTERVAL_S, 7.0)
    assert fresh.stretched(tail, 2.5).alarm_level() == pytest.approx(2.5 * tail.alarm_level())
    assert fresh.stretched(tail, 2.5).alarm_level(30.0) == pytest.approx(2.5 * tail.alarm_level(30.0))


def test_each_start_knows_nothing_of_what_was_before_and_events_are_counted_in_their_span(
    fresh, monkeypatch, tmp_path
):
    variants = sys.modules["bench.ablation_variants"]
    random = np.random.default_rng(3)
    label = np.zeros(DAYS * DAY, dtype=np.uint8)
    label[DAY // 2 : DAY // 2 + 30] = 1
    train = random.normal(size=(2 * DAY, 1)).astype(np.float32)
    test = random.normal(size=(len(label), 1)).astype(np.float32)
    arrays = {
        "train": train, "test": test, "label": label,
        "columns": np.array(["load"]), "interval_s": np.array(INTERVAL_S),
    }  # fmt: skip
    (entry,) = read_manifest(write_folder(tmp_path, {"set/one": arrays}))
    lived = random.gamma(2.0, size=3 * DAY + len(label))
    lived[3 * DAY + DAY // 2 :][:30] += 60.0
    lived[: 3 * DAY][100:200] += 500.0  # before the test: of no start's business
    members = dict.fromkeys(variants.PRODUCT, lived)
    calm = dict.fromkeys(variants.PRODUCT, np.where(lived > 100.0, 1.0, lived)[: 3 * DAY])
    measured = variants.Measured(calm, members, dict.fromkeys(members, 1.0), dict.fromkeys(members, 1.0))
    found = fresh.figures_of(entry, measured)
    starts = range(0, len(label) - round(3.5 * DAY), round(fresh.EVERY_S / INTERVAL_S))
    assert {len(one) for one in found.values()} == {len(starts)}
    first = found["a week", 1.0, "first day"]
    assert [one.events for one in first] == [1, 0]
    assert first[0].caught == 1
    assert sum(one.events for one in found["a week", 1.0, "until 3.5 days"]) == 0
    assert sum(one.false_alarms for one in found["a day", 0.6, "first day"]) >= sum(
        one.false_alarms for one in found["a day", 2.5, "first day"]
    )


def test_a_scorer_lives_through_idle_rows_and_then_the_fault(monkeypatch, tmp_path):
    days = program("first_days", monkeypatch)
    bundle = verify_bundle(agent_bundle.make_bundle(tmp_path, alarm_log10p=-2.0))
    width = len(bundle.manifest.features)
    idle = np.random.default_rng(4).normal(10.0, 0.1, size=(40, width))
    broken = np.random.default_rng(5).normal(10.0, 0.1, size=(12, width))
    broken[:, :20] += 500.0
    found = days.live(bundle, idle, ("cpu", broken), 1.0, Models(bundle))
    assert found.highest_idle < 1.0 <= found.highest
    assert found.ticks_to_alarm == days.HOLD_TICKS
    names = [feature.name for feature in bundle.manifest.features]
    assert set(found.reasons) <= set(names[:20])
    calm = days.live(bundle, idle, ("cpu", idle), 1.0, Models(bundle))
    assert calm.ticks_to_alarm is None
