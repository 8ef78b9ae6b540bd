"""A real Prometheus with six hours of a small fleet in trouble; every tick of it is known exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import rig
from node_anomaly_core.features import FEATURES_BY_NAME
from node_anomaly_trainer.config import PrometheusConfig
from node_anomaly_trainer.dataset import History

STEP = 15
START = 1_767_571_200
TICKS = 1_440
LOOKBACK = 300 // STEP  # a backfilled series has no end marker: it is seen for five more minutes

DB, WEB, KUBE = "db-1:9100", "web-1:9100", "10.0.0.3:9100"
NODES = (KUBE, DB, WEB)

DISK_FULL = slice(400, 480)  # on DB, by the label instance
CRASHING = slice(720, 740)  # on KUBE, by the label node and its host name
CORDONED = slice(900, 1_000)  # KUBE
AWAY = slice(520, 600)  # WEB is down for twenty minutes and comes back rebooted
REBOOTED = slice(600, 640)  # and is up for less than ten minutes until here


def server_config(server: rig.Service, **settings: object) -> PrometheusConfig:
    """How to read the whole range of it."""
    return PrometheusConfig(
        url=server.url, range=STEP * TICKS, end=START + STEP * TICKS - STEP, matchers='job="node"', **settings
    )


def fleet_history(nodes: tuple[str, ...] = NODES, ticks: int = TICKS) -> History:
    """A history on the same grid in which every value is there and nobody has labelled anything."""
    feature = FEATURES_BY_NAME["memory_available_ratio"]
    return History(
        features=(feature,),
        interval_s=float(STEP),
        nodes=nodes,
        timestamps=START + STEP * np.arange(ticks, dtype=np.float64),
        values=np.zeros((ticks, len(nodes), 1)),
        labels=np.full((ticks, len(nodes)), -1, dtype=np.int8),
        origin={"source": "prometheus"},
    )


@contextlib.contextmanager
def fleet_server(folder: Path) -> Iterator[rig.Service]:
    """Backfilled and started; stopped at the end of the block."""
    lines = []
    for family, series in _families().items():
        lines.append(f"# TYPE {family} gauge")
        for labels, samples in series:
            lines += [f"{family}{{{labels}}} {value} {START + STEP * tick}" for tick, value in samples]
    rig.backfill(folder, "\n".join([*lines, "# EOF", ""]))
    with rig.prometheus(folder, {}) as running:
        yield running


Samples = list[tuple[int, float]]


def _families() -> dict[str, list[tuple[str, Samples]]]:
    ksm = 'instance="10.9.9.9:8080",job="kube-state-metrics"'
    firing = 'alertstate="firing"'
    return {
        "ALERTS": [
            (f'alertname="DiskFull",{firing},instance="{DB}",severity="page"', _during(DISK_FULL)),
            (f'alertname="PodCrashing",{firing},node="k8s-3",{ksm}', _during(CRASHING)),
            (f'alertname="HighLoad",alertstate="pending",instance="{WEB}"', _during(slice(100, 200))),
            (f'alertname="NodeAnomalous",{firing},instance="{DB}"', _during(slice(1_100, 1_200))),
            (f'alertname="Watchdog",{firing}', _during(slice(0, TICKS))),
            (f'alertname="TargetDown",{firing},instance="gone:9100"', _during(slice(300, 340))),
        ],
        "node_boot_time_seconds": [
            # Every host has a clock that is corrected by a second now and then: no reboot.
            (_node(DB), [(tick, START - 1e6 + (tick > 200)) for tick in range(TICKS)]),
            (_node(KUBE), [(tick, START - 2e6) for tick in range(TICKS)]),
            (
                _node(WEB),
                [(tick, START - 3e6) for tick in range(AWAY.start)]
                + [(tick, START + STEP * AWAY.stop) for tick in range(AWAY.stop, TICKS)],
            ),
        ],
        "node_uname_info": [
            (f'{_node(KUBE)},nodename="k8s-3"', _during(slice(0, TICKS))),
            (f'{_node(DB)},nodename="db-1"', _during(slice(0, TICKS))),
        ],
        "kube_node_spec_unschedulable": [
            (
                f'node="k8s-3",{ksm}',
                [(tick, float(CORDONED.start <= tick < CORDONED.stop)) for tick in range(TICKS)],
            ),
            (f'node="k8s-9",{ksm}', _during(slice(40, 80))),
        ],
        "node_memory_MemTotal_bytes": [
            *((_node(node), _constant(1e9)) for node in NODES),
            (f'instance="{DB}",job="node-copy"', _constant(1e9)),  # scraped by a second job
        ],
        "node_memory_MemAvailable_bytes": [(_node(node), _constant(4e8)) for node in NODES],
        "up": [(_node(node), _constant(1.0)) for node in NODES],
    }


def _node(instance: str) -> str:
    return f'instance="{instance}",job="node"'


def _during(ticks: slice) -> Samples:
    return [(tick, 1.0) for tick in range(ticks.start, ticks.stop)]


def _constant(value: float) -> Samples:
    return [(tick, value) for tick in range(TICKS)]
