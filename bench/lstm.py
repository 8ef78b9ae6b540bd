"""The exported LSTM step against the Keras model it came from: error, time and size.

    python bench/lstm.py [--json]

50 + 25 units on 44 features, trained for a few epochs on a made-up fleet; then 2,000 ticks of another one.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.lstm import StepLSTM
from node_anomaly_trainer.config_models import LstmConfig
from node_anomaly_trainer.export import lstm_step
from node_anomaly_trainer.models import TrainingSet
from node_anomaly_trainer.models.lstm import LSTMModel

FEATURES, NODES, TICKS = 44, 4, 2_000


def fleet(seed: int, ticks: int) -> NDArray[np.float32]:
    """Make compressed values (t, m, f): a few shared slow movements, noise, and rare jumps."""
    rng = np.random.default_rng(seed)
    slow = np.cumsum(rng.normal(size=(ticks, NODES, 6)), axis=0)
    slow = (slow - slow.mean(axis=0)) / slow.std(axis=0)
    values = slow @ rng.normal(scale=0.5, size=(6, FEATURES)) + rng.normal(
        scale=0.5, size=(ticks, NODES, FEATURES)
    )
    values += np.where(rng.random(values.shape) < 0.002, 20.0, 0.0)
    compressed = np.sign(values) * np.log1p(np.abs(values))
    return np.asarray(np.clip(compressed, -5.0, 5.0), dtype=np.float32)


def trained() -> LSTMModel:
    """Fit the forecaster; only its first two data fields matter to it."""
    compressed = fleet(0, 6_000)
    none = np.zeros((0, 1), dtype=np.float32)
    labels = np.zeros(0, dtype=np.int8)
    mask = np.ones(compressed.shape, dtype=np.bool_)
    model = LSTMModel(LstmConfig())
    model.fit(TrainingSet(none, none, none, none, labels, compressed, mask), 0, lambda _done, _note: None)
    return model


def measure(
    name: str, content: bytes, ticks: NDArray[np.float32], reference: NDArray[np.float32]
) -> dict[str, Any]:
    """Stream the ticks through one export and compare its forecasts (t, m, f) with Keras'."""
    fleet_step = StepLSTM(content, FEATURES, batch=NODES)
    error = np.abs(np.array([fleet_step.step(tick) for tick in ticks]) - reference)
    node_step = StepLSTM(content, FEATURES)
    one = np.ascontiguousarray(ticks[:, :1])
    start = time.perf_counter()
    for tick in one:
        node_step.step(tick)
    return {
        "weights": name,
        "file_kb": round(len(content) / 1000, 1),
        "step_us": round(1e6 * (time.perf_counter() - start) / len(one), 1),
        "max_abs_error": float(error.max()),
        "mean_abs_error": float(error.mean()),
        "mean_abs_forecast": round(float(np.abs(reference).mean()), 3),
    }


def main() -> None:
    """Print the comparison as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    model = trained()
    ticks = fleet(1, TICKS)
    reference = np.asarray(model.reference_score(ticks), dtype=np.float32)
    weights = model.network.get_weights()
    results = [
        measure("int8 (shipped)", model.export(), ticks, reference),
        measure("float32", lstm_step(weights, quantize=False), ticks, reference),
    ]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("| weights | file | one step | max abs error | mean abs error | mean abs forecast |")
    print("|---|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r['weights']} | {r['file_kb']} kB | {r['step_us']} us | {r['max_abs_error']:.1e} "
            f"| {r['mean_abs_error']:.1e} | {r['mean_abs_forecast']} |"
        )


if __name__ == "__main__":
    main()
