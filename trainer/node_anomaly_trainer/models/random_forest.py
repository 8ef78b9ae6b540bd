"""Random Forest on the summary: what past incidents, or injected faults, looked like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.forest import log_odds
from node_anomaly_core.manifest import BOTH_SUMMARIES
from node_anomaly_core.members import forest_input
from node_anomaly_core.tensors import write_tensors
from node_anomaly_trainer.config_models import RandomForestConfig
from node_anomaly_trainer.export import export_forest
from node_anomaly_trainer.models.interface import Report, TrainingSet
from node_anomaly_trainer.models.summary_words import summary_words

if TYPE_CHECKING:  # its import takes seconds
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

MAX_NORMAL_ROWS = 20_000  # normal ticks outnumber the rest a hundredfold; more of them only take time

REAL_TREES, REAL_DEPTH, REAL_LEAF = 50, 14, 5
"""Of a forest that real incidents teach (docs/adr/0030): more trees, or smaller leaves, only cost memory."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One step of a time-ordered cross-validation; the threshold is a probability of one half."""

    fitted_rows: int
    tested_rows: int
    average_precision: float
    precision: float
    recall: float


def _fold(fitted: int, labels: NDArray[np.integer], probability: NDArray[np.float64]) -> Fold:
    from sklearn.metrics import average_precision_score

    called = probability >= 0.5
    right = int((called & (labels == 1)).sum())
    return Fold(
        fitted,
        len(labels),
        float(average_precision_score(labels, probability)),
        right / int(called.sum()) if called.any() else 0.0,
        right / int((labels == 1).sum()),
    )


class RandomForestModel:
    """Supervised member; a label of -1 (unknown) leaves the tick out."""

    name = "random_forest"
    type = "random_forest"
    filename = "random_forest.safetensors"

    def __init__(self, config: RandomForestConfig) -> None:
        self._config = config
        self.input = "summary"
        self._fitted: RandomForestClassifier | ExtraTreesClassifier | None = None

    def fit(self, data: TrainingSet, seed: int, report: Report) -> None:
        """Fit on all anomalous ticks and a sample of the normal ones; see Model.fit.

        Real incidents are learnt from both forms of the summary by extremely randomized trees (Geurts et al.,
        2006), which are as sure of a server that they have not seen as of one that they have; faults injected
        into this fleet from the summary as it is, by a forest as configured.
        """
        self.input = BOTH_SUMMARIES if data.real else "summary"
        rows = forest_input(self.input, data.fault_summary, data.fault_normalised)
        anomalous = np.flatnonzero(data.fault_labels == 1)
        normal = np.flatnonzero(data.fault_labels == 0)
        if len(anomalous) == 0 or len(normal) == 0:
            raise TrainingError(
                f"random forest: {len(anomalous)} anomalous and {len(normal)} normal ticks, both are needed",
                "let the trainer inject faults, or give it incidents that lie within the history",
            )
        if len(normal) > MAX_NORMAL_ROWS:
            normal = np.random.default_rng(seed).choice(normal, MAX_NORMAL_ROWS, replace=False)
        chosen = np.sort(np.concatenate([anomalous, normal]))
        forest = self._unfitted(seed, real=data.real)
        report(0.0, f"{forest.n_estimators} trees")
        forest.fit(rows[chosen], data.fault_labels[chosen])
        forest.set_params(n_jobs=1)  # several threads would add the trees up in any order
        self._fitted = forest
        report(1.0, f"{forest.n_estimators} trees on {len(chosen)} rows, {len(anomalous)} anomalous")

    def _unfitted(self, seed: int, *, real: bool) -> RandomForestClassifier | ExtraTreesClassifier:
        from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

        weight = self._config.class_weight
        if real:
            return ExtraTreesClassifier(
                n_estimators=REAL_TREES,
                max_depth=REAL_DEPTH,
                min_samples_leaf=REAL_LEAF,
                class_weight=weight,
                random_state=seed,
                n_jobs=-1,
            )
        return RandomForestClassifier(
            n_estimators=self._config.n_estimators,
            max_depth=self._config.max_depth,
            min_samples_leaf=self._config.min_samples_leaf,
            class_weight=weight,
            random_state=seed,
            n_jobs=-1,
        )

    def export(self) -> bytes:
        """Return the trees as flat arrays; see Model.export."""
        return write_tensors(export_forest(self._model()))

    def reference_score(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the log-odds of scikit-learn's probability for rows (n, s); see Model.reference_score."""
        return log_odds(self._model().predict_proba(rows)[:, 1])

    def get_anomaly_probabilities(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the probability (n,) that each row (n, s) is anomalous, as the balanced trees see it."""
        return np.asarray(self._model().predict_proba(rows)[:, 1], dtype=np.float64)

    def feature_importances(self, most: int = 20) -> dict[str, float]:
        """Return the numbers of the summary that the trees split on most, in words, the largest first."""
        weights = self._model().feature_importances_
        order = np.argsort(-weights, kind="stable")[:most]
        return {summary_words(int(at), len(weights)): float(weights[at]) for at in order if weights[at] > 0}

    def cross_validate(
        self, rows: NDArray[np.floating], labels: NDArray[np.integer], folds: int = 5, seed: int = 0
    ) -> tuple[Fold, ...]:
        """Judge the settings on rows (n, s) in time order: fit on what came before, test on what came next.

        Rows labelled -1 are left out; a fold without both kinds on either side is skipped, because it says
        nothing. Raises TrainingError if no fold is left.

        >>> rng = np.random.default_rng(0)
        >>> labels = (rng.random(400) < 0.2).astype(np.int8)
        >>> rows = rng.normal(size=(400, 3)) + 3.0 * labels[:, None]
        >>> model = RandomForestModel(RandomForestConfig(n_estimators=20))
        >>> folds = model.cross_validate(rows, labels, folds=3)
        >>> len(folds), all(fold.average_precision > 0.9 for fold in folds)
        (3, True)
        """
        from sklearn.model_selection import TimeSeriesSplit

        known = np.flatnonzero(np.isin(labels, (0, 1)))
        result = []
        if len(known) > folds:
            for early, late in TimeSeriesSplit(n_splits=folds).split(known):
                before, after = known[early], known[late]
                if len(set(labels[before])) < 2 or len(set(labels[after])) < 2:
                    continue
                trial = RandomForestModel(self._config)
                trial.fit(TrainingSet.of_rows(rows[before], labels[before]), seed, lambda _done, _words: None)
                result.append(_fold(len(before), labels[after], trial.get_anomaly_probabilities(rows[after])))
        if not result:
            raise TrainingError(
                f"random forest: no fold of {folds} has normal and anomalous rows on both sides",
                "give it incidents from more than one time, or fewer folds",
            )
        return tuple(result)

    def _model(self) -> RandomForestClassifier | ExtraTreesClassifier:
        if self._fitted is None:
            raise TrainingError("random forest: asked for before it was fitted", "call fit first")
        return self._fitted
