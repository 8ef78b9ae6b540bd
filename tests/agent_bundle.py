"""A small but complete bundle, built from plain arrays: one isolation forest over the real summary.

Large residuals end in short paths, so a node whose features jump scores high. It passes verify_bundle as any
bundle does, in milliseconds, without a training library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from node_anomaly_core.bundle import GOLDEN_FILE, Bundle, activate, golden_scores, write_bundle
from node_anomaly_core.calibration import MemberScale, Tail
from node_anomaly_core.features import CATALOGUE, Feature
from node_anomaly_core.manifest import Manifest, ModelEntry
from node_anomaly_core.members import COHORT_FILE
from node_anomaly_core.relations import past_width
from node_anomaly_core.residuals import BLOCKS, CENTRED
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_core.tensors import write_tensors

INTERVAL_S = 15.0


def publish(root: Path, **options: Any) -> str:
    """Write a bundle below `root`, see make_bundle, make it the current one, and return its version."""
    path = make_bundle(root, **options)
    activate(root, path.name)
    return path.name


def make_bundle(
    root: Path,
    *,
    trained_at: float = 1_700_000_000.0,
    features: Sequence[Feature] = CATALOGUE,
    interval_s: float = INTERVAL_S,
    nodes: Sequence[str] = (),
    alarm_log10p: float = -5.0,
) -> Path:
    """Write a bundle below `root`; bundles differ in version by `trained_at`.

    `nodes` are known by name and by nothing else: each is warm, and learns what it is like, in ten ticks.
    Its forest rates nothing as rarer than 1e-4.5, so that it alarms only with an `alarm_log10p` above that.
    """
    tail = Tail((0.0, 1.0, 2.0), (0.0, -2.0, -4.0), alarm_log10p)
    manifest = Manifest(
        features=tuple(features),
        interval_s=interval_s,
        models=(
            ModelEntry(
                "isolation_forest",
                "isolation_forest",
                "forest.safetensors",
                "summary",
                MemberScale(0.5, 0.6),
                tail,
            ),
        ),
        tail=tail,
        budget_per_week=1.0,
        trained_at=trained_at,
        origin="trained",
        nodes=tuple(nodes),
        provenance={"source": "a test"},
        files={},
    )
    files = {"forest.safetensors": _forest(), COHORT_FILE: _cohort(len(features), len(nodes))}
    ticks = max(20, round(60.0 / interval_s)) + 20  # until a node that is not known is warm, and some more
    values = np.random.default_rng(0).normal(10.0, 1.0, (ticks, len(features)))
    values[-3:] *= 5.0
    scores = golden_scores(Bundle(root, "", manifest, files), values)
    files[GOLDEN_FILE] = write_tensors({"values": values, "scores": scores})
    return write_bundle(root, manifest, files)


def _forest(trees: int = 10) -> bytes:
    """Stumps: the first number of a block's summary above 1.2 ends after 1 step, else after 10."""
    left = np.full(3 * trees, -1, dtype=np.int32)
    left[:trees] = trees + 2 * np.arange(trees)
    feature = np.full(3 * trees, -1, dtype=np.int16)
    feature[:trees] = (np.arange(trees) % len(BLOCKS)) * (SUMMARY_WIDTH // len(BLOCKS))
    threshold = np.zeros(3 * trees, dtype=np.float32)
    threshold[:trees] = 1.2
    missing_left = np.zeros(3 * trees, dtype=np.uint8)
    missing_left[:trees] = 1
    value = np.empty(3 * trees)
    value[:trees] = 9.0
    value[trees::2], value[trees + 1 :: 2] = 10.0, 1.0
    return write_tensors(
        {
            "left": left,
            "feature": feature,
            "threshold": threshold,
            "missing_left": missing_left,
            "value": value,
            "trees": np.array([trees], dtype=np.int32),
            "scale": np.array([10.0 * trees]),
        }
    )


def _cohort(features: int, nodes: int) -> bytes:
    blocks = len(BLOCKS)
    still = np.zeros((blocks, features))
    still[CENTRED] = np.log(0.1)  # the spread of what does not move
    return write_tensors(
        {
            "prior_spread": np.full(features, 1e-3),
            "prior_relative": np.full(features, 0.05),
            "prior_residual_centre": still,
            "prior_residual": np.ones((blocks, features)),
            "summary_mean": np.full(SUMMARY_WIDTH, 0.3),
            "summary_scale": np.ones(SUMMARY_WIDTH),
            "forecast_scale": np.ones(features),
            "components": np.eye(1, features),
            "partial": np.eye(features),
            "autoregression": np.zeros((past_width(features), features)),
            "node_centre": np.full((nodes, features), np.nan),
            "node_scale": np.ones((nodes, features)),
            "node_residual_centre": np.tile(still, (nodes, 1, 1)),
            "node_residual": np.ones((nodes, blocks, features)),
        }
    )
