"""The step LSTM computes Keras' cell, keeps its memory outside, and refuses a file that is anything else."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from node_anomaly_core.errors import BundleError
from node_anomaly_core.lstm import MAX_CONTENT_BYTES, StepLSTM
from node_anomaly_trainer.export import lstm_step, tensorflow

FEATURES, UNITS = 5, (24, 16)


def random_weights(seed: int) -> list[NDArray[np.float32]]:
    """Weights of two LSTM layers and a dense one, in Keras' order."""
    rng = np.random.default_rng(seed)
    shapes: list[tuple[int, ...]] = []
    width = FEATURES
    for units in UNITS:
        shapes += [(width, 4 * units), (units, 4 * units), (4 * units,)]
        width = units
    shapes += [(width, FEATURES), (FEATURES,)]
    return [rng.normal(scale=0.3, size=shape).astype(np.float32) for shape in shapes]


def numpy_forecasts(weights: list[NDArray[np.float32]], xs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The textbook cell over ticks (t, b, f), with gates in Keras' order."""

    def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1.0 / (1.0 + np.exp(-z))

    states = [[np.zeros((xs.shape[1], u)), np.zeros((xs.shape[1], u))] for u in UNITS]
    forecasts = []
    for tick in xs:
        x = tick.astype(np.float64)
        for layer, (h, carried) in enumerate(states):
            w, u, b = weights[3 * layer : 3 * layer + 3]
            i, f, g, o = np.split(x @ w + h @ u + b, 4, axis=1)
            c = sigmoid(f) * carried + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(c)
            states[layer] = [x, c]
        forecasts.append(x @ weights[-2] + weights[-1])
    return np.array(forecasts)


@pytest.fixture(scope="module")
def weights() -> list[NDArray[np.float32]]:
    return random_weights(0)


@pytest.fixture(scope="module")
def exact(weights) -> bytes:
    return lstm_step(weights, quantize=False)


@pytest.fixture(scope="module")
def quantized(weights) -> bytes:
    return lstm_step(weights)


@pytest.fixture
def ticks() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(40, 3, FEATURES)).astype(np.float32)


def run(lstm: StepLSTM, ticks: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.array([lstm.step(tick) for tick in ticks])


def test_the_float_step_is_the_textbook_cell(exact, weights, ticks):
    """Without quantization only rounding is left between the runtime and numpy."""
    lstm = StepLSTM(exact, FEATURES, batch=3)
    assert lstm.units == UNITS
    np.testing.assert_allclose(run(lstm, ticks), numpy_forecasts(weights, ticks), atol=1e-5)


def test_the_int8_step_is_close_and_smaller(exact, quantized, weights, ticks):
    """Quantized weights cost little accuracy and save bytes."""
    assert len(quantized) < len(exact)
    error = np.abs(run(StepLSTM(quantized, FEATURES, batch=3), ticks) - numpy_forecasts(weights, ticks))
    assert error.max() < 0.15


def test_nodes_of_a_batch_do_not_see_each_other(quantized, ticks):
    """A batch of nodes forecasts what each node alone would."""
    together = run(StepLSTM(quantized, FEATURES, batch=3), ticks)
    alone = [run(StepLSTM(quantized, FEATURES), ticks[:, n : n + 1]) for n in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone, axis=1), atol=1e-6)


def test_a_restored_memory_continues_as_if_nothing_happened(quantized, ticks):
    """Ticks before and after a restart give the forecasts of one uninterrupted run."""
    whole = run(StepLSTM(quantized, FEATURES, batch=3), ticks)
    first = StepLSTM(quantized, FEATURES, batch=3)
    run(first, ticks[:20])
    second = StepLSTM(quantized, FEATURES, batch=3)
    assert second.restore(first.state())
    np.testing.assert_array_equal(run(second, ticks[20:]), whole[20:])
    second.reset()
    np.testing.assert_array_equal(run(second, ticks), whole)


