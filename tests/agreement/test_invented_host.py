"""Swap, temperatures and OOM kills agree too, on a host that has them: one /proc and /sys for both ends."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import rig
from agreement.comparison import WINDOW_TICKS, measure
from agreement.invented_host import PER_SECOND, SWAP_FREE_KIB, SWAP_TOTAL_KIB, TEMPERATURES, invented_host
from agreement.stage import stage

INTERVAL_S = 1.0
SECONDS = 15.0

RATES = {
    "swap_in_pages_per_second": PER_SECOND["pswpin"],
    "swap_out_pages_per_second": PER_SECOND["pswpout"],
    "major_page_faults_per_second": PER_SECOND["pgmajfault"],
    "oom_kills_per_second": PER_SECOND["oom_kill"],
}
LEVELS = {
    "swap_used_ratio": 1.0 - SWAP_FREE_KIB / SWAP_TOTAL_KIB,
    "temperature_max_celsius": max(v for k, v in TEMPERATURES.items() if "thermal" in k) / 1000.0,
    "sensor_temperature_max_celsius": max(v for k, v in TEMPERATURES.items() if "hwmon" in k) / 1000.0,
    "conntrack_used_ratio": 655 / 65_536,
}


@pytest.mark.e2e
@pytest.mark.alone
@pytest.mark.timeout(120)
def test_what_this_host_may_lack_agrees_on_one_that_has_it(tmp_path: Path) -> None:
    """node_exporter, Prometheus and the agent look at swap in use, warming sensors and killed processes."""
    rig.need(rig.PROMETHEUS)
    rig.need(rig.NODE_EXPORTER)
    with invented_host(tmp_path) as root, stage(tmp_path / "stage", INTERVAL_S, root) as running:
        time.sleep((WINDOW_TICKS + 1) * INTERVAL_S)
        since = time.time()
        time.sleep(SECONDS)
        found = {row.feature: row for row in measure(running, since)}
    rows = [found[name] for name in (*RATES, *LEVELS)]
    assert [row.complaint() for row in rows if row.complaint()] == []
    assert all(row.instants >= SECONDS / INTERVAL_S / 2 for row in rows)
    # Not merely alike: what was put there is what both say.
    assert {name: found[name].typical for name in RATES} == pytest.approx(RATES, rel=0.1)
    for name, at_first in LEVELS.items():
        assert at_first <= found[name].typical <= 1.25 * at_first, name
