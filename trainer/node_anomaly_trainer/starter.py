"""Make the starter bundle that ships in the wheel: `python -m node_anomaly_trainer.starter`.

Trained on the simulated fleet and calibrated for nodes it has never seen, so that a fresh install scores at
once and adapts to its host. It passes the same gate as any bundle, or nothing is written.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from node_anomaly_core.bundle import starter_bundle, verify_bundle, write_bundle
from node_anomaly_core.errors import AnomalyError
from node_anomaly_core.manifest import Manifest
from node_anomaly_core.members import COHORT_FILE
from node_anomaly_core.tensors import read_tensors, write_tensors
from node_anomaly_trainer import gate
from node_anomaly_trainer.config import TrainConfig, parse_config
from node_anomaly_trainer.pipeline import build
from node_anomaly_trainer.progress import Progress, open_progress
from node_anomaly_trainer.sources import disturbed, fetch

STARTER = {
    "interval": "15s",
    "source": {"type": "synthetic", "synthetic": {"nodes": 12, "range": "3d"}},
    "models": {"isolation_forest": {"max_samples": 512}, "lstm": {"epochs": 20}},
}


def make(root: Path, config: TrainConfig, progress: Progress) -> Path:
    """Train and write the starter to `root`, replacing what is there.

    Raises AnomalyError if the gate refuses.
    """
    with progress.phase("history") as report:
        history = fetch(config, report, progress.note)
    staged = disturbed(config, config.training.faults_per_node_day / 2)
    assessed = build(history, config, progress, staged)
    candidate, evaluation = assessed.candidate, assessed.evaluation
    reasons = gate.judge(evaluation, config.limits)
    if reasons:
        raise AnomalyError(f"the starter was refused: {'; '.join(reasons)}", "change STARTER, not the gate")
    for name, figure in evaluation.fault_recall.items():
        weight = f", weight {evaluation.weights[name]:.2f}" if name in evaluation.weights else ""
        progress.note(f"{name}: {figure:.0%} of {evaluation.faults} faults{weight}")
    manifest, files = nobodys(replace(candidate.manifest, origin="starter"), candidate.files)
    with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
        written = write_bundle(Path(scratch), manifest, files)
        verify_bundle(written)
        shutil.rmtree(root, ignore_errors=True)
        written.rename(root)
    return root


def nobodys(manifest: Manifest, files: Mapping[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """The same bundle without baselines of its own nodes.

    They are simulated, and a host that is called like one of them, web-01 say, would be held against it.
    """
    cohort = read_tensors(files[COHORT_FILE])
    kept = {name: array[:0] if name.startswith("node_") else array for name, array in cohort.items()}
    return replace(manifest, nodes=()), {**files, COHORT_FILE: write_tensors(kept)}


def main() -> int:
    """Entry point of `make starter`."""
    progress = open_progress()
    try:
        path = make(starter_bundle(), parse_config(STARTER), progress)
    except AnomalyError as error:
        progress.note(f"error: {error.message}")
        return 1
    progress.note(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
