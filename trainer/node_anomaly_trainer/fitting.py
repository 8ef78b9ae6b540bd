"""Baselines, the summary's scale and every member, fitted on the early part of the history alone."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core import __version__
from node_anomaly_core.baseline import residual_scale
from node_anomaly_core.errors import TrainingError
from node_anomaly_core.evidence import FORECAST_CLIP
from node_anomaly_core.log_errors import LOG_ERRORS, complaint_columns
from node_anomaly_core.manifest import Manifest, ModelEntry
from node_anomaly_core.members import COHORT_FILE, Models
from node_anomaly_core.tensors import write_tensors
from node_anomaly_core.threshold import tight
from node_anomaly_core.witnesses import Witness
from node_anomaly_trainer.arrays import Empty, in_memory
from node_anomaly_trainer.calibrate import PLACEHOLDER_SCALE, PLACEHOLDER_TAIL
from node_anomaly_trainer.candidate import Candidate, Parts, part_of
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL
from node_anomaly_trainer.labels import count_events
from node_anomaly_trainer.models import MODELS, Model, TrainingSet
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.replay import Replayed, fit_cohort, replay_residuals, with_summary

BURN_IN_TICKS = 120
"""Windows that are still filling say little about normal; but a short history gives up a quarter at most."""

MOST_FOREST_ROWS = 40_000
MOST_FAULTY_ROWS = 200_000
"""More than fifty nodes have in two weeks. What the forest takes to fit grows with them.

Figures are in bench/results/training.md.
"""

FORECAST_SCALE_TICKS = 4_000
LEAST_HEARD = 480
"""Normal node-ticks with log features, in each part that is held back: less calibrates nothing."""

AUTOREGRESSION, FOREST = "autoregression", "random_forest"
OF_THE_COHORT = (AUTOREGRESSION, LOG_ERRORS)  # members without a file of their own
WEIGHTS = {"isolation_forest": 2.0, "isolation_forest_absolute": 2.0, "kmeans": 0.5, LOG_ERRORS: 2.0}
"""Of members that do not weigh 1, chosen by means over real servers (docs/adr/0023); the last by what an
incident in logs needs (docs/adr/0028), for the open servers have none."""

FOREST_WEIGHT = {False: 0.5, True: 2.0}
"""Of the Random Forest: injected faults teach little, real incidents much (docs/adr/0030)."""

WITNESSES = (
    Witness(("lstm",), 0.9),
    Witness(("isolation_forest", "isolation_forest_absolute"), 0.7),
)
"""Of an alarm under a tight budget: the forecaster, and one of the Isolation Forests (docs/adr/0031)."""

TAUGHT_BY = "random_forest_taught_by"
"""In the provenance: what the Random Forest learnt from."""

FAULT_GUARD_TICKS = 30  # around a fault, where the summary still or already shows it

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """Incidents of a fleet, or of other servers than one's own, as the Random Forest is fed them.

    A summary does not know which feature is which, so what is known about one server teaches about another.
    """

    summary: NDArray[np.float32]  # (n, SUMMARY_WIDTH)
    normalised: NDArray[np.float32]  # (n, SUMMARY_WIDTH)
    labels: NDArray[np.int8]  # (n,) 1 anomalous, 0 normal, -1 unknown


def fit(
    parts: Parts,
    config: TrainConfig,
    progress: Progress,
    borrowed: LabelledRows | None = None,
    empty: Empty = in_memory,
) -> Candidate:
    """Everything but the calibration. Raises TrainingError where a member cannot be fitted."""
    early = part_of(parts, parts.fit)
    with progress.phase("baselines") as report:
        cohort = fit_cohort(early, report)
    with progress.phase("replay history") as report:
        clean, cohort = with_summary(
            replay_residuals(parts.clean, cohort, report, empty=empty),
            cohort,
            parts.normal[parts.fit],
            parts.clean.interval_s,
        )
    with progress.phase("replay faults") as report:
        faulted = replay_residuals(parts.faulted, cohort, report, learn_faults=False, empty=empty)
    guard = round(config.labels.guard / parts.clean.interval_s)
    events = count_events(parts.clean.labels[parts.fit] == ANOMALOUS, guard)
    usable = events >= config.labels.least_events
    data = training_set(parts, clean, faulted, config.training.seed, real_labels=usable)
    said = "beside injected faults" if usable else f"too few of the {config.labels.least_events} needed"
    taught_by = f"injected faults and {events} incidents" if usable else "injected faults"
    if borrowed is not None:
        taught_by = "incidents of other servers"
    elif events >= config.labels.enough_events:
        own = own_incidents(parts, clean, data)
        if (own.labels == ANOMALOUS).any():
            borrowed, said, taught_by = own, "which teach it alone", f"{events} incidents"
    if events:
        progress.note(f"labels: {events} incidents in the fitted part for the Random Forest, {said}")
    if borrowed is not None:
        data = with_incidents(data, borrowed)
    models: dict[str, Model] = {}
    members = members_for(parts, config.models.enabled)
    if FOREST in members and len(members) > 1 and not _teachable(data):
        members = tuple(name for name in members if name != FOREST)
        progress.note("without the Random Forest: the fitted part does not hold both faults and normal rows")
    for name in members:
        if name in OF_THE_COHORT:
            continue  # fitted with the cohort, as far as there is anything to fit
        models[name] = MODELS[name](config.models)
        with progress.phase(f"fit {name}") as report:
            models[name].fit(data, config.training.seed, report)
    with progress.phase("export"):
        files = {model.filename: model.export() for model in models.values()}
    budget = config.budget.false_alarms_per_node_week
    manifest = Manifest(
        features=parts.clean.features,
        interval_s=parts.clean.interval_s,
        models=tuple(_entry(name, models, real=data.real) for name in members),
        tail=PLACEHOLDER_TAIL,
        budget_per_week=budget,
        witnesses=witnesses_among(members) if tight(budget) else (),
        trained_at=_now(),
        origin="trained",
        nodes=parts.clean.nodes,
        provenance=_provenance(parts, config) | ({TAUGHT_BY: taught_by} if FOREST in members else {}),
        files={},
    )
    files[COHORT_FILE] = write_tensors(cohort.tensors())
    candidate = Candidate(models, cohort, clean, faulted, manifest, files)
    cohort = replace(cohort, forecast_scale=_forecast_scale(candidate, parts))
    return replace(candidate, cohort=cohort, files={**files, COHORT_FILE: write_tensors(cohort.tensors())})


def witnesses_among(members: Sequence[str]) -> tuple[Witness, ...]:
    """Those groups of whom somebody is there, without whoever is not."""
    there = [
        Witness(tuple(name for name in witness.models if name in members), witness.share)
        for witness in WITNESSES
    ]
    return tuple(witness for witness in there if witness.models)


def _now() -> float:
    """Unix seconds; those of SOURCE_DATE_EPOCH where a build must be repeatable to the byte."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    return float(epoch) if epoch.isdigit() else float(int(time.time()))


