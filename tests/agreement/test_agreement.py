"""The number the agent computes and the number PromQL computes from node_exporter are the same number."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

import rig
from agreement.comparison import Agreement, compare
from node_anomaly_core.catalogue import CATALOGUE, FEATURES_BY_NAME

TOLERANCE = 0.02
SHORT_WINDOW = 2.5
"""The tolerances are for the bench's interval. In a window of six seconds one 10 ms tick of the kernel's CPU
counters, and the few ms between the two ends, weigh this much more."""
FEATURE = replace(CATALOGUE[0], floor=0.1)


class TestComparison:
    def test_differences_are_relative_to_the_larger_end_or_the_floor(self) -> None:
        """1 against 2 is half; 0 against 0.01 is a tenth of the floor 0.1; equal is nothing."""
        found = compare(FEATURE, {1: 1.0, 2: 0.0, 3: 5.0}, {1: 2.0, 2: 0.01, 3: 5.0}, [1, 2, 3])
        assert (found.instants, found.one_sided) == (3, 0)
        assert found.median == pytest.approx(0.1)
        assert found.p95 == pytest.approx(0.5)

    @pytest.mark.parametrize(("agent", "node"), [({1: 1.0}, {1: 1.0, 2: 1.0}), ({1: 1.0, 2: 1.0}, {1: 1.0})])
    def test_a_value_at_one_end_only_is_a_complaint(
        self, agent: dict[int, float], node: dict[int, float]
    ) -> None:
        """However well the rest agrees."""
        found = compare(FEATURE, agent, node, [1, 2])
        assert found.median == 0
        assert "1 of 2 instants at one end only" in found.complaint()

    def test_missing_at_both_ends_is_no_complaint(self) -> None:
        """A host without swap has no swap at either end."""
        found = compare(FEATURE, {}, {}, [1, 2])
        assert found.missing
        assert found.complaint() == ""

    def test_a_median_above_the_catalogues_tolerance_is_a_complaint(self) -> None:
        """The tolerance is the catalogue's, by the feature's name."""
        row = Agreement("memory_available_ratio", 10, 0, 0.5, TOLERANCE * 1.01, 0.5)
        assert "median difference" in row.complaint()
        assert replace(row, median=TOLERANCE).complaint() == ""


@pytest.mark.parametrize("feature", CATALOGUE, ids=lambda f: f.name)
def test_a_wider_tolerance_has_a_reason(feature: Any) -> None:
    """2 % of the median is the rule; an exception says why in a sentence."""
    assert (feature.tolerance > TOLERANCE) == bool(feature.tolerance_reason)
    assert feature.tolerance <= 1.0


def compared_live() -> dict[str, Any]:
    """What bench/agreement.py finds in half a minute."""
    program = rig.REPOSITORY / "bench" / "agreement.py"
    done = subprocess.run(
        [sys.executable, str(program), "--interval=2", "--seconds=36", "--json"],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def far_apart(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Median difference of the features that are further apart than so short a window explains."""
    return {
        row["feature"]: row["median"]
        for row in rows
        if row["instants"] and row["median"] > SHORT_WINDOW * FEATURES_BY_NAME[row["feature"]].tolerance
    }


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_every_feature_agrees_with_prometheus_under_load() -> None:
    """A real node_exporter, a real Prometheus and the agent look at this host while it works.

    A formula that is wrong is wrong every time; a busy machine that takes a scrape late is not. So what is
    far apart is looked at a second time.
    """
    rig.need(rig.PROMETHEUS)
    rig.need(rig.NODE_EXPORTER)
    answer = compared_live()
    rows = answer["features"]
    assert [row["feature"] for row in rows] == list(FEATURES_BY_NAME)
    assert [row["complaint"] for row in rows if row["one_sided"]] == []
    if far := far_apart(rows):
        again = far_apart(compared_live()["features"])
        assert not far.keys() & again.keys(), (far, again)
    compared = {row["feature"] for row in rows if row["instants"] >= 15}
    assert {"cpu_busy_ratio", "memory_available_ratio", "tcp_time_wait_count", "forks_per_second"} <= compared
    if answer["network_load"]:
        busy = {row["feature"]: row["typical"] for row in rows}
        assert busy["network_transmit_bytes_per_second"] > 1e5
        assert busy["network_receive_bytes_per_second"] > 1e5
