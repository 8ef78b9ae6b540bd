"""Isolation Forest on the online-normalised summary: what is unlike this node's own slow past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import fit_tail
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.manifest import NORMALISED
from node_anomaly_core.tensors import write_tensors
from node_anomaly_trainer.config_models import IsolationForestConfig
from node_anomaly_trainer.export import export_forest
from node_anomaly_trainer.models.interface import Report, TrainingSet

if TYPE_CHECKING:  # its import takes seconds
    from sklearn.ensemble import IsolationForest

MAX_ROWS = 32_768  # every tree copies the rows before it draws its max_samples of them


@dataclass(frozen=True, slots=True)
class Contamination:
    """Where to cut for a false-alarm budget."""

    threshold: float
    """In units of `reference_score`; an alarm is three ticks in a row at or above it."""
    contamination: float
    """Share of the normal rows at or above it."""


class IsolationForestModel:
    """Unsupervised member; its threshold is set by calibration, so no contamination is asked for."""

    type = "isolation_forest"

    def __init__(
        self,
        config: IsolationForestConfig,
        name: str = "isolation_forest",
        input: str = NORMALISED,  # noqa: A002  # the manifest's word
    ) -> None:
        """`input` says which summary: against the node's own slow past, or as it is."""
        self.name, self.input, self.filename = name, input, f"{name}.safetensors"
        self._config = config
        self._fitted: IsolationForest | None = None

    def fit(self, data: TrainingSet, seed: int, report: Report) -> None:
        """Fit on normal history; see Model.fit."""
        from sklearn.ensemble import IsolationForest

        rows = data.normalised if self.input == NORMALISED else data.summary
        if len(rows) < 2:
            raise TrainingError(
                f"isolation forest: {len(rows)} rows of normal history", "give it a longer history"
            )
        if len(rows) > MAX_ROWS:
            rows = rows[np.random.default_rng(seed).choice(len(rows), MAX_ROWS, replace=False)]
        report(0.0, f"{self._config.n_estimators} trees")
        self._fitted = IsolationForest(
            n_estimators=self._config.n_estimators,
            max_samples=min(self._config.max_samples, len(rows)),
            max_features=self._config.max_features,
            random_state=seed,
        ).fit(rows)
        report(1.0, f"{self._config.n_estimators} trees on {len(rows)} rows")

    def export(self) -> bytes:
        """Return the trees as flat arrays; see Model.export."""
        return write_tensors(export_forest(self._model()))

    def reference_score(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return scikit-learn's anomaly score of rows (n, s); see Model.reference_score."""
        return np.asarray(-self._model().score_samples(rows), dtype=np.float64)

    def find_optimal_contamination(
        self, rows: NDArray[np.floating], interval_s: float, budget_per_week: float = 1.0
    ) -> Contamination:
        """Search the threshold that normal rows (t, s) of one node, in time order, pass as often as allowed.

        The seed searched a share of rows to call anomalous; here the share follows from what an operator can
        bear, `budget_per_week` false alarms. Raises TrainingError with fewer than 200 rows.

        >>> rng = np.random.default_rng(0)
        >>> rows = rng.normal(size=(600, 4)).astype(np.float32)
        >>> data = TrainingSet.of_rows(rows)
        >>> model = IsolationForestModel(IsolationForestConfig(n_estimators=20, max_samples=128))
        >>> model.fit(data, 0, lambda done, words: None)
        >>> found = model.find_optimal_contamination(rows, interval_s=60.0)
        >>> 0.0 <= found.contamination < 0.02
        True
        """
        scores = self.reference_score(rows)
        try:
            threshold = fit_tail([scores], interval_s, budget_per_week).alarm_level()
        except ValueError as error:
            raise TrainingError(f"isolation forest: {error}", "give it more normal rows") from error
        return Contamination(threshold, float((scores >= threshold).mean()))

    def _model(self) -> IsolationForest:
        if self._fitted is None:
            raise TrainingError("isolation forest: asked for before it was fitted", "call fit first")
        return self._fitted
