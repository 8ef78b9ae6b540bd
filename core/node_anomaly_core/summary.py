"""The summary that forgets which feature is which: residuals of any features -> a fixed row of numbers.

Per block: mean of the top 1, 5 %, 10 %, 20 %, 40 % and of all `log1p|r|`, and the share of features above 3
and 6. One model therefore fits nodes with other devices, missing features and users' own (recipe, step 3).
The online variant sets each number against its own slow mean and scale, which is what keeps drift from
becoming an alarm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.residuals import BLOCKS
from node_anomaly_core.windows import smoothing

TOP_SHARES: tuple[float, ...] = (0.0, 0.05, 0.10, 0.20, 0.40, 1.0)
EXCEEDANCES: tuple[float, ...] = (3.0, 6.0)
WIDTH_PER_BLOCK = len(TOP_SHARES) + len(EXCEEDANCES)
SUMMARY_WIDTH = len(BLOCKS) * WIDTH_PER_BLOCK

_MEAN_HALF_LIFE = 86_400.0
_SCALE_HALF_LIFE = 3 * 86_400.0
_PRIOR_TICKS = 240.0
_LOWEST, _HIGHEST = -10.0, 20.0

Array = NDArray[np.float64]

SIDES = {"high": 1.0, "low": -1.0, "both": 0.0}
"""Which sign of a residual counts: a feature whose rise alone is anomalous is silent when it falls."""


_SHARES = np.array(TOP_SHARES)
_LEVELS = np.array(EXCEEDANCES)[:, None]


def top_counts(known: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many features each top share covers (..., len(TOP_SHARES)), given how many are known (...)."""
    counts: NDArray[np.int64] = np.maximum(1, np.rint(_SHARES * known[..., None])).astype(np.int64)
    return counts


def summarise(scaled: Array) -> Array:
    """Summary (m, SUMMARY_WIDTH) of scaled one-sided residuals (m, blocks, f), NaN for an empty block.

    A feature that is missing weighs nothing: the row equals that of a node which never had it.
    """
    size = np.abs(scaled)
    known = np.isfinite(size)
    counts = np.add.reduce(known, axis=-1)  # what sum() calls, without its wrapper
    ordered = np.where(known, -np.log1p(size), np.inf)
    ordered.sort(axis=-1)  # largest first, unknown last and never reached
    sums = np.add.accumulate(ordered, axis=-1)
    tops = top_counts(counts)
    first = np.arange(0, sums.size, size.shape[-1]).reshape(*counts.shape, 1)  # of each block in flat sums
    means = sums.reshape(-1).take(first + (tops - 1)) / -tops
    beyond = np.add.reduce(size[..., None, :] > _LEVELS, axis=-1) / np.maximum(counts, 1)[..., None]
    result = np.concatenate([means, beyond], axis=-1)
    empty = counts == 0
    if np.count_nonzero(empty):
        result[empty] = np.nan
    return result.reshape(len(scaled), -1)


class OnlineNormaliser:
    """Each summary number against its own slow mean (half-life 1 day) and scale (3 days).

    Clipped to -10..20.
    """

    def __init__(self, nodes: int, mean: Array, scale: Array, interval_s: float) -> None:
        self._mean = np.repeat(mean[None], nodes, axis=0)
        self._scale = np.repeat(scale[None], nodes, axis=0)
        self._ticks = 0.0
        self._mean_weight = smoothing(_MEAN_HALF_LIFE, interval_s)
        self._scale_weight = smoothing(_SCALE_HALF_LIFE, interval_s)

    def step(self, summary: Array, learn: NDArray[np.bool_] | None = None) -> Array:
        """Normalised summary (m, width); the row itself is learnt only after it was judged.

        Nodes (m,) whose `learn` is False do not learn it at all.
        """
        deviation = summary - self._mean
        result = np.minimum(np.maximum(deviation / self._scale, _LOWEST), _HIGHEST)
        known = np.isfinite(summary)
        if learn is not None:
            known &= learn[:, None]
        start = 1.0 / (self._ticks + _PRIOR_TICKS)
        limit = 5 * self._scale
        np.add(
            self._mean,
            max(self._mean_weight, start) * np.minimum(np.maximum(deviation, -limit), limit),
            out=self._mean,
            where=known,
        )
        size = 1.25 * np.minimum(np.abs(deviation), limit)
        np.add(
            self._scale, max(self._scale_weight, start) * (size - self._scale), out=self._scale, where=known
        )
        np.maximum(self._scale, 1e-3, out=self._scale)
        self._ticks += 1.0
        return result

    def state(self) -> dict[str, Array]:
        """What was learnt so far, to survive a restart."""
        return {"mean": self._mean.copy(), "scale": self._scale.copy(), "ticks": np.array([self._ticks])}

    def restore(self, state: dict[str, Array]) -> None:
        """Take over what `state` saved; raises ValueError if the shapes differ."""
        if state["mean"].shape != self._mean.shape or state["scale"].shape != self._scale.shape:
            raise ValueError(f"saved summary has shape {state['mean'].shape}, expected {self._mean.shape}")
        self._mean = np.array(state["mean"])
        self._scale = np.array(state["scale"])
        self._ticks = float(state["ticks"][0])