def _entry(name: str, models: Mapping[str, Model], *, real: bool) -> ModelEntry:
    if name in OF_THE_COHORT:
        weight = WEIGHTS.get(name, 1.0)
        return ModelEntry(name, name, COHORT_FILE, "residuals", PLACEHOLDER_SCALE, PLACEHOLDER_TAIL, weight)
    model = models[name]
    weight = FOREST_WEIGHT[real] if model.type == FOREST else WEIGHTS.get(name, 1.0)
    return ModelEntry(
        name, model.type, model.filename, model.input, PLACEHOLDER_SCALE, PLACEHOLDER_TAIL, weight
    )


def members_for(parts: Parts, enabled: Sequence[str]) -> tuple[str, ...]:
    """Those that the history has something for: whoever hears errors in logs needs some that were counted.

    Raises TrainingError if none is left.
    """
    columns = list(complaint_columns(parts.clean.features))
    heard = [
        int((np.isfinite(parts.clean.values[part][:, :, columns]).any(axis=-1) & parts.normal[part]).sum())
        for part in (parts.calibration, parts.judged)
    ]
    members = tuple(name for name in enabled if name != LOG_ERRORS or min(heard) >= LEAST_HEARD)
    if not members:
        raise TrainingError(
            f"models.enabled: {LOG_ERRORS} alone, and this history has no log features",
            "enable another model, or collect logs",
        )
    return members


def _teachable(data: TrainingSet) -> bool:
    """Whether a classifier finds both kinds of rows."""
    return all(bool((data.fault_labels == kind).any()) for kind in (ANOMALOUS, NORMAL))


