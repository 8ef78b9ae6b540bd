"""Bundles as users of core see them: verify one, write one, switch to one.

`verify_bundle` is the only door: digests before parsing (bundle_store), strict structure (manifest, tensors,
forest, lstm), then the golden vectors: a short history with the scores that the trainer got for it. A runtime
that computes something else - another CPU's rounding is allowed for, a damaged or misread model is not - is
refused here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.bundle_store import (
    CURRENT,
    DIGEST,
    MANIFEST,
    SIGNATURE,
    Bundle,
    activate,
    add_signature,
    adopt_bundle,
    read_bundle,
    resolve_current,
    starter_bundle,
    write_bundle,
)
from node_anomaly_core.errors import BundleError
from node_anomaly_core.manifest import Manifest, ModelEntry
from node_anomaly_core.scoring import NodeScorer
from node_anomaly_core.signing import PublicKey
from node_anomaly_core.tensors import read_tensors
from node_anomaly_core.threshold import STEP

__all__ = [
    "CURRENT",
    "DIGEST",
    "GOLDEN_FILE",
    "MANIFEST",
    "SIGNATURE",
    "Bundle",
    "Manifest",
    "ModelEntry",
    "activate",
    "add_signature",
    "adopt_bundle",
    "golden_scores",
    "read_bundle",
    "resolve_current",
    "starter_bundle",
    "verify_bundle",
    "write_bundle",
]

GOLDEN_FILE = "golden.safetensors"
GOLDEN_TOLERANCE = 0.05
"""Largest difference of any golden score.

Int8 kernels of two CPUs may differ, a wrong model differs by more.
"""

_MOST_GOLDEN_ROWS = 256
_GOLDEN_START = 1_700_000_000.0


def verify_bundle(path: Path, trusted: Iterable[PublicKey] = ()) -> Bundle:
    """Read, check and self-test a bundle directory, signed by one of the `trusted` keys if there are any.

    Raises BundleError with one of BUNDLE_REASONS.
    """
    bundle = read_bundle(path, trusted)
    if GOLDEN_FILE not in bundle.files:
        raise BundleError("manifest", f"{path} has no {GOLDEN_FILE}", "publish the bundle again")
    golden = read_tensors(bundle.files[GOLDEN_FILE])
    width = len(bundle.manifest.features)
    values, recorded = golden.get("values"), golden.get("scores")
    if values is None or recorded is None or values.ndim != 2 or values.shape[1] != width:
        raise BundleError(
            "model", f"{path / GOLDEN_FILE} has no values for {width} features", "publish again"
        )
    if not 0 < len(values) <= _MOST_GOLDEN_ROWS:
        raise BundleError("model", f"{path / GOLDEN_FILE} has {len(values)} rows", "publish again")
    computed = golden_scores(bundle, values.astype(np.float64))
    if computed.shape != recorded.shape or not _agree(computed, recorded.astype(np.float64)):
        raise BundleError(
            "selftest",
            f"{path}: the golden vectors give other scores than when it was trained",
            "compare the agent's and the trainer's versions of ai-edge-litert; publish the bundle again",
        )
    return bundle


def golden_scores(bundle: Bundle, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (n, 1 + models) of rows (n, f) for a node the bundle does not know; NaN until warm.

    The threshold stands where training put it: what is tried is the models' arithmetic, and a version whose
    threshold moves otherwise must not refuse their bundle.
    """
    scorer = NodeScorer(bundle, bundle.manifest.interval_s, threshold_update_s=math.inf)
    rows = []
    for tick, row in enumerate(values):
        score = scorer.step(_GOLDEN_START + tick * bundle.manifest.interval_s, row)
        rows.append([score.score, *(score.model_scores[model.name] for model in bundle.manifest.models)])
    return np.array(rows)


def _agree(computed: NDArray[np.float64], recorded: NDArray[np.float64]) -> bool:
    allowed = GOLDEN_TOLERANCE * np.maximum(1.0, np.abs(recorded))
    sides = (computed >= 1.0) != (
        recorded >= 1.0
    )  # a score steps where the threshold lies (threshold.around)
    allowed = allowed + np.where(sides, STEP, 0.0)
    same = (np.isnan(computed) & np.isnan(recorded)) | (np.abs(computed - recorded) <= allowed)
    # an infinite score would allow any other; nothing but NaN would show nothing
    return bool(same.all() and np.isfinite(recorded).any() and not np.isinf(recorded).any())
