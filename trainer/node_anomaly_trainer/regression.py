"""What people called a false alarm, scored again by a candidate: it must be silent there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.members import Models
from node_anomaly_core.residuals import longest_window
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer.dataset import ANOMALOUS, History
from node_anomaly_trainer.evaluate import RegressionSet, raised
from node_anomaly_trainer.feedback import Verdict
from node_anomaly_trainer.node_names import NodeNames

MOST_REPLAYED = 100
"""The latest verdicts; each costs a few hours of one node's life, a second or so."""

LEAD_IN_TICKS = 60

Report = Callable[[float, str], None]


def replay_false_alarms(
    bundle: Bundle, history: History, verdicts: Sequence[Verdict], report: Report
) -> RegressionSet:
    """Let the node live through each false alarm with this bundle, as an agent that knows it would.

    The scorer starts with its longest window before the alarm and uses the trained threshold: what the node's
    own rolling threshold might have forgiven is not relied on. A real incident on the same ticks counts not.
    """
    names = NodeNames(history.nodes)
    windows = []
    for verdict in verdicts:
        start, stop = (
            int(np.searchsorted(history.timestamps, moment)) for moment in (verdict.start, verdict.stop)
        )
        found = names.find(verdict.node) if stop > start else ()
        windows += [(verdict, at, start, stop) for at in found]
    chosen = windows[-MOST_REPLAYED:]
    models = Models(bundle)
    alarmed = []
    for number, (verdict, at, start, stop) in enumerate(chosen):
        report(number / len(chosen), str(verdict))
        if _alarms(bundle, models, history, at, start, stop):
            alarmed.append(str(verdict))
    tested = {verdict for verdict, *_ in chosen}
    return RegressionSet(len(tested), tuple(dict.fromkeys(alarmed)), len(verdicts) - len(tested))


def _alarms(bundle: Bundle, models: Models, history: History, at: int, start: int, stop: int) -> bool:
    first = max(0, start - longest_window(history.interval_s) - LEAD_IN_TICKS)
    scorer = NodeScorer(bundle, history.interval_s, history.nodes[at], models, threshold_update_s=math.inf)
    scores = np.array(
        [
            scorer.step(float(history.timestamps[tick]), history.values[tick, at]).score
            for tick in range(first, stop)
        ]
    )
    scores[history.labels[first:stop, at] == ANOMALOUS] = np.nan
    return bool((raised(scores) >= start - first).any())
