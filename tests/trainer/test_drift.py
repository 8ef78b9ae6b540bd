"""Distributions of the training data: what belongs to them, what is kept of them, and what has moved."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import small_bundle
from node_anomaly_trainer import drift
from node_anomaly_trainer.dataset import History

TICKS = 1_000


@pytest.fixture
def past() -> History:
    """Whole numbers from 0 to 99, each as often as the others, in every feature of two nodes."""
    made = small_bundle.history()
    values = np.broadcast_to((np.arange(TICKS) % 100.0)[:, None, None], (TICKS, 2, len(made.features)))
    return replace(
        made,
        nodes=made.nodes[:2],
        timestamps=15.0 * np.arange(TICKS),
        values=np.array(values),
        labels=np.zeros((TICKS, 2), dtype=np.int8),
    )


def test_what_was_not_normal_is_no_part_of_how_a_feature_was_distributed(past):
    values, normal = past.values.copy(), np.ones((TICKS, 2), dtype=bool)
    values[100:200, 0], normal[100:200, 0] = 1e6, False
    found = drift.summarise(replace(past, values=values), normal)
    for name, known in drift.summarise(past).items():
        np.testing.assert_array_equal(found[name].quantiles, known.quantiles)
        assert found[name].quantiles[-1] == 99.0


def test_two_distributions_that_do_not_meet_are_as_far_apart_as_can_be_and_the_same_one_not_at_all(past):
    known = drift.summarise(past)[past.feature_names[0]]
    assert drift.ks(known, np.arange(1_000) % 100.0) < 0.011, "to the resolution of the quantiles"
    still = drift.summarise(replace(past, values=np.full_like(past.values, 4.0)))[past.feature_names[0]]
    assert drift.ks(still, np.full(500, 4.0)) == 0.0, "one that never moves"
    assert drift.ks(known, np.full(500, 200.0)) == drift.ks(known, np.full(500, -1.0)) == 1.0


def test_what_moved_farthest_is_told_first_and_what_is_not_known_last(past):
    names = past.feature_names
    values = past.values.copy()
    values[:, :, 0] = np.nan
    values[:, :, 2] += 1e3
    values[::4, :, 3] += 1e3
    found = drift.compare(drift.summarise(past), replace(past, values=values))
    assert [one.feature for one in found[:2]] == [names[2], names[3]]
    assert found[-1].feature == names[0]
    assert math.isnan(found[-1].psi)
    assert not any(math.isnan(one.psi) for one in found[:-1])


def test_of_the_distributions_those_of_bundles_that_are_gone_are_removed(past, tmp_path):
    """A bundle that is still there may be made the current one again."""
    reference = drift.summarise(past)
    for version in ("kept", "gone", "new"):
        (tmp_path / version).mkdir()
        drift.write_reference(tmp_path, version, reference)
    (tmp_path / "gone").rmdir()
    drift.write_reference(tmp_path, "new", reference)
    assert sorted(path.stem for path in (tmp_path / drift.FOLDER).iterdir()) == ["kept", "new"]
