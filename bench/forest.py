"""Forests on a node against scikit-learn: the same scores, and the time of one row.

    python bench/forest.py [--json]

5,000 rows of 128 numbers, a tenth of them missing and a tenth planted exactly on the trees' thresholds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from node_anomaly_core.forest import Forest, log_odds
from node_anomaly_core.tensors import read_tensors, write_tensors
from node_anomaly_trainer.export import export_forest

ROWS, COLUMNS = 5_000, 128


def planted(estimator: Any, rng: np.random.Generator) -> NDArray[np.float64]:
    """Make rows that are easy to get wrong: missing values, and float64 values on thresholds."""
    rows = 1.5 * rng.normal(size=(ROWS, COLUMNS))
    thresholds = np.concatenate(
        [tree.tree_.threshold[tree.tree_.feature >= 0] for tree in estimator.estimators_]
    )
    on_threshold = rng.random(rows.shape) < 0.1
    rows[on_threshold] = rng.choice(thresholds, int(on_threshold.sum()))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def one_row_ms(
    score: Callable[[NDArray[np.float64]], object], rows: NDArray[np.float64], count: int
) -> float:
    """Return the median time of scoring one row alone, in ms."""
    times = []
    for i in range(count):
        row = rows[i : i + 1]
        start = time.perf_counter()
        score(row)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[count // 10 :])


def measure(
    name: str, kind: str, estimator: Any, reference: Callable[[NDArray[np.float64]], Any]
) -> dict[str, Any]:
    """Compare one fitted estimator with its export."""
    rows = planted(estimator, np.random.default_rng(1))
    content = write_tensors(export_forest(estimator))
    forest = Forest.from_tensors(read_tensors(content), kind, COLUMNS)
    ours = one_row_ms(forest.score, rows, 2_000)
    theirs = one_row_ms(reference, rows, 100)
    return {
        "forest": name,
        "nodes": len(forest.table.left),
        "depth": forest.depth,
        "file_kib": round(len(content) / 1024),
        "max_abs_difference": float(np.abs(forest.score(rows) - reference(rows)).max()),
        "one_row_ms": round(ours, 4),
        "one_row_sklearn_ms": round(theirs, 2),
        "times_faster": round(theirs / ours),
    }


def run() -> list[dict[str, Any]]:
    """Measure the forests as they are trained by default, and the small isolation forest beside them."""
    rng = np.random.default_rng(0)
    history = rng.normal(size=(20_000, COLUMNS)).astype(np.float32)
    labels = (history[:, :8].max(axis=1) > 2.5).astype(np.int8)
    small, large = (
        IsolationForest(n_estimators=100, max_samples=samples, max_features=0.5, random_state=0).fit(history)
        for samples in (256, 2048)
    )
    forest = RandomForestClassifier(
        n_estimators=100,
        max_depth=10,
        min_samples_leaf=10,
        class_weight="balanced_subsample",
        random_state=0,
        n_jobs=-1,
    ).fit(history, labels)
    forest.set_params(n_jobs=1)
    return [
        measure("isolation, 256 samples", "isolation_forest", small, lambda x: -small.score_samples(x)),
        measure("isolation, 2048 samples", "isolation_forest", large, lambda x: -large.score_samples(x)),
        measure(
            "random, depth 10", "random_forest", forest, lambda x: log_odds(forest.predict_proba(x)[:, 1])
        ),
    ]


def main() -> None:
    """Print the comparison as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    results = run()
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("| forest | nodes | depth | file | max abs difference | one row | scikit-learn | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for r in results:
        print(
            f"| {r['forest']} | {r['nodes']} | {r['depth']} | {r['file_kib']} KiB "
            f"| {r['max_abs_difference']:.1e} | {r['one_row_ms']:.3f} ms "
            f"| {r['one_row_sklearn_ms']:.1f} ms | {r['times_faster']}x |"
        )


if __name__ == "__main__":
    main()
