"""What a scorer saved, checked when it comes back: a file on disk is nobody's promise.

Shapes are those of one node with f features, b residual blocks, n recent and k thinned rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS
from node_anomaly_core.outgrown import CLOSED
from node_anomaly_core.residuals import BLOCKS, LEVELS
from node_anomaly_core.summary import SUMMARY_WIDTH

_MEMORY: Mapping[str, tuple[int | str, ...]] = {
    "times": ("n",),
    "rows": ("n", "f"),
    "thinned": ("k", "f"),
    "counts": (5,),
    "range": (2, "f"),
    "late": (2, "f"),
    "forest_scores": ("s", "m"),
    "evidence": ("e",),
    "whole_evidence": ("w",),
    "threshold_blocks": ("b",),
    "threshold_level": (4,),
    "threshold_open": (2 + HOLD_TICKS,),
    "threshold_outgrown": (len(CLOSED),),
}
_LEARNT: Mapping[str, tuple[int | str, ...]] = {
    "centre": ("f",),
    "scale": ("f",),
    "residual_centre": (len(BLOCKS), "f"),
    "residual_scale": (len(BLOCKS), "f"),
    "level_level": (len(LEVELS), 1, "f"),
    "level_deviation": (len(LEVELS), 1, "f"),
    "level_seen": (1, "f"),
    "summary_mean": (1, SUMMARY_WIDTH),
    "summary_scale": (1, SUMMARY_WIDTH),
    "summary_ticks": (1,),
}
_SINCE = (
    "late",
    "threshold_open",
    "threshold_outgrown",
)  # which older agents did not save, see what takes it over
_MAY_BE_UNKNOWN = (
    "rows",
    "thinned",
    "centre",
    "level_level",
    "forest_scores",
    "evidence",
    "whole_evidence",
)  # NaN, but never infinite
_COUNTS = ("counts", "late")
_SCALES = ("scale", "residual_scale", "level_deviation", "summary_scale")

Array = NDArray[np.float64]


def checked(state: Mapping[str, NDArray[np.generic]], features: int, most_thinned: int) -> dict[str, Array]:
    """The arrays as float64, all of them there and each as a scorer would have it; raises ValueError.

    What was saved before there were witnesses has one kind of evidence, which was both, and does not say
    whether an alarm was standing.
    """
    if "whole_evidence" not in state and {"evidence", "threshold_level"} <= set(state):
        level = np.append(np.atleast_1d(state["threshold_level"]), 0.0)
        state = dict(state) | {"whole_evidence": state["evidence"], "threshold_level": level}
    shapes = dict(_MEMORY) | (dict(_LEARNT) if "centre" in state else {})
    shapes = {name: shape for name, shape in shapes.items() if name in state or name not in _SINCE}
    if set(state) != set(shapes):
        raise ValueError(f"saved {sorted(set(state) ^ set(shapes))}, which do not belong together")
    sizes = {
        "f": features,
        "n": len(np.atleast_1d(state["times"])),
        "k": len(np.atleast_1d(state["thinned"])),
        "b": len(np.atleast_1d(state["threshold_blocks"])),
        "s": len(np.atleast_1d(state["forest_scores"])),
        "m": np.atleast_2d(state["forest_scores"]).shape[1],
        "e": len(np.atleast_1d(state["evidence"])),
        "w": len(np.atleast_1d(state["whole_evidence"])),
    }
    if sizes["k"] > most_thinned:
        raise ValueError(f"saved {sizes['k']} thinned rows, at most {most_thinned}")
    arrays = {}
    for name, shape in shapes.items():
        array = np.asarray(state[name])
        expected = tuple(sizes[size] if isinstance(size, str) else size for size in shape)
        if array.dtype.kind not in "fi" or array.shape != expected:
            raise ValueError(f"saved {name} is {array.dtype} {array.shape}, expected {expected}")
        arrays[name] = array.astype(np.float64)
        if not _possible(name, arrays[name]):
            raise ValueError(f"saved {name} holds a number that no scorer has")
    return arrays


def _possible(name: str, array: Array) -> bool:
    # infinite, the wrong way round, for a feature that was never seen; below all where nothing was held, and
    # above all where no alarm is open
    if name in ("range", "threshold_blocks", "threshold_open", "threshold_outgrown"):
        return not np.isnan(array).any()
    if name in _MAY_BE_UNKNOWN:
        return not np.isinf(array).any()
    finite = bool(np.isfinite(array).all())
    return finite and bool(
        (array > 0).all() if name in _SCALES else name not in _COUNTS or (array >= 0).all()
    )
