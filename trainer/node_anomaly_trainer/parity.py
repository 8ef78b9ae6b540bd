"""Whether what was exported computes what was fitted, measured in the runtime that nodes have."""

from __future__ import annotations

import numpy as np

from node_anomaly_core.evidence import FORECAST_CLIP
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_core.members import Models, forest_input
from node_anomaly_trainer.candidate import Candidate

PARITY_ROWS = 2_000
PARITY_TICKS = 200


def forest_parity(candidate: Candidate) -> float:
    """Largest difference between the exported forests and scikit-learn over rows of faulted history.

    0 without any.
    """
    width = candidate.faulted.summary.shape[-1]
    rows = candidate.faulted.summary.reshape(-1, width)[-PARITY_ROWS:]
    normalised = candidate.faulted.normalised.reshape(-1, width)[-PARITY_ROWS:]
    known = np.isfinite(rows).any(axis=1)
    scores = Models(candidate.bundle()).forest_scores(rows.astype(np.float64), normalised.astype(np.float64))
    differences = [0.0]
    for name, score in scores.items():
        model = candidate.models[name]
        reference = model.reference_score(forest_input(model.input, rows, normalised))
        differences.append(float(np.abs(score - reference)[known].max(initial=0.0)))
    return max(differences)


def lstm_parity(candidate: Candidate) -> float:
    """Largest difference between the exported step and Keras from a fresh start; 0 without an LSTM."""
    model = next((model for model in candidate.models.values() if model.type == "lstm"), None)
    if model is None:
        return 0.0
    ticks = np.clip(candidate.clean.compressed[:PARITY_TICKS], -FORECAST_CLIP, FORECAST_CLIP)
    rows = np.where(np.isfinite(ticks), ticks, np.float32(0.0))
    step = StepLSTM(candidate.files[model.filename], rows.shape[2], rows.shape[1])
    exported = np.stack([step.step(row) for row in rows])
    return float(np.abs(exported - model.reference_score(rows)).max())
