"""Is the feature that was disturbed among the first reasons?

    python bench/attribution.py [--nodes 4] [--sigma 8] [--unit robust|deviation] [--json]

Simulated nodes are learnt by the starter's models for 160 ticks of 15 s. Then one feature at a time is moved
by `--sigma` of its own robust scales (the unit of the faults that the trainer injects, never below the
feature's floor) or of its plain standard deviations, in the direction that is anomalous, for four ticks, on a
copy of the scorer; features that do not move there are left out. A case counts as right if the feature, or
one whose correlation with it over those ticks is at least 0.5, is among the first three of
`anomaly_feature_contribution_ratio`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle import starter_bundle, verify_bundle
from node_anomaly_core.bundle_store import Bundle
from node_anomaly_core.members import Models
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.dataset import History
from node_anomaly_trainer.faults import observed_scale
from node_anomaly_trainer.progress import ignore_report
from node_anomaly_trainer.sources import fetch

INTERVAL_S = 15.0
LEARNT_TICKS, DISTURBED_TICKS = 160, 4
TOP = 3
RELATED = 0.5

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One feature of one node."""

    node: str
    feature: str
    own: bool
    """The feature itself is among the first."""
    related: bool
    """It, or one that goes with it."""
    score: float


def cases(bundle: Bundle, history: History, sigma: float, *, robust: bool = True) -> Iterator[Case]:
    """Every feature that moves, node by node."""
    models = Models(bundle)
    names = [feature.name for feature in bundle.manifest.features]
    columns = [history.feature_names.index(name) for name in names]
    for at, node in enumerate(history.nodes):
        rows = history.values[: LEARNT_TICKS + DISTURBED_TICKS, at][:, columns]
        past = rows[:LEARNT_TICKS]
        scorer = NodeScorer(bundle, INTERVAL_S, "", models)
        for tick, row in enumerate(past):
            scorer.step(tick * INTERVAL_S, row)
        state = scorer.state()
        known = np.where(np.isfinite(past), past, 0.0)  # missing at one tick is missing at all, here
        spread = known.std(axis=0)
        floors = np.array([feature.floor for feature in bundle.manifest.features])
        unit = observed_scale(past, floors) if robust else spread
        with np.errstate(invalid="ignore", divide="ignore"):
            together = np.nan_to_num(np.abs(np.corrcoef(known, rowvar=False)))
        for column, feature in enumerate(bundle.manifest.features):
            if not spread[column] > feature.floor * 1e-3:
                continue
            sign = -1.0 if feature.direction == "low" else 1.0
            copy = NodeScorer(bundle, INTERVAL_S, "", models)
            if not copy.restore(state):
                raise RuntimeError("a scorer's own state does not fit it")
            for tick in range(LEARNT_TICKS, LEARNT_TICKS + DISTURBED_TICKS):
                row = rows[tick].copy()
                row[column] += sign * sigma * unit[column]
                said = copy.step(tick * INTERVAL_S, row)
            first = np.argsort(-np.nan_to_num(said.contributions))[:TOP]
            yield Case(
                node,
                feature.name,
                own=column in first,
                related=column in first or bool((together[column, first] >= RELATED).any()),
                score=said.score,
            )


def main() -> int:
    """Read the command line and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--sigma", type=float, default=8.0)
    parser.add_argument("--unit", choices=("robust", "deviation"), default="robust", help="of --sigma")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    config = parse_config(
        {
            "interval": "15s",
            "training": {"seed": 7},
            "source": {"type": "synthetic", "synthetic": {"nodes": arguments.nodes, "range": "1h"}},
        }
    )
    history = fetch(config, ignore_report, lambda _line: None)
    found = list(
        cases(verify_bundle(starter_bundle()), history, arguments.sigma, robust=arguments.unit == "robust")
    )
    answer = {
        "cases": len(found),
        "own_in_top_3": sum(case.own for case in found) / len(found),
        "own_or_related_in_top_3": sum(case.related for case in found) / len(found),
        "median_score": float(np.median([case.score for case in found])),
        "missed": sorted({case.feature for case in found if not case.related}),
    }
    if arguments.json:
        print(json.dumps(answer))
    else:
        for name, value in answer.items():
            print(f"{name:26} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
