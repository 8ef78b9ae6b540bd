"""A simulated fleet: history to train on before there is any, and a stage on which every fault is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError
from node_anomaly_core.features import Feature
from node_anomaly_trainer.config import SyntheticConfig
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL, History
from node_anomaly_trainer.faults import Fault
from node_anomaly_trainer.progress import Report
from node_anomaly_trainer.sources.demand import build_demand
from node_anomaly_trainer.sources.fleet import Machine, build_fleet
from node_anomaly_trainer.sources.incidents import add_incidents
from node_anomaly_trainer.sources.log_signals import LOG_SIGNALS
from node_anomaly_trainer.sources.signals import SIGNALS as HOST_SIGNALS
from node_anomaly_trainer.sources.signals import run_node, trailing_mean

SIGNALS = {**HOST_SIGNALS, **LOG_SIGNALS}
"""How each feature of the catalogue is read off a simulated node."""

START = 1_767_571_200.0
"""Monday 2026-01-05 00:00 UTC: the same history on every day it is made."""

RATE_TICKS = 3
"""A rate over a window of four intervals sees four samples, so three intervals."""

GAPS_PER_DAY = 0.3
LONGEST_GAP_TICKS = 20


def read_synthetic(
    config: SyntheticConfig, features: Sequence[Feature], interval_s: float, seed: int, report: Report
) -> History:
    """The history of a simulated fleet; only that, see `simulate` for the incidents too."""
    return simulate(config, features, interval_s, seed, report)[0]


def simulate(
    config: SyntheticConfig, features: Sequence[Feature], interval_s: float, seed: int, report: Report
) -> tuple[History, list[Fault]]:
    """History of `config.nodes` nodes and the incidents in it, in time order per node; labels are all known.

    The same seed gives the same numbers, whatever the number of nodes and whichever features are asked for.
    Raises SourceError for a feature the simulation does not know.
    """
    unknown = [feature.name for feature in features if feature.name not in SIGNALS]
    if unknown:
        raise SourceError(
            f"the synthetic fleet has no feature {unknown[0]!r}",
            "leave it out of `features`, or read history that has it from a file or Prometheus",
        )
    ticks = max(int(config.range // interval_s), 1)
    timestamps = START + interval_s * np.arange(1, ticks + 1, dtype=np.float64)
    machines = build_fleet(config.nodes, seed)
    values = np.empty((ticks, len(machines), len(features)))
    labels = np.full((ticks, len(machines)), NORMAL, dtype=np.int8)
    incidents: list[Fault] = []
    for at, machine in enumerate(machines):
        demand = build_demand(machine, timestamps, interval_s, np.random.default_rng([seed, at, 1]))
        happened = add_incidents(
            machine,
            demand,
            interval_s,
            config.incidents_per_node_day,
            np.random.default_rng([seed, at, 2]),
        )
        state = run_node(machine, demand, interval_s, np.random.default_rng([seed, at, 3]))
        for column, feature in enumerate(features):
            # Its own stream for each signal, so that a shorter list of features changes no other.
            number = list(SIGNALS).index(feature.name)
            own = replace(state, rng=np.random.default_rng([seed, at, 4, number]))
            signal = SIGNALS[feature.name](own)
            rate = feature.kind == "rate"
            values[:, at, column] = trailing_mean(signal, RATE_TICKS) if rate else signal
        values[_gaps(ticks, interval_s, np.random.default_rng([seed, at, 5])), at] = np.nan
        for incident in happened:
            labels[incident.start : incident.stop, at] = ANOMALOUS
        incidents += happened
        report((at + 1) / len(machines), machine.name)
    history = History(
        features=tuple(features),
        interval_s=interval_s,
        nodes=tuple(machine.name for machine in machines),
        timestamps=timestamps,
        values=values,
        labels=labels,
        origin={
            "source": "synthetic",
            "nodes": str(config.nodes),
            "seed": str(seed),
            "roles": _roles(machines),
        },
    )
    return history, incidents


def _gaps(ticks: int, interval_s: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Ticks at which the exporter did not answer."""
    missing = np.zeros(ticks, dtype=bool)
    for start in rng.integers(0, ticks, rng.poisson(GAPS_PER_DAY * ticks * interval_s / 86400.0)):
        missing[start : start + int(rng.integers(1, LONGEST_GAP_TICKS))] = True
    return missing


def _roles(machines: Sequence[Machine]) -> str:
    names = [machine.role.name for machine in machines]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
