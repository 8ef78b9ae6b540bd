"""Where history comes from: a simulated fleet, a file, or Prometheus."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from node_anomaly_core.score import LARGEST
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.faults import Fault
from node_anomaly_trainer.own_features import known_features, wanted_features
from node_anomaly_trainer.progress import Note, Report, ignore_report
from node_anomaly_trainer.sources.admission import Admit, admit_any

__all__ = ["disturbed", "fetch", "wanted_features"]


def fetch(config: TrainConfig, report: Report, note: Note, admit: Admit = admit_any) -> History:
    """The history that the configuration asks for; what a node would take for no measurement is missing.

    `admit` hears how many nodes, ticks and features it will have, before memory is taken for them.
    Raises SourceError or ConfigError, and what `admit` raises.
    """
    return _measurable(_read(config, report, note, admit), note)


def _measurable(history: History, note: Note) -> History:
    """The history without values that are no measurement for a node either (core's score.py)."""
    lost, values = 0, history.values
    for node in range(len(history.nodes)):  # one at a time: a fleet fills the memory
        absurd = np.abs(values[:, node]) >= LARGEST
        if found := int(np.count_nonzero(absurd)):
            values = values if values.flags.writeable else values.copy()  # a file's is a view
            values[:, node][absurd] = np.nan
            lost += found
    if not lost:
        return history
    note(f"history: values that are infinite or beyond {LARGEST:g} count as missing: {lost:,}")
    return replace(history, values=values)


def _read(config: TrainConfig, report: Report, note: Note, admit: Admit) -> History:
    # Each source is imported when it is asked for: pandas and an HTTP client are slow to load.
    source, interval_s = config.source, config.interval
    features = wanted_features(config)
    if source.type == "file":
        from node_anomaly_trainer.sources.file import read_file

        def admit_chosen(nodes: int, ticks: int, columns: int) -> None:
            admit(nodes, ticks, len(config.features) or columns)

        known = known_features(config)
        history = read_file(source.file, known, interval_s, report, note, admit=admit_chosen)
        return history.select_features(config.features) if config.features else history
    if source.type == "prometheus":
        from node_anomaly_trainer.sources.prometheus import read_prometheus

        return read_prometheus(source.prometheus, features, interval_s, report, note, admit=admit)
    from node_anomaly_trainer.sources.synthetic import read_synthetic

    admit(source.synthetic.nodes, int(source.synthetic.range // interval_s), len(features))
    return read_synthetic(source.synthetic, features, interval_s, config.training.seed, report)


def disturbed(config: TrainConfig, rate_per_node_day: float) -> tuple[History, list[Fault]] | None:
    """The same simulated fleet with incidents of a physical cause, labelled, and their list.

    None for a real one: nobody can have a real fleet live through its days a second time.
    """
    if config.source.type != "synthetic":
        return None
    from node_anomaly_trainer.sources.synthetic import simulate

    stage = replace(config.source.synthetic, incidents_per_node_day=rate_per_node_day)
    return simulate(stage, wanted_features(config), config.interval, config.training.seed, ignore_report)
