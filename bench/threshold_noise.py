"""How many alarms a node's own threshold raises on stationary noise, as a multiple of the budget.

    python bench/threshold_noise.py [--nodes 24] [--weeks 4] [--jobs 2] [--fleet 200] [--first-window]

White and autocorrelated evidence of nodes that nothing ever happens to; tail and threshold are those that
ship, alarms are counted as the gate counts them. The first week of each node fills its window and is not
counted. Then the gate judges a fleet of such nodes by a week of each, at one alarm a week. With
--first-window only that is counted which is left out otherwise: the days in which the window fills, of five
times as many nodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from node_anomaly_core.calibration import Tail, fit_tail
from node_anomaly_core.steady import peak_held
from node_anomaly_core.threshold import LONG_WINDOW_S, WINDOW_S, raised_on_noise, rolling_scores, tight
from node_anomaly_trainer.evaluate import Evaluation, false_alarm_rate, known_weeks
from node_anomaly_trainer.gate import GateLimits, allowances, judge

INTERVAL_S = 60.0
WEEK = 10_080
FITTED_NODES, FITTED_WEEKS = 40, 2
BUDGETS = (0.25, 0.5, 1.0, 2.0, 3.4, 3.5, 7.0, 14.0)
NOISES = {
    "white": (0.0, 1),
    "AR(1) of 0.9": (0.9, 1),
    "AR(1) of 0.99": (0.99, 1),
    "AR(1) of 0.9, cubed": (0.9, 3),
}
"""Correlation of neighbouring ticks, and the power of it that is the evidence: the third has a heavy tail."""

Array = NDArray[np.float64]


def evidence(noise: str, ticks: int, seed: int) -> Array:
    """Held evidence (t,) of one node: the magnitude of an AR(1) process of variance 1, or a power of it."""
    correlation, power = NOISES[noise]
    shocks = np.random.default_rng(seed).normal(size=ticks) * np.sqrt(1 - correlation**2)
    values = lfilter([1.0], [1.0, -correlation], shocks)
    return peak_held(np.abs(values) ** power)


def promised(noise: str, budget: float) -> Tail:
    """What training promises for the budget on other nodes of the same noise."""
    nodes = range(FITTED_NODES)
    series = [evidence(noise, FITTED_WEEKS * WEEK, 10_000 + node) for node in nodes]
    return fit_tail(series, INTERVAL_S, budget)


def multiple(noise: str, budget: float, nodes: int, weeks: int) -> float:
    """Alarms per node-week as a multiple of the budget."""
    tail = promised(noise, budget)
    scores = [
        rolling_scores(tail, evidence(noise, (weeks + 1) * WEEK, node), budget, INTERVAL_S)[WEEK:]
        for node in range(nodes)
    ]
    return false_alarm_rate(scores, INTERVAL_S) / budget


def while_filling(noise: str, budget: float, nodes: int) -> float:
    """The same of the days in which the window of a node fills."""
    window_s = LONG_WINDOW_S if tight(budget) else WINDOW_S
    tail, ticks = promised(noise, budget), round(window_s / INTERVAL_S)
    scores = [rolling_scores(tail, evidence(noise, ticks, node), budget, INTERVAL_S) for node in range(nodes)]
    return false_alarm_rate(scores, INTERVAL_S) / budget


def verdict(scores: Sequence[Array], budget: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The gate's reasons, and what it let pass, of a bundle that is faultless but for its false alarms."""
    faultless = Evaluation(
        false_alarms_per_node_week=false_alarm_rate(scores, INTERVAL_S),
        node_weeks=known_weeks(scores, INTERVAL_S),
        budget=budget,
        false_alarms_on_noise=raised_on_noise(budget),
        comparison_budget=budget,
        fault_recall={"combined": 1.0},
        false_alarms={},
        recall_by_kind={},
        faults=1,
        parity_forest_max=0.0,
        parity_lstm_max=0.0,
        tick_cpu_seconds=0.001,
        ticks=1,
        weights={},
        bundle_bytes=0,
    )
    limits = GateLimits(beat_baselines=False)
    return judge(faultless, limits), allowances(faultless, limits)


def fleet(noise: str, nodes: int) -> str:
    """What the gate says of a week of so many nodes, at one alarm a week."""
    tail = promised(noise, 1.0)
    scores = [
        rolling_scores(tail, evidence(noise, 2 * WEEK, node), 1.0, INTERVAL_S)[WEEK:] for node in range(nodes)
    ]
    reasons, allowed = verdict(scores, 1.0)
    return f"{noise}: {'refused' if reasons else 'accepted'}; {' '.join((*reasons, *allowed))}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=24)
    parser.add_argument("--weeks", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--fleet", type=int, default=200)
    parser.add_argument("--first-window", action="store_true", help="only the days in which a window fills")
    args = parser.parse_args()
    cases = list(product(BUDGETS, NOISES))
    with ProcessPoolExecutor(args.jobs) as pool:
        noises, budgets = [noise for _, noise in cases], [budget for budget, _ in cases]
        if args.first_window:
            found = pool.map(while_filling, noises, budgets, [5 * args.nodes] * len(cases))
        else:
            found = pool.map(multiple, noises, budgets, [args.nodes] * len(cases), [args.weeks] * len(cases))
        measured = dict(zip(cases, found, strict=True))
        verdicts = [] if args.first_window else list(pool.map(fleet, NOISES, [args.fleet] * len(NOISES)))
    print("| budget a week |", " | ".join(NOISES), "| the gate expects |")
    print("|---:" * (len(NOISES) + 2) + "|")
    for budget in BUDGETS:
        row = " | ".join(f"{measured[budget, noise]:.2f}" for noise in NOISES)
        print(f"| {budget:g} | {row} | {raised_on_noise(budget) / budget:.2f} |")
    print("", *verdicts, sep="\n")


if __name__ == "__main__":
    main()
