"""From a fitted scikit-learn forest or Keras LSTM to the plain data that a node loads.

Nothing that leaves this module can carry code: forests become flat arrays (layout in
`node_anomaly_core.forest`), the LSTM becomes one step of arithmetic with its states as inputs and
outputs (contract in `node_anomaly_core.lstm`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import TrainingError

if TYPE_CHECKING:  # its import takes seconds
    from sklearn.ensemble import ExtraTreesClassifier, IsolationForest, RandomForestClassifier


@dataclass(frozen=True, slots=True)
class _Tree:
    """One fitted tree: scikit-learn's node arrays, and per node the value that core sums up."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]  # column of the whole row, not of the tree's subset
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.uint8]
    value: NDArray[np.float64]


def export_forest(
    estimator: IsolationForest | RandomForestClassifier | ExtraTreesClassifier,
) -> dict[str, NDArray[Any]]:
    """Return the fitted forest as flat arrays; raises TrainingError for one that core cannot represent."""
    from sklearn.ensemble import IsolationForest

    if isinstance(estimator, IsolationForest):
        trees, scale = _isolation_trees(estimator)
    else:
        trees, scale = _classifier_trees(estimator)
    return _flatten(trees, scale)


def _isolation_trees(estimator: IsolationForest) -> tuple[list[_Tree], float]:
    sample = estimator.max_samples_
    scale = len(estimator.estimators_) * float(_average_path_length(np.array([sample]))[0])
    if scale <= 0.0:
        raise TrainingError(
            f"isolation forest: fitted on {sample} row per tree, which isolates nothing",
            "train on a longer history",
        )
    trees = []
    for fitted, columns in zip(estimator.estimators_, estimator.estimators_features_, strict=True):
        tree = fitted.tree_
        at_leaf = tree.compute_node_depths() + _average_path_length(tree.n_node_samples) - 1.0
        value = _mean_below(tree, at_leaf)
        trees.append(_tree(tree, np.asarray(columns, dtype=np.int64), value))
    return trees, scale


def _classifier_trees(
    estimator: RandomForestClassifier | ExtraTreesClassifier,
) -> tuple[list[_Tree], float]:
    if estimator.classes_.tolist() != [0, 1]:
        raise TrainingError(
            f"random forest: fitted on the labels {estimator.classes_.tolist()}, expected both 0 and 1",
            "give it normal and anomalous ticks, or let the trainer inject faults",
        )
    columns = np.arange(estimator.n_features_in_, dtype=np.int64)
    trees = [
        _tree(e.tree_, columns, np.clip(e.tree_.value[:, 0, 1], 0.0, 1.0)) for e in estimator.estimators_
    ]
    return trees, float(len(trees))


def _tree(tree: Any, columns: NDArray[np.int64], value: NDArray[np.float64]) -> _Tree:
    inner = tree.children_left >= 0
    feature = np.full(tree.node_count, -1, dtype=np.int64)
    feature[inner] = columns[tree.feature[inner]]
    return _Tree(
        left=np.asarray(tree.children_left),
        right=np.asarray(tree.children_right),
        feature=feature,
        threshold=np.where(inner, tree.threshold, 0.0),
        missing_left=np.where(inner, tree.missing_go_to_left, 0).astype(np.uint8),
        value=np.asarray(value, dtype=np.float64),
    )


