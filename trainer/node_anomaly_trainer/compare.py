"""Detectors beside each other under several circumstances, at the same realised false alarms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import ConfigError
from node_anomaly_core.members import Models
from node_anomaly_trainer.assess import COMBINED, Assessed
from node_anomaly_trainer.bench.range_pr import average_precision, vus_pr
from node_anomaly_trainer.candidate import Candidate
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import ANOMALOUS, MINIMUM_TICKS, History, require_trainable
from node_anomaly_trainer.models.baselines import BASELINES
from node_anomaly_trainer.pipeline import build, labelled_history
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.scenarios import SCENARIOS
from node_anomaly_trainer.settings import nearest
from node_anomaly_trainer.sources import fetch
from node_anomaly_trainer.workspace import Workspace

MOST_RANKED = 60_000  # rows, whole nodes; the surface costs a hundred passes over them
COST_TICKS = 200
BASELINE_NAMES = tuple(make.name for make in BASELINES)

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Compared:
    """One detector under one scenario, on history that nothing was fitted on; NaN = not measured."""

    scenario: str
    detector: str
    recall: float
    """Share of the injected faults, at false alarms equal to the others'."""
    false_alarms: float
    """Per node-week, realised."""
    vus_pr: float
    auc_pr: float
    auc_roc: float
    tick_ms: float
    """CPU of one tick of one node, of a member without what all share; NaN for baselines."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it, and what to take."""

    rows: tuple[Compared, ...]
    recommended: str
    why: str
    faults: Mapping[str, int]
    """How many there were, per scenario."""
    seconds: float


class Comparator:
    """Fits and judges the members and the baselines under each scenario."""

    def __init__(self, config: TrainConfig, models: Sequence[str] = ("all",)) -> None:
        """`models` names members, or "all". Raises ConfigError for one that there is not."""
        known = config.models.enabled
        wanted = known if tuple(models) == ("all",) else tuple(dict.fromkeys(models))
        for name in wanted:
            if name not in known:
                raise ConfigError(
                    f"models: there is no {name}{nearest(name, known)}", f"all, or {', '.join(known)}"
                )
        self.config = replace(config, models=replace(config.models, enabled=wanted))

    def compare(
        self, scenarios: Sequence[str], progress: Progress, history: History | None = None
    ) -> Comparison:
        """Run every scenario. Raises what a training run raises; nothing is published or written."""
        begun = time.monotonic()
        for name in scenarios:
            if name not in SCENARIOS:
                raise ConfigError(
                    f"scenarios: there is no {name}{nearest(name, tuple(SCENARIOS))}",
                    f"one or more of {', '.join(SCENARIOS)}",
                )
        workspace = Workspace(self.config.training, progress.note)
        base = history if history is not None else self._history(progress, workspace)
        rows: list[Compared] = []
        faults = {}
        for name in dict.fromkeys(scenarios):
            progress.note(f"scenario {name}: {SCENARIOS[name].words}")
            assessed = self._assessed(name, base, progress, workspace)
            faults[name] = assessed.evaluation.faults
            rows += compared(name, assessed)
        recommended, why = recommend(rows)
        return Comparison(tuple(rows), recommended, why, faults, time.monotonic() - begun)

    def _history(self, progress: Progress, workspace: Workspace) -> History:
        with progress.phase("history") as report:
            history = fetch(self.config, report, progress.note, workspace.admit)
        require_trainable(history, MINIMUM_TICKS)
        return labelled_history(history, self.config, progress).history

    def _assessed(self, name: str, base: History, progress: Progress, workspace: Workspace) -> Assessed:
        scenario, training = SCENARIOS[name], self.config.training
        rate = min(training.faults_per_node_day * scenario.faults, 100.0)
        config = replace(self.config, training=replace(training, faults_per_node_day=rate))
        # Judged as known nodes, whatever the source: a comparison wants the same ticks for every detector.
        history = replace(base, origin={**base.origin, "source": f"scenario {name}"})
        changed = scenario.change(history, self.config, training.seed)
        return build(changed, config, progress, empty=workspace.empty)


