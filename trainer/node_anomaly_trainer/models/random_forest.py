"""Random Forest on the summary: what past incidents, or injected faults, looked like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from node_anomaly_core.errors import TrainingError
from node_anomaly_core.forest import log_odds
from node_anomaly_core.tensors import write_tensors
from node_anomaly_trainer.config_models import RandomForestConfig
from node_anomaly_trainer.export import export_forest
from node_anomaly_trainer.models.interface import Report, TrainingSet

MAX_NORMAL_ROWS = 20_000  # normal ticks outnumber the rest a hundredfold; more of them only take time


class RandomForestModel:
    """Supervised member; a label of -1 (unknown) leaves the tick out."""

    name = "random_forest"
    type = "random_forest"
    filename = "random_forest.safetensors"

    def __init__(self, config: RandomForestConfig) -> None:
        self._config = config
        self.input = "summary"
        self._fitted: RandomForestClassifier | None = None

    def fit(self, data: TrainingSet, seed: int, report: Report) -> None:
        """Fit on all anomalous ticks and a sample of the normal ones; see Model.fit.

        Incidents of other servers are learnt from summaries against each server's own slow past, which are
        alike between servers; faults injected into this fleet from summaries as they are.
        """
        self.input = "summary_normalised" if data.borrowed else "summary"
        rows = data.fault_normalised if data.borrowed else data.fault_summary
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
        report(0.0, f"{self._config.n_estimators} trees")
        forest = RandomForestClassifier(
            n_estimators=self._config.n_estimators,
            max_depth=self._config.max_depth,
            min_samples_leaf=self._config.min_samples_leaf,
            class_weight=self._config.class_weight,
            random_state=seed,
            n_jobs=-1,
        ).fit(rows[chosen], data.fault_labels[chosen])
        forest.set_params(n_jobs=1)  # several threads would add the trees up in any order
        self._fitted = forest
        report(1.0, f"{self._config.n_estimators} trees on {len(chosen)} rows, {len(anomalous)} anomalous")

    def export(self) -> bytes:
        """Return the trees as flat arrays; see Model.export."""
        return write_tensors(export_forest(self._model()))

    def reference_score(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the log-odds of scikit-learn's probability for rows (n, s); see Model.reference_score."""
        return log_odds(self._model().predict_proba(rows)[:, 1])

    def _model(self) -> RandomForestClassifier:
        if self._fitted is None:
            raise TrainingError("random forest: asked for before it was fitted", "call fit first")
        return self._fitted
