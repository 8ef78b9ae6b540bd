"""What Prometheus 3 counts differently, and that it is no difference to what a node counts."""

from __future__ import annotations

import time

import numpy as np
import pytest

import rig
from node_anomaly_core.expressions import only_rate
from node_anomaly_core.rates import CounterWindow
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources.prometheus import read_prometheus
from odd_series import STEP, own
from promwrite import write

TICKS = 240
FULL = slice(6, None)  # of ticks whose window the series fills
SHIFT_MS = 137
"""Of the samples to the ticks, for one of the two nodes. Prometheus spreads its scrapes over the interval."""

FEATURE = own("some_rate", only_rate("node_bursts_total"))
COUNTER = 1e6 + np.cumsum(np.random.default_rng(3).exponential(3.0, TICKS).round(3))


def on_the_node():
    """Rate (t,) that an agent has at each of its ticks, which are the samples'."""
    window = CounterWindow(4.0 * STEP)
    window.relayout([("node_bursts_total", "")])
    return np.array([window.push(1e9 + STEP * at, np.array([one]))[0] for at, one in enumerate(COUNTER)])


@pytest.fixture(scope="module", params=rig.PROMETHEUSES, ids=lambda part: part.name)
def rates(request, tmp_path_factory):
    """By each route (t, nodes): a node beside the ticks and one on them; and whether left ends are open."""
    start = (int(time.time()) - STEP * (TICKS + 60)) // STEP * STEP
    at = 1000 * (start + STEP * np.arange(TICKS))
    many = [
        ({"__name__": "node_bursts_total", "instance": node, "job": "node"}, at + shift, COUNTER)
        for node, shift in (("on", 0), ("beside", SHIFT_MS))
    ]
    found = {}
    with rig.prometheus(tmp_path_factory.mktemp("rates"), {}, part=request.param) as server:
        write(server.url, many)
        for route in ("api", "remote_read"):
            config = PrometheusConfig(
                url=server.url, range=TICKS * STEP, end=start + (TICKS - 1) * STEP, route=route
            )
            history = read_prometheus(config, [FEATURE], float(STEP), ignore_report, [].append)
            assert history.nodes == ("beside", "on")
            found[route] = history.values[:, :, 0]
    return found, rig.major_version(str(rig.need(request.param))) >= 3


def test_both_routes_count_alike_on_both_versions(rates):
    found, _ = rates
    assert found["api"].tobytes() == found["remote_read"].tobytes()


def test_samples_beside_the_ticks_give_a_nodes_rate_on_both_versions(rates):
    """A window of four intervals holds four samples then, as on the node; the last one is a tick old."""
    found, _ = rates
    np.testing.assert_allclose(found["api"][FULL, 0], on_the_node()[FULL.start - 1 : -1], rtol=1e-9)


def test_samples_on_the_ticks_give_a_nodes_rate_where_the_left_end_is_open(rates):
    """Before 3.0 the window holds a fifth sample, and the rate is that of an interval more."""
    found, left_open = rates
    on_tick = found["api"][FULL, 1]
    if left_open:
        np.testing.assert_allclose(on_tick, on_the_node()[FULL], rtol=1e-9)
    else:
        longer = (COUNTER[4:] - COUNTER[:-4]) / (4.0 * STEP)
        np.testing.assert_allclose(on_tick, longer[FULL.start - 4 :], rtol=1e-9)
