"""What is normal for one node: a robust centre and scale per feature, and the usual size of its residuals.

Used by the trainer on a node's history and by the agent on what it has seen so far; with few rows the
estimate leans on what the cohort of the bundle was like (`Prior`), so a fresh node neither screams nor
sleeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.quantiles import column_medians, column_quantiles

PRIOR_ROWS = 240
"""Rows a node must bring before its own estimate weighs as much as the cohort's: an hour at 15 s."""

LEAST_RESIDUAL_SCALE = 0.05
"""A residual smaller than this share of a scale is never called large (recipe, step 2)."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Centre and scale (f,) in the features' units; of residuals (blocks, f) in compressed units."""

    centre: Array
    scale: Array
    residual_centre: Array
    residual_scale: Array


@dataclass(frozen=True, slots=True)
class Prior:
    """The cohort's typical scale (f,), scale relative to the centre (f,), and of residuals (blocks, f)."""

    spread: Array
    relative: Array
    residual_centre: Array
    residual_scale: Array


def compress(values: Array, centre: Array, scale: Array) -> Array:
    """`sign(z) log1p|z|` of the standardised values.

    A first move of a flat metric is large, but bounded in effect.
    """
    z = (values - centre) / scale
    return np.sign(z) * np.log1p(np.abs(z))


def expand(compressed: Array, centre: Array, scale: Array) -> Array:
    """Inverse of `compress`: back to the features' units."""
    return centre + scale * np.sign(compressed) * np.expm1(np.abs(compressed))


def robust_scale(values: Array, floor: Array) -> tuple[Array, Array]:
    """Centre and scale (f,) of rows (n, f), NaN ignored; step 1 of the recipe.

    The scale is `max(IQR / 1.349, 0.5 std, 0.01 range, 0.01 |median|, floor)`. A feature
    that was never observed gets centre NaN and its floor as scale.
    """
    centre = np.full(values.shape[1], np.nan)
    scale = np.array(floor, dtype=np.float64, copy=True)
    seen = np.isfinite(values).any(axis=0)
    if seen.any():
        rows = np.asarray(values[:, seen], dtype=np.float64)
        low, middle, high = column_quantiles(rows, (0.25, 0.5, 0.75))
        spread = np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
        centre[seen] = middle
        scale[seen] = np.maximum.reduce(
            [
                (high - low) / 1.349,
                0.5 * np.nanstd(rows, axis=0),
                0.01 * spread,
                0.01 * np.abs(middle),
                scale[seen],
            ]
        )
    return centre, scale


def residual_centre(residuals: NDArray[np.floating], centred: slice) -> Array:
    """Usual value (blocks, f) of residuals (n, blocks, f), NaN ignored.

    The median in the blocks `centred`, 0 in all others; NaN where a residual was never known.
    """
    result = np.where(np.isfinite(residuals).any(axis=0), 0.0, np.nan)
    for block in range(*centred.indices(residuals.shape[1])):
        seen = np.isfinite(result[block])
        result[block, seen] = column_medians(residuals[:, block, seen])
    return result


def residual_scale(residuals: NDArray[np.floating]) -> Array:
    """Usual size (blocks, f) of residuals (n, blocks, f): `max(1.25 mean|r|, q99|r| / 4, 0.05)`, NaN ignored.

    NaN where a residual was never known. Block by block, so that the peak of memory stays small on a node.
    """
    return np.stack([_usual_size(np.abs(residuals[:, block])) for block in range(residuals.shape[1])])


def _usual_size(size: NDArray[np.floating]) -> Array:
    """The same for the sizes (n, f) of one block."""
    known = np.isfinite(size)
    counts = known.sum(axis=0)
    mean = np.where(known, size, 0.0).sum(axis=0, dtype=np.float64) / np.maximum(counts, 1)
    size.sort(axis=0)  # NaN sorts last
    high = size[np.maximum(np.ceil(0.99 * counts).astype(int) - 1, 0), np.arange(size.shape[1])]
    usual = np.maximum(np.maximum(1.25 * mean, high / 4.0), LEAST_RESIDUAL_SCALE)
    return np.where(counts > 0, usual, np.nan)


def lean(own: Array, prior: Array, rows: int | NDArray[np.number]) -> Array:
    """Geometric blend of the node's own estimate with the cohort's, by how many rows it has brought.

    `rows` are those of all features, or of each (f,). Where one of both is unknown (NaN), the other counts
    alone.
    """
    weight = rows / (rows + PRIOR_ROWS)
    with np.errstate(divide="ignore", invalid="ignore"):
        blended = np.exp(weight * np.log(own) + (1 - weight) * np.log(prior))
    return np.where(np.isfinite(blended), blended, np.where(np.isfinite(own), own, prior))


def lean_centre(own: Array, prior: Array, rows: int | NDArray[np.integer]) -> Array:
    """The same for what may have either sign: a plain weighted mean."""
    weight = rows / (rows + PRIOR_ROWS)
    blended = weight * own + (1 - weight) * prior
    return np.where(np.isfinite(blended), blended, prior)


def fit_level(
    values: Array, floor: Array, prior: Prior | None, brought: NDArray[np.floating] | None = None
) -> tuple[Array, Array]:
    """Centre and scale (f,) of rows (n, f), leaning on the prior while rows are few.

    `brought` (f,) says how many each feature has brought where the rows are only some of them. A scale that
    the prior does not know (NaN) is the node's own.
    """
    centre, scale = robust_scale(values, floor)
    if prior is not None:
        expected = np.maximum.reduce(
            [prior.relative * np.abs(np.nan_to_num(centre)), 0.5 * prior.spread, floor]
        )
        rows = np.isfinite(values).sum(axis=0) if brought is None else brought
        scale = np.maximum(lean(scale, expected, rows), floor)
    return centre, scale


def fit_prior(baselines: list[Baseline], floor: Array) -> Prior:
    """The cohort's medians over the baselines of its nodes; features no node had fall back to their floor."""
    scale = np.stack([baseline.scale for baseline in baselines])
    centre = np.stack([baseline.centre for baseline in baselines])
    residual = np.stack([baseline.residual_scale for baseline in baselines])
    usual = np.stack([baseline.residual_centre for baseline in baselines])
    known = np.isfinite(centre)
    return Prior(
        spread=_median(np.where(known, scale, np.nan), floor),
        relative=np.minimum(_median(scale / np.maximum(np.abs(centre), scale), np.zeros_like(floor)), 1.0),
        residual_centre=_median(usual, np.zeros(usual.shape[1:])),
        residual_scale=_median(residual, np.full(residual.shape[1:], 1.0)),
    )


def _median(values: Array, otherwise: Array) -> Array:
    result = np.array(otherwise, dtype=np.float64, copy=True)
    seen = np.isfinite(values).any(axis=0)
    result[seen] = column_medians(values[:, seen])
    return result
