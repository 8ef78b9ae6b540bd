"""Samples in every shape that has ever been trouble, for features that are made of nothing but those."""

from __future__ import annotations

import numpy as np

from node_anomaly_core.expressions import Aggregate, FoldedCount, Gauge, Match, Rate, only, only_rate
from node_anomaly_core.features import Feature
from promwrite import STALE

STEP = 15
TICKS = 900  # 3 h 45 min
NODES = ("a:9100", "b:9100", "c:9100")


def own(name, expression):
    kind = "rate" if any(isinstance(leaf, Rate) for leaf in expression.leaves()) else "gauge"
    return Feature(name, "count", name, "kernel", kind, "both", 1.0, expression)


ODD = (
    own("odd_sum", Aggregate("sum", Gauge("node_odd", "device"))),
    own("odd_max", Aggregate("max", Gauge("node_odd", "device"))),
    own("odd_min", Aggregate("min", Gauge("node_odd", "device"))),
    own("odd_count", Aggregate("count", Gauge("node_odd", "device"))),
    own("odd_share", only("node_odd_one") / only("node_odd_other")),
    own("odd_inverse", 1 - only("node_odd_one")),
    own("odd_rate", Aggregate("sum", Rate("node_odd_total", "device"))),
    own("odd_some_rate", Aggregate("sum", Rate("node_odd_total", "device", (Match("device", "!~", "s.a"),)))),
    own("odd_quotient", Aggregate("max", Rate("node_odd_total", "device") / Gauge("node_odd", "device"))),
    own("odd_devices", only("node_odd_one") / FoldedCount("node_odd", (Match("device", "=~", "sd.*"),))),
    own("odd_one_rate", only_rate("node_odd_one")),
)


def odd_history(start, *, short=False):
    """Series with resets, zeros, NaN, infinities, stale markers, gaps, jitter, births and deaths.

    `short`: only what a server keeps that rounds to 12 digits and knows no NaN but stale markers.
    """
    rng = np.random.default_rng(11)
    many = []
    for number, node in enumerate(NODES):
        for device in ("sda", "sdb", "nvme0n1"):
            for metric in ("node_odd", "node_odd_total"):
                times = 1000 * (start + STEP * np.arange(TICKS)) + 137 * number * (number > 0)
                if number == 2:
                    times = times + rng.integers(-3000, 3000, TICKS)
                values = (_counter if metric == "node_odd_total" else _gauge)(rng)
                if short:
                    values = np.where(np.isnan(values), 0.125, values).round(5)
                keep = _present(device, rng)
                values[rng.integers(0, TICKS, 8)] = STALE
                labels = {"__name__": metric, "instance": node, "job": "node", "device": device}
                many.append((labels, times[keep], values[keep]))
        for metric in ("node_odd_one", "node_odd_other"):
            times = 1000 * (start + STEP * np.arange(TICKS)) + 41 * number
            values = np.round(rng.normal(0.0, 2.0, TICKS))
            # Labels that change: the job is renamed half way, with a stale marker as a scrape leaves it.
            half = TICKS // 2
            ended = np.append(values[:half], STALE)
            labels = {"__name__": metric, "instance": node}
            many.append(({**labels, "job": "node"}, times[: half + 1], ended))
            many.append(({**labels, "job": "node-2"}, times[half + 1 :], values[half + 1 :]))
    return many


def _counter(rng):
    values = _often_zero(rng).cumsum()
    for reset in rng.integers(1, TICKS, 25):
        values[reset:] -= values[reset] * rng.choice([1.0, 0.6])
    return np.abs(values)


def _gauge(rng):
    values = _often_zero(rng)
    values[rng.random(TICKS) < 0.02] = np.nan
    values[rng.random(TICKS) < 0.01] = np.inf
    return values


def _often_zero(rng):
    return np.where(rng.random(TICKS) < 0.4, 0.0, rng.exponential(3.0, TICKS))


def _present(device, rng):
    keep = np.ones(TICKS, dtype=bool)
    for hole in rng.integers(0, TICKS, 6):
        keep[hole : hole + int(rng.integers(1, 60))] = False
    if device == "sdb":
        keep[: TICKS // 3] = False
    if device == "nvme0n1":
        keep[TICKS // 2 :] = False
    return keep
