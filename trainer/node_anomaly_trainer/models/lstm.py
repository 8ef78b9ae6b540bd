"""LSTM forecaster of the next tick's compressed values; what it did not expect is the anomaly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError
from node_anomaly_trainer.config_models import LstmConfig
from node_anomaly_trainer.export import export_lstm, tensorflow
from node_anomaly_trainer.labels import runs
from node_anomaly_trainer.models.interface import Report, TrainingSet

CLIP = 5.0  # compressed values beyond this teach nothing more, and would dominate the loss
VALIDATION_SHARE = 0.15  # the latest part of the history, which no training window touches
PATIENCE = 3  # epochs without a better validation loss before training stops
MAX_BATCHES = 64  # per epoch, of windows that may overlap: a short history is seen from many starts
MAX_VALIDATION_BATCHES = 16
SHORTEST = 8  # ticks of a training window below which nothing can be learned


@dataclass(frozen=True, slots=True)
class TemporalAnomaly:
    """Consecutive ticks `start` <= t < `stop` of one node that the forecast did not expect."""

    node: int
    start: int
    stop: int
    peak: float
    threshold: float


class LSTMModel:
    """Stacked LSTM layers and a dense one, trained on truncated sequences of all nodes alike."""

    name = "lstm"
    type = "lstm"
    input = "compressed"
    filename = "lstm.tflite"

    def __init__(self, config: LstmConfig) -> None:
        self._config = config
        self._fitted: Any = None
        self.losses: tuple[float, ...] = ()
        """Validation loss of each epoch of the last fit."""

    @property
    def network(self) -> Any:
        """The fitted Keras model; raises TrainingError before `fit`."""
        if self._fitted is None:
            raise TrainingError("lstm: asked for before it was fitted", "call fit first")
        return self._fitted

    def fit(self, data: TrainingSet, seed: int, report: Report) -> None:
        """Fit on random windows of the early part, stopped by the loss on the late part; see Model.fit."""
        ticks, nodes, features = data.compressed.shape
        split = int(ticks * (1.0 - VALIDATION_SHARE))
        length = min(self._config.sequence_length, ticks - split - 1)
        if length < SHORTEST or not data.mask.any():
            raise TrainingError(
                f"lstm: {ticks} ticks of {nodes} nodes leave windows of {max(length, 0)} ticks",
                f"give it at least {int((SHORTEST + 1) / VALIDATION_SHARE) + 1} ticks with values",
            )
        report(0.0, "starting TensorFlow")
        network = self._build(features, seed)
        rng = np.random.default_rng(seed)
        size = self._config.batch_size
        drawn = MAX_BATCHES * size
        judged = _starts(split, ticks, length, nodes)
        if len(judged) > MAX_VALIDATION_BATCHES * size:
            judged = judged[rng.choice(len(judged), MAX_VALIDATION_BATCHES * size, replace=False)]
        self.losses = ()
        best, best_weights, best_epoch = np.inf, network.get_weights(), 0
        for epoch in range(1, self._config.epochs + 1):
            starts = np.stack(
                [rng.integers(0, split - length, drawn), rng.integers(0, nodes, drawn)], axis=1
            )  # length <= ticks - split - 1 < split, so there is always room
            for batch in _batches(starts, size):
                network.train_on_batch(*_windows(data, batch, length))
            losses = [
                float(network.test_on_batch(*_windows(data, b, length))) for b in _batches(judged, size)
            ]
            loss = float(np.mean(losses))
            if not np.isfinite(loss):
                raise TrainingError("lstm: the loss became infinite", "lower models.lstm.learning_rate")
            self.losses = (*self.losses, loss)
            report(epoch / self._config.epochs, f"epoch {epoch}, validation loss {loss:.4f}")
            if loss < best:
                best, best_weights, best_epoch = loss, network.get_weights(), epoch
            elif epoch - best_epoch >= PATIENCE:
                break
        network.set_weights(best_weights)
        self._fitted = network
        report(1.0, f"validation loss {best:.4f} after epoch {best_epoch}")

    def export(self) -> bytes:
        """Return one int8 step with its states outside; see Model.export."""
        return export_lstm(self.network)

    def reference_score(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Forecast with Keras, from ticks (t, m, f) of a fresh start; see Model.reference_score."""
        forecast = self.network(np.ascontiguousarray(np.swapaxes(rows, 0, 1), dtype=np.float32))
        return np.swapaxes(np.asarray(forecast, dtype=np.float32), 0, 1)

    def detect_temporal_anomalies(
        self, ticks: NDArray[np.floating], usual: NDArray[np.floating], share: float = 0.001
    ) -> tuple[TemporalAnomaly, ...]:
        """Find the stretches of ticks (t, m, f) that the forecast did not expect, in time order.

        A tick's surprise is the mean Huber error of its forecast over the known features. The threshold is
        what a `share` of the ticks in `usual` (k, m, f), normal ones, surpasses. Values are scaled and
        compressed ones, NaN = missing. The first `sequence_length` ticks, a quarter at most, are left out: a
        forecaster that starts from nothing is surprised by everything. Raises TrainingError where `usual` has
        no tick to compare with.
        """
        normal = self.surprise(usual)
        lead = min(self._config.sequence_length, len(ticks) // 4)
        normal[: min(self._config.sequence_length, len(usual) // 4)] = np.nan
        known = normal[np.isfinite(normal)]
        if not len(known):
            raise TrainingError("lstm: no usual tick to compare with", "give it normal history")
        threshold = float(np.quantile(known, 1.0 - share))
        surprise = self.surprise(ticks)
        surprise[:lead] = np.nan
        found = [
            TemporalAnomaly(
                node, int(start), int(stop), float(np.nanmax(surprise[start:stop, node])), threshold
            )
            for node in range(ticks.shape[1])
            for start, stop in runs(surprise[:, node] > threshold)
        ]
        return tuple(sorted(found, key=lambda one: (one.start, one.node)))

    def surprise(self, ticks: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the mean Huber error (t, m) of each tick's forecast; NaN for the first and unknown ones."""
        known = np.isfinite(ticks)
        values = np.clip(np.where(known, ticks, 0.0), -CLIP, CLIP)
        error = np.abs(values[1:] - self.reference_score(values)[:-1])
        loss = np.where(error < 1.0, 0.5 * error**2, error - 0.5)
        count = known[1:].sum(axis=-1)
        result = np.full(ticks.shape[:2], np.nan)
        total = (loss * known[1:]).sum(axis=-1)
        result[1:] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        return result

    def roll_out(self, ticks: NDArray[np.floating], steps: int) -> NDArray[np.float32]:
        """Forecast the `steps` ticks after (t, m, f), each from the forecasts before it: (steps, m, f).

        The forecaster starts at most twice `sequence_length` ticks back; it was trained on half of that.
        """
        if steps < 1:
            raise TrainingError(f"lstm: a forecast of {steps} steps", "ask for at least one")
        context = np.nan_to_num(ticks[-2 * self._config.sequence_length :])
        window = np.swapaxes(np.clip(context, -CLIP, CLIP), 0, 1).astype(np.float32)
        path = []
        for _ in range(steps):  # the window keeps its length, so the network is compiled once
            ahead = np.clip(self.network.predict_on_batch(window)[:, -1], -CLIP, CLIP)
            path.append(ahead)
            window = np.concatenate([window[:, 1:], ahead[:, None]], axis=1)
        return np.stack(path)

    def _build(self, features: int, seed: int) -> Any:
        tf = tensorflow()
        tf.config.experimental.enable_op_determinism()
        import keras

        seeds = iter(range(seed, seed + 3 * (len(self._config.units) + 1)))
        layers = [keras.Input((None, features))]
        layers += [
            keras.layers.LSTM(
                units,
                return_sequences=True,
                kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
                recurrent_initializer=keras.initializers.Orthogonal(seed=next(seeds)),
            )
            for units in self._config.units
        ]
        last = keras.initializers.GlorotUniform(seed=next(seeds))
        layers.append(keras.layers.Dense(features, kernel_initializer=last))
        network = keras.Sequential(layers)

        def smooth_l1(target: Any, forecast: Any) -> Any:
            """Huber loss over observed values only: target is the values, then the mask."""
            value, weight = target[..., :features], target[..., features:]
            error = tf.abs(value - forecast)
            loss = tf.where(error < 1.0, 0.5 * error * error, error - 0.5)
            return tf.reduce_sum(loss * weight) / (tf.reduce_sum(weight) + 1e-6)

        optimizer = keras.optimizers.Adam(self._config.learning_rate, clipnorm=1.0)
        network.compile(optimizer=optimizer, loss=smooth_l1)
        return network


def _starts(first: int, stop: int, length: int, nodes: int) -> NDArray[np.int64]:
    """List (tick, node) of every window of length + 1 ticks, end to end, within first..stop."""
    ticks = np.arange(first, stop - length, length)
    return np.stack(np.meshgrid(ticks, np.arange(nodes), indexing="ij"), axis=-1).reshape(-1, 2)


def _batches(starts: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut starts into batches of one size: a smaller last one would be compiled again, so it wraps around."""
    count = -(-len(starts) // size)
    return list(np.resize(starts, (count * size, 2)).reshape(count, size, 2))


def _windows(
    data: TrainingSet, starts: NDArray[np.int64], length: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cut windows: inputs (b, length, f), and the tick after each with its mask (b, length, 2 f)."""
    ticks = starts[:, :1] + np.arange(length + 1)
    nodes = starts[:, 1:]
    mask = data.mask[ticks, nodes]
    values = data.compressed[ticks, nodes]
    mask = mask & np.isfinite(values)
    values = np.clip(np.where(mask, values, np.float32(0.0)), -CLIP, CLIP)
    target = np.concatenate([values[:, 1:], mask[:, 1:].astype(np.float32)], axis=-1)
    return values[:, :-1], target
