"""One tick of an LSTM forecaster in the LiteRT runtime, with its memory kept outside the model.

The file is a single step: inputs x (b, f) and, per layer, h and c (b, units); outputs the forecast
of the next tick (b, f) and the new h and c in the same order. Nothing inside the model remembers,
so a batch of nodes, a replay and a restart after a crash are all the same arithmetic.

The native runtime can crash on a damaged flatbuffer, which no `except` catches: callers verify the
bundle's digests first. What is caught here is a *valid* model that is not the step that was agreed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from node_anomaly_core.errors import BundleError

MAX_CONTENT_BYTES = 8 << 20
MAX_LAYERS = 4
MAX_UNITS = 512
MAX_FEATURES = 1024
MAX_TENSORS = 512

# All that an LSTM step is made of. No loop, no call into another subgraph, no operator that makes a
# large tensor out of a small one, nothing custom: the file stays data.
ALLOWED_OPERATORS = frozenset({
    "ADD", "CONCATENATION", "DEQUANTIZE", "FULLY_CONNECTED", "LOGISTIC", "MUL", "QUANTIZE", "RESHAPE",
    "SPLIT", "SPLIT_V", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE", "DELEGATE",
})  # fmt: skip


class StepLSTM:
    """A forecaster over `batch` independent nodes; call `step` once per tick. Not thread-safe."""

    def __init__(self, content: bytes, n_features: int, batch: int = 1) -> None:
        """Load the step and try it once on zeros; raises BundleError("model") if it is not as agreed."""
        if len(content) > MAX_CONTENT_BYTES:
            raise _refused(f"{len(content)} bytes, more than {MAX_CONTENT_BYTES}")
        if content[4:8] != b"TFL3":
            raise _refused("it is not a LiteRT flatbuffer")
        if not 0 < n_features <= MAX_FEATURES or batch < 1:
            raise ValueError(f"n_features {n_features} and batch {batch} must be positive and bounded")
        self.n_features = n_features
        self.batch = batch
        try:
            # Without XNNPACK: at this size it saves 8 us per tick, and costs 0.7 MiB and a line on stderr.
            self._interpreter = Interpreter(
                model_content=content,
                num_threads=1,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            _check_operators(self._interpreter)
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
            self.units = _checked_units(inputs, outputs, n_features)
            for detail in inputs:
                self._interpreter.resize_tensor_input(detail["index"], [batch, int(detail["shape"][1])])
            self._interpreter.allocate_tensors()
            self._inputs = [int(detail["index"]) for detail in inputs]
            self._outputs = [int(detail["index"]) for detail in outputs]
            self.reset()
            self._check_trial()
        except (RuntimeError, ValueError) as error:
            raise _refused(f"the runtime does not take it: {error}") from error

    def reset(self) -> None:
        """Forget everything: all states zero, as at the start of a training sequence."""
        sizes = [size for units in self.units for size in (units, units)]
        self._state = [np.zeros((self.batch, size), dtype=np.float32) for size in sizes]

    def step(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """Take x (batch, n_features) of this tick; return the forecast (batch, n_features) of the next.

        x must be finite: the caller decides what stands for a missing value. A row for which it is
        not gets a forecast of NaN and keeps the memory it had, so one bad tick never lasts.
        """
        if x.shape != (self.batch, self.n_features):
            raise ValueError(f"x has shape {x.shape}, expected ({self.batch}, {self.n_features})")
        x = np.ascontiguousarray(x, dtype=np.float32)
        fed = _not_finite(x)
        if fed is not None:  # int8 arithmetic would make a plausible number of it, so the output cannot tell
            x = np.where(fed[:, None], np.float32(0.0), x)
        forecast, state = self._invoke(x)
        for bad in (fed, _not_finite(forecast)):
            if bad is not None:
                forecast[bad] = np.nan
                for after, before in zip(state, self._state, strict=True):
                    after[bad] = before[bad]
        self._state = state
        return forecast

    def state(self) -> list[NDArray[np.float32]]:
        """Copy the memory: per layer h (batch, units) and c (batch, units)."""
        return [array.copy() for array in self._state]

    def restore(self, state: Sequence[NDArray[np.floating]]) -> bool:
        """Take a memory that `state` gave; False, and no change, if it does not fit or is not finite."""
        if [array.shape for array in state] != [array.shape for array in self._state]:
            return False
        taken = [np.array(array, dtype=np.float32) for array in state]
        if not all(np.isfinite(array).all() for array in taken):
            return False
        self._state = taken
        return True

    def _invoke(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        interpreter = self._interpreter
        for index, array in zip(self._inputs, [x, *self._state], strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        forecast, *state = (interpreter.get_tensor(index) for index in self._outputs)
        return forecast, state

    def _check_trial(self) -> None:
        """Run once on zeros: the shapes must come out as they went in, and be numbers."""
        forecast, state = self._invoke(np.zeros((self.batch, self.n_features), dtype=np.float32))
        shapes = [array.shape for array in (forecast, *state)]
        expected = [(self.batch, self.n_features), *(array.shape for array in self._state)]
        if shapes != expected:
            raise _refused(f"it returns shapes {shapes}, expected {expected}")
        if not all(np.isfinite(array).all() for array in (forecast, *state)):
            raise _refused("its forecast of a quiet tick is not a number")


def _not_finite(rows: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Which rows (n,) of (n, m) hold anything that is no number; None if none does, as nearly always."""
    finite = np.isfinite(rows)
    return None if np.count_nonzero(finite) == finite.size else np.asarray(~finite.all(axis=1))


def _refused(message: str) -> BundleError:
    return BundleError("model", f"lstm: {message}", "export the model again with this version's trainer")


def _check_operators(interpreter: Any) -> None:
    """Refuse any operator outside ALLOWED_OPERATORS, before a single tensor is allocated."""
    used = {str(detail["op_name"]) for detail in interpreter._get_ops_details()}  # noqa: SLF001  # no public way
    if not used <= ALLOWED_OPERATORS:
        raise _refused(f"it uses {', '.join(sorted(used - ALLOWED_OPERATORS))}, which no LSTM step needs")
    tensors = len(interpreter.get_tensor_details())
    if tensors > MAX_TENSORS:
        raise _refused(f"{tensors} tensors, more than {MAX_TENSORS}")


def _checked_units(
    inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]], n_features: int
) -> tuple[int, ...]:
    """Return the units of each layer after checking that inputs and outputs are x and pairs of states."""
    if len(inputs) != len(outputs) or len(inputs) not in range(3, 2 * MAX_LAYERS + 2, 2):
        raise _refused(f"{len(inputs)} inputs and {len(outputs)} outputs, expected x and pairs of states")
    for detail in (*inputs, *outputs):
        if detail["dtype"] is not np.float32 or len(detail["shape"]) != 2:
            raise _refused(f"{detail['name']} is not a matrix of float32")
    names = ["x", *(f"{kind}{layer}" for layer in range(1, len(inputs) // 2 + 1) for kind in "hc")]
    if [detail["name"] for detail in inputs] != names:
        raise _refused(f"its inputs are {[detail['name'] for detail in inputs]}, expected {names}")
    sizes = [int(detail["shape"][1]) for detail in inputs]
    if sizes[0] != n_features:
        raise _refused(f"it forecasts {sizes[0]} features, the bundle has {n_features}")
    units = tuple(sizes[1::2])
    if units != tuple(sizes[2::2]) or not all(0 < size <= MAX_UNITS for size in units):
        raise _refused(f"states of {sizes[1:]} units are not pairs of 1..{MAX_UNITS}")
    return units