def _average_path_length(samples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean depth of a random binary search tree over that many samples (Liu 2008, eq. 1)."""
    n = np.asarray(samples, dtype=np.float64)
    many = np.where(n > 2, n, 3.0)
    length = 2.0 * (np.log(many - 1.0) + np.euler_gamma) - 2.0 * (many - 1.0) / many
    return np.where(n > 2, length, np.where(n == 2, 1.0, 0.0))


def _mean_below(tree: Any, at_leaf: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return per node the mean of `at_leaf` over the training rows below it."""
    value = np.array(at_leaf, dtype=np.float64)
    weight = tree.n_node_samples.astype(np.float64)
    for node in range(tree.node_count - 1, -1, -1):  # scikit-learn numbers children after parents
        left, right = tree.children_left[node], tree.children_right[node]
        if left >= 0:
            value[node] = (value[left] * weight[left] + value[right] * weight[right]) / weight[node]
    return value


def round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return per value the largest finite float32 that is not above it.

    A threshold of infinity, which scikit-learn writes to part missing values from all others, becomes
    the largest number there is: no observed value exceeds that either.
    """
    limit = float(np.finfo(np.float32).max)
    values = np.clip(values, -limit, limit)
    near = values.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > values, below, near).astype(np.float32)


def _flatten(trees: Sequence[_Tree], scale: float) -> dict[str, NDArray[Any]]:
    """Number the nodes level by level across all trees, children side by side."""
    sizes = [len(tree.left) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]])  # of each tree, in the concatenated arrays
    children = np.concatenate([np.stack([tree.left, tree.right], axis=1) for tree in trees])
    children = np.where(children >= 0, children + np.repeat(roots, sizes)[:, None], -1)
    level = roots.astype(np.int64)
    order = [level]
    while len(level):
        level = children[level[children[level, 0] >= 0]].ravel()
        order.append(level)
    old = np.concatenate(order)
    new = np.empty(len(old), dtype=np.int64)
    new[old] = np.arange(len(old))
    left = np.where(children[old, 0] >= 0, new[children[old, 0]], -1)
    return {
        "left": left.astype(np.int32),
        "feature": np.concatenate([t.feature for t in trees])[old].astype(np.int16),
        "threshold": round_down(np.concatenate([t.threshold for t in trees])[old]),
        "missing_left": np.concatenate([t.missing_left for t in trees])[old].astype(np.uint8),
        "value": np.concatenate([t.value for t in trees])[old],
        "trees": np.array([len(trees)], dtype=np.int32),
        "scale": np.array([scale], dtype=np.float64),
    }


def tensorflow() -> ModuleType:
    """Import TensorFlow without its start-up noise; four seconds, so only where it is needed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # its kernels vary from run to run
    import tensorflow as tf  # heavy, see above

    tf.get_logger().setLevel("ERROR")
    return tf  # type: ignore[no-any-return]  # TensorFlow ships no types


def export_lstm(model: Any) -> bytes:
    """Return a Keras forecaster (LSTM layers, then one Dense) as a single int8 step for core.lstm."""
    return lstm_step(model.get_weights())


def lstm_step(weights: Sequence[NDArray[np.floating]], quantize: bool = True) -> bytes:
    """Return one tick of an LSTM forecaster as a LiteRT file, its weights in int8 unless told otherwise.

    `weights` are in Keras' order: kernel (f, 4 u), recurrent kernel (u, 4 u) and bias (4 u) of each layer,
    then kernel (u, f) and bias (f) of the dense one. Inputs are x (b, f) and per layer h and c (b, u);
    outputs the forecast (b, f) and the new states in the same order. The cell is written by hand over
    constants because converting a Keras model writes a file without weights or one with hidden state.
    """
    tf = tensorflow()
    *recurrent, kernel, bias = (np.asarray(array, dtype=np.float32) for array in weights)
    layers = [recurrent[i : i + 3] for i in range(0, len(recurrent), 3)]
    sizes = [("x", layers[0][0].shape[0])]
    for number, (_, u, _) in enumerate(layers, start=1):
        sizes += [(f"h{number}", u.shape[0]), (f"c{number}", u.shape[0])]
    signature = [tf.TensorSpec((None, size), tf.float32, name=name) for name, size in sizes]

    def step(x: Any, *states: Any) -> tuple[Any, ...]:
        """One tick through every layer; gates in Keras' order: input, forget, cell, output."""
        after = []
        for (w, u, b), h, c in zip(layers, states[0::2], states[1::2], strict=True):
            i, f, g, o = tf.split(tf.matmul(x, w) + tf.matmul(h, u) + b, 4, axis=1)
            carried = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            x = tf.sigmoid(o) * tf.tanh(carried)
            after += [x, carried]
        return (tf.matmul(x, kernel) + bias, *after)

    concrete = tf.function(step, input_signature=signature).get_concrete_function()
    # Without a trackable object, which the converter asks for with a warning: with one it goes through
    # a SavedModel, whose inputs and outputs come in any order.
    with _quietly():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with _quietly():
        return bytes(converter.convert())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Drop what the converter says: Python warnings, and native code writing to file descriptor 2."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    saved = os.dup(2)
    with Path(os.devnull).open("wb") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        log.setLevel(level)