def compared(scenario: str, assessed: Assessed) -> list[Compared]:
    """Every detector of one judged candidate."""
    evaluation, cost = assessed.evaluation, tick_costs(assessed.candidate)
    rows = []
    for name, recall in evaluation.fault_recall.items():
        vus, area, roc = ranking(assessed, assessed.faulted[name])
        tick = evaluation.tick_cpu_seconds if name == COMBINED else cost.get(name, math.nan)
        rows.append(
            Compared(scenario, name, recall, evaluation.false_alarms[name], vus, area, roc, 1e3 * tick)
        )
    return rows


def ranking(assessed: Assessed, scores: Array) -> tuple[float, float, float]:
    """VUS-PR, AUC-PR and ROC AUC of scores (t, m) on the judged part with faults in it; NaN without any."""
    from sklearn.metrics import roc_auc_score

    judged = assessed.parts.judged
    ticks = judged.stop - judged.start
    nodes = max(1, min(scores.shape[1], MOST_RANKED // max(1, ticks)))
    label = (assessed.parts.faulted.labels[judged, :nodes].T.ravel() == ANOMALOUS).astype(np.int8)
    score = scores[judged, :nodes].T.ravel()
    known = np.isfinite(score)
    if not known.any() or not label.any() or label.all():
        return math.nan, math.nan, math.nan
    ranked = np.where(known, score, score[known].min())
    return vus_pr(label, ranked), average_precision(label, ranked), float(roc_auc_score(label, ranked))


def tick_costs(candidate: Candidate) -> dict[str, float]:
    """CPU seconds of each member for one tick of one node, beyond the residuals that all of them share."""
    models = Models(candidate.bundle())
    interval_s = candidate.manifest.interval_s
    rows = candidate.clean.summary[-COST_TICKS:, 0].astype(np.float64)
    values = candidate.clean.compressed[-COST_TICKS:, :1].astype(np.float64)
    costs = {
        name: _cost(lambda at, one=forest: one.score(rows[at : at + 1]), len(rows))  # type: ignore[misc]
        for name, forest in models.forests.items()
    }
    forecasts, windows = models.forecast_path(1, interval_s), models.window_path(1, interval_s)
    if forecasts is not None and models.forecaster is not None:
        costs[models.forecaster] = _cost(lambda at: forecasts.step(values[at]), len(values))
    if windows is not None and models.clusterer is not None:
        costs[models.clusterer] = _cost(lambda at: windows.step(values[at]), len(values))
    return costs


def _cost(step: Callable[[int], object], ticks: int) -> float:
    spent = []
    for at in range(ticks):
        begun = time.process_time()
        step(at)
        spent.append(time.process_time() - begun)
    return float(np.median(spent))


def recommend(rows: Sequence[Compared]) -> tuple[str, str]:
    """The detector to take and why: the highest mean recall over the scenarios of what a node can run.

    The mean of VUS-PR decides between equals. A baseline that is ahead is said to be, not recommended.
    """
    names = list(dict.fromkeys(row.detector for row in rows))
    recall = {name: _mean(rows, name, lambda row: row.recall) for name in names}
    ranks = {name: _mean(rows, name, lambda row: row.vus_pr) for name in names}
    ours = [name for name in names if name not in BASELINE_NAMES]
    order = sorted(ours, key=lambda name: (_low(recall[name]), _low(ranks[name])), reverse=True)
    best = order[0]
    why = f"finds {recall[best]:.0%} of the faults on average (VUS-PR {ranks[best]:.2f})"
    if len(order) > 1:
        why += f"; next {order[1]} with {recall[order[1]]:.0%}"
    ahead = [name for name in names if name in BASELINE_NAMES and recall[name] > recall[best]]
    if ahead:
        why += (
            f"; the baseline {ahead[0]} finds more ({recall[ahead[0]]:.0%}): nothing here is worth deploying"
        )
    return best, why


def _mean(rows: Sequence[Compared], name: str, figure: Callable[[Compared], float]) -> float:
    known = [figure(row) for row in rows if row.detector == name and not math.isnan(figure(row))]
    return float(np.mean(known)) if known else math.nan


def _low(value: float) -> float:
    return -math.inf if math.isnan(value) else value