def fitted_rows(parts: Parts) -> slice:
    """The ticks that members are fitted on."""
    return slice(min(BURN_IN_TICKS, parts.fit.stop // 4), parts.fit.stop)


def training_set(
    parts: Parts, clean: Replayed, faulted: Replayed, seed: int, *, real_labels: bool
) -> TrainingSet:
    """Rows of the fit part: normal ones for the unsupervised members, labelled ones for the Random Forest.

    Its labels are the injected faults and, with `real_labels`, the known incidents; without, a few incidents
    of one kind would be all that it knows of reality, so they are left out.
    """
    rows = fitted_rows(parts)
    normal = np.flatnonzero(parts.normal[rows].ravel())
    chosen = np.random.default_rng(seed).choice(normal, min(MOST_FOREST_ROWS, len(normal)), replace=False)
    chosen.sort()
    width = clean.summary.shape[-1]
    compressed = clean.compressed[parts.fit]
    mask = np.isfinite(compressed)
    mask &= parts.normal[parts.fit][:, :, None]
    anomalous = parts.faulted.labels == ANOMALOUS
    if not real_labels:
        anomalous &= parts.clean.labels != ANOMALOUS
    faulty = np.flatnonzero(anomalous[rows].ravel())
    if len(faulty) > MOST_FAULTY_ROWS:
        faulty = np.sort(np.random.default_rng(seed).choice(faulty, MOST_FAULTY_ROWS, replace=False))
    quiet, loud = (
        (replayed.summary[rows].reshape(-1, width), replayed.normalised[rows].reshape(-1, width))
        for replayed in (clean, faulted)
    )
    return TrainingSet(
        summary=quiet[0][chosen],
        normalised=quiet[1][chosen],
        fault_summary=np.concatenate([loud[0][faulty], quiet[0][chosen]]),
        fault_normalised=np.concatenate([loud[1][faulty], quiet[1][chosen]]),
        fault_labels=np.repeat(np.array([ANOMALOUS, NORMAL], np.int8), [len(faulty), len(chosen)]),
        compressed=compressed,
        mask=mask,
        interval_s=parts.clean.interval_s,
    )


def own_incidents(parts: Parts, clean: Replayed, data: TrainingSet) -> LabelledRows:
    """Every row (n,) of the fit part's known incidents, and the normal ones that all members are taught.

    Of a node that was gone nothing was seen: that teaches nothing about one that is there.
    """
    rows = fitted_rows(parts)
    width = clean.summary.shape[-1]
    struck = np.flatnonzero((parts.clean.labels[rows] == ANOMALOUS).ravel())
    seen = np.isfinite(clean.summary[rows].reshape(-1, width)[struck]).any(axis=-1)
    struck = struck[seen]
    summary, normalised = (
        np.concatenate([table[rows].reshape(-1, width)[struck], normal])
        for table, normal in ((clean.summary, data.summary), (clean.normalised, data.normalised))
    )
    labels = np.repeat(np.array([ANOMALOUS, NORMAL], np.int8), [len(struck), len(data.summary)])
    return LabelledRows(summary, normalised, labels)


def with_incidents(data: TrainingSet, incidents: LabelledRows) -> TrainingSet:
    """The training set with real incidents in place of injected faults, which they outdo."""
    return replace(
        data,
        fault_summary=incidents.summary,
        fault_normalised=incidents.normalised,
        fault_labels=incidents.labels,
        real=True,
    )


def _forecast_scale(candidate: Candidate, parts: Parts) -> Array:
    """Usual size (f,) of the exported forecaster's error on the fit part, all nodes pooled.

    1 where there is none.
    """
    path = Models(candidate.bundle()).forecast_path(len(parts.clean.nodes), parts.clean.interval_s)
    features = len(parts.clean.features)
    if path is None:
        return np.ones(features)
    errors = []
    late = slice(max(0, parts.fit.stop - FORECAST_SCALE_TICKS), parts.fit.stop)
    for values, normal in zip(candidate.clean.compressed[late], parts.normal[late], strict=True):
        bounded = np.clip(values.astype(np.float64), -FORECAST_CLIP, FORECAST_CLIP)
        errors.append(np.where(normal[:, None], bounded - path.step(bounded).forecast, np.nan))
    scale = residual_scale(np.concatenate(errors)[:, None])[0]
    return np.where(np.isfinite(scale), scale, 1.0)


def _provenance(parts: Parts, config: TrainConfig) -> dict[str, str | float]:
    """Where the bundle comes from, for `bundle show` and the page of the agent."""
    return {
        **dict(parts.clean.origin),
        "nodes": float(len(parts.clean.nodes)),
        "from": float(parts.clean.timestamps[0]),
        "to": float(parts.clean.timestamps[-1]),
        "seed": float(config.training.seed),
        "trainer": __version__,
        "scikit_learn": version("scikit-learn"),
    }
