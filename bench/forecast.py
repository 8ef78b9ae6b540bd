"""How well does the LSTM foresee, and would its forecasts have warned?

    python bench/forecast.py DATA [--datasets smd,asd] [--entities 'omi-*'] [--json]

DATA is a folder of labelled servers (docs/bench-data.md). Of each server's unlabelled train part three
quarters fit baseline and LSTM; the rest is what the trainer measures the forecast on: features are chosen on
its first half and judged on its second, against persistence, yesterday and the usual level. Then the int8
model is rolled out every five minutes over the labelled test part, as a node does. An alarm is a score of 1
or more in three forecasts in a row. It foresees an event if it is raised before it, by no more than the
horizon; one that is raised during an event, or within the horizon after, is neither right nor false. A
warning that a feature leaves its normal range begins when it is not standing already, and is right if the
feature, within its range when warned of, is outside at some tick until the horizon.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.baseline import compress, fit_level
from node_anomaly_core.calibration import WEEK
from node_anomaly_core.features import Feature
from node_anomaly_core.forecast import CONTEXT_TICKS, EVERY_S, NormalRange, roll_out
from node_anomaly_core.forecast_entry import MAX_STEPS, ForecastEntry, HorizonEntry
from node_anomaly_core.lstm import StepLSTM
from node_anomaly_trainer.bench.data import Entry, choose, load, read_manifest
from node_anomaly_trainer.bench.plan import features_of, values_of
from node_anomaly_trainer.config import parse_config
from node_anomaly_trainer.evaluate import raised
from node_anomaly_trainer.forecast_skill import Exam, MakeLstm, measure, roll_outs
from node_anomaly_trainer.labels import runs
from node_anomaly_trainer.models.interface import TrainingSet
from node_anomaly_trainer.models.lstm import LSTMModel
from node_anomaly_trainer.progress import ignore_report

FIT, CHOOSE = 0.75, 0.875
BUDGET_PER_WEEK = 1.0
COLUMNS = (
    "data", "ahead", "servers", "LSTM", "as it is now", "as yesterday", "as usual", "skill, median",
    "with skill", "features there", "events foreseen", "false alarms a week", "warnings right",
)  # fmt: skip

Array = NDArray[np.float64]


@dataclass
class Warned:
    """What the forecasts of one horizon would have done on a test part."""

    events: int = 0
    foreseen: int = 0
    false_alarms: int = 0
    weeks: float = 0.0
    warnings: int = 0
    right: int = 0


@dataclass
class Result:
    """One server."""

    name: str
    skill: dict[str, float] = field(default_factory=dict)
    """Of all moving features, by horizon in seconds."""
    shown_skill: dict[str, float] = field(default_factory=dict)
    features: dict[str, int] = field(default_factory=dict)
    errors: dict[str, Mapping[str, float]] = field(default_factory=dict)
    warned: dict[str, Warned] = field(default_factory=dict)
    ms_per_look: float = 0.0
    seconds: float = 0.0


def examine(entry: Entry, horizons: Sequence[float], epochs: int) -> Result:
    """Fit, measure, and live through the test part."""
    begun = time.monotonic()
    series, label = load(entry)
    features = features_of(series.columns)
    ticks = len(series.train)
    fit, chosen = int(FIT * ticks), int(CHOOSE * ticks)
    train, test = values_of(series.train), values_of(series.test)
    centre, scale = fit_level(train[:fit], np.array([feature.floor for feature in features]), None)
    rows = compress(np.concatenate([train, test]), centre, scale).astype(np.float32)[:, None]
    content = fitted(rows[:fit], series.interval_s, epochs)

    def make(batch: int) -> StepLSTM:
        return StepLSTM(content, len(features), batch)

    exam = Exam(
        rows, np.ones(rows.shape[:2], bool), slice(0, fit), slice(fit, chosen), slice(chosen, ticks),
        series.interval_s, BUDGET_PER_WEEK,
    )  # fmt: skip
    found = measure(make, features, exam, horizons, ignore_report, lambda _line: None)
    result = Result(entry.name)
    if found is None:
        return result
    lived = slice(ticks, ticks + len(test))
    anomalous = np.zeros(len(rows), dtype=np.bool_)
    anomalous[ticks + series.tick_of_row] = label == 1
    for one in found.horizons:
        key = f"{one.seconds:g}"
        result.skill[key], result.errors[key] = one.overall_skill, one.errors
        result.features[key] = len(one.features)
        if one.features:
            result.shown_skill[key] = one.skill
            result.warned[key] = lived_through(one, found, features, exam, make, lived, anomalous)
    lstm = make(1)
    steps = min(MAX_STEPS, max(round(one.seconds / series.interval_s) for one in found.horizons))
    before = time.process_time()
    for _ in range(5):
        roll_out(lstm, rows[:CONTEXT_TICKS], steps)
    result.ms_per_look = (time.process_time() - before) / 5 * 1e3
    result.seconds = time.monotonic() - begun
    return result


def fitted(rows: NDArray[np.float32], interval_s: float, epochs: int) -> bytes:
    """The exported LSTM of compressed rows (t, 1, f)."""
    nothing = np.zeros((0, 1), dtype=np.float32)
    data = TrainingSet(
        summary=nothing, normalised=nothing, fault_summary=nothing, fault_normalised=nothing,
        fault_labels=np.zeros(0, dtype=np.int8), compressed=rows, mask=np.isfinite(rows),
        interval_s=interval_s,
    )  # fmt: skip
    model = LSTMModel(parse_config({"models": {"lstm": {"epochs": epochs}}}).models.lstm)
    model.fit(data, 0, ignore_report)
    return model.export()


def lived_through(
    one: HorizonEntry,
    found: ForecastEntry,
    features: tuple[Feature, ...],
    exam: Exam,
    make: MakeLstm,
    lived: slice,
    anomalous: NDArray[np.bool_],
) -> Warned:
    """The forecasts of one horizon over a labelled part, counted."""
    steps = round(one.seconds / exam.interval_s)
    trial = roll_outs(make, exam, lived, (steps,), ignore_report, most=len(exam.compressed))
    warned = Warned(events=sum(1 for _ in runs(anomalous[lived])))
    if trial is None or one.tail is None:
        return warned
    bounds = NormalRange(found, features)
    outward = bounds.way_out(trial.ahead[steps][:, 0].astype(np.float64))
    scores = one.tail.score(bounds.level(one.seconds, outward))
    alarms = trial.moments[raised(scores)]
    unaccounted = set(alarms.tolist())
    for start, stop in runs(anomalous):
        before = {tick for tick in unaccounted if start - steps <= tick < start}
        warned.foreseen += bool(before)
        unaccounted -= {tick for tick in unaccounted if start - steps <= tick < stop + steps}
    warned.false_alarms = len(unaccounted)
    warned.weeks = len(trial.moments) * max(EVERY_S, exam.interval_s) / WEEK
    truth = bounds.way_out(exam.compressed[:, 0].astype(np.float64))
    for feature in one.features:
        at = [known.name for known in features].index(feature)
        now = truth[trial.moments, at]
        expected = (outward[:, at] >= 1.0) & (now < 1.0)
        begins = expected & ~np.concatenate([[False], expected[:-1]])
        for tick in trial.moments[begins].tolist():
            warned.warnings += 1
            warned.right += bool((truth[tick + 1 : tick + steps + 1, at] >= 1.0).any())
    return warned


def table(results: Sequence[Result], horizons: Sequence[float]) -> str:
    """One row for each data set and horizon."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|" + "---:|" * (len(COLUMNS) - 2),
    ]
    for dataset in dict.fromkeys(result.name.split("/")[0] for result in results):
        for key in (f"{seconds:g}" for seconds in horizons):
            own = [one for one in results if one.name.startswith(f"{dataset}/") and key in one.skill]
            if not own:
                continue
            warned = [one.warned[key] for one in own if key in one.warned]
            errors = [
                float(np.mean([one.errors[key].get(name, np.nan) for one in own]))
                for name in ("lstm", "persistence", "seasonal_naive", "usual")
            ]
            weeks, tried = sum(one.weeks for one in warned), sum(one.warnings for one in warned)
            shown = [one.features[key] for one in own if one.features[key]]
            lines.append(
                f"| {dataset} | {float(key) / 60:g} min | {len(own)} | "
                + " | ".join(f"{error:.3f}" for error in errors)
                + f" | {np.median([one.skill[key] for one in own]):+.0%} | {len(warned)} "
                f"| {f'{np.mean(shown):.1f}' if shown else ''} "
                f"| {f'{sum(one.foreseen for one in warned)} of {sum(one.events for one in warned)}'} "
                f"| {f'{sum(one.false_alarms for one in warned) / weeks:.1f}' if weeks else ''} "
                f"| {f'{sum(one.right for one in warned)} of {tried}'} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Read the command line, do every server, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--datasets", default="smd,asd")
    parser.add_argument("--entities", default="")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--horizons", default="300,900,3600", help="seconds, with commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    horizons = [float(part) for part in options.horizons.split(",")]
    results = []
    for entry in choose(read_manifest(options.data), options.datasets.split(","), options.entities):
        results.append(examine(entry, horizons, options.epochs))
        print(f"{entry.name}: {results[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([asdict(one) for one in results]))
    else:
        print(table(results, horizons))
        print(f"\none look ahead, an hour: {np.median([one.ms_per_look for one in results]):.1f} ms of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