def test_a_memory_that_does_not_fit_changes_nothing(quantized, ticks):
    """States of other shapes, or holding NaN, are declined."""
    lstm = StepLSTM(quantized, FEATURES, batch=3)
    run(lstm, ticks[:3])
    before = lstm.state()
    poisoned = lstm.state()
    poisoned[2][1, 0] = np.nan
    assert not lstm.restore([])
    assert not lstm.restore([array[:1] for array in before])
    assert not lstm.restore(poisoned)
    for now, then in zip(lstm.state(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_memory_handed_out_is_a_copy(quantized, ticks):
    """Writing into what state() returned does not reach the forecaster."""
    lstm = StepLSTM(quantized, FEATURES, batch=3)
    run(lstm, ticks[:3])
    lstm.state()[0][:] = 7.0
    assert not np.any(lstm.state()[0] == 7.0)


def test_a_tick_that_is_not_a_number_is_unknown_and_forgotten(quantized, ticks):
    """NaN input gives that node a NaN forecast once; its memory, and every other node, go on."""
    damaged = ticks.copy()
    damaged[10, 1, 2] = np.nan
    before = damaged.copy()
    forecasts = run(StepLSTM(quantized, FEATURES, batch=3), damaged)
    np.testing.assert_array_equal(damaged, before)
    assert np.isnan(forecasts[10, 1]).all()
    assert np.isnan(forecasts).sum() == FEATURES
    without = run(StepLSTM(quantized, FEATURES, batch=3), np.delete(ticks, 10, axis=0))
    np.testing.assert_array_equal(forecasts[11:, 1], without[10:, 1])
    np.testing.assert_array_equal(forecasts[:, 0], run(StepLSTM(quantized, FEATURES, batch=3), ticks)[:, 0])


@pytest.mark.parametrize("shape", [(5,), (1, 5), (3, 4)], ids=["flat", "other batch", "narrow"])
def test_a_tick_of_another_shape_is_a_programming_error(quantized, shape):
    """The batch and the width are fixed when the step is loaded."""
    with pytest.raises(ValueError, match="expected"):
        StepLSTM(quantized, FEATURES, batch=3).step(np.zeros(shape))


def test_an_impossible_batch_is_a_programming_error(quantized):
    """A batch below one is the caller's mistake, not the bundle's."""
    with pytest.raises(ValueError, match="batch"):
        StepLSTM(quantized, FEATURES, batch=0)


def test_files_that_are_no_step_of_these_features_are_refused(quantized):
    """Other content, too much of it, or a model of another width is a BundleError."""
    for content, features in [
        (b"", FEATURES),
        (b"\x80\x04pickle", FEATURES),
        (b"\0" * (MAX_CONTENT_BYTES + 1), FEATURES),
        (quantized, FEATURES + 1),
        (quantized[:4] + b"TFL3", FEATURES),
    ]:
        with pytest.raises(BundleError) as caught:
            StepLSTM(content, features)
        assert caught.value.reason == "model"
        assert caught.value.hint


def convert(function: Any, *signature: tuple[tuple[int | None, ...], str]) -> bytes:
    """A LiteRT file of any function over inputs of these shapes and dtypes."""
    tf = tensorflow()
    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in signature]
    concrete = tf.function(function, input_signature=specs).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


X, H = ((None, FEATURES), "float32"), ((None, 4), "float32")
IMPOSTORS = {
    "no states": (lambda x: (x + 1.0,), [X]),
    "states first": (lambda h1, c1, x: (h1 + 1.0, c1 + 1.0, x + 1.0), [X, X, X]),
    "integers": (lambda x, h1, c1: (x + 1, h1 + 1.0, c1 + 1.0), [((None, FEATURES), "int32"), H, H]),
    "unequal states": (lambda x, h1, c1: (x + 1.0, h1 + 1.0, c1 + 1.0), [X, H, ((None, 3), "float32")]),
    "swapped outputs": (lambda x, h1, c1: (h1 + 1.0, x + 1.0, c1 + 1.0), [X, H, H]),
    "not a number": (lambda x, h1, c1: (x + np.float32(np.nan), h1 + 1.0, c1 + 1.0), [X, H, H]),
    "another operator": (lambda x, h1, c1: (x // 3.0, h1 + 1.0, c1 + 1.0), [X, H, H]),
}


@pytest.mark.parametrize("impostor", IMPOSTORS.values(), ids=IMPOSTORS.keys())
def test_a_valid_model_that_is_no_step_is_refused(impostor):
    """The runtime would run these; the node does not."""
    function, signature = impostor
    content = convert(function, *signature)
    with pytest.raises(BundleError) as caught:
        StepLSTM(content, FEATURES)
    assert caught.value.reason == "model"
