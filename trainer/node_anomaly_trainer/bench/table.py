"""How a bench is shown: a table per data set for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer.bench.carry_out import in_a_line
from node_anomaly_trainer.bench.data import MANIFEST
from node_anomaly_trainer.bench.metrics import Summary, summarise
from node_anomaly_trainer.bench.record import OURS
from node_anomaly_trainer.bench.run import Entity, Outcome
from node_anomaly_trainer.bench.yardsticks import LARGEST_Z, RANDOM
from node_anomaly_trainer.few import few

SHOWN = {
    OURS: "node-anomaly",
    "pca": "PCA residual",
    "kmeans": "windowed k-means",
    "isolation_forest": "plain IForest",
    LARGEST_Z: LARGEST_Z,
    RANDOM: RANDOM,
}
COLUMNS = (
    "detector", "VUS-PR", "AUC-PR", "recall", "FA per\nday", "FA per\nweek", "time in\nalarm", "precision",
    "delay,\nticks",
)  # fmt: skip
"""FA is false alarms, per node. A row fits into 80 characters."""

MOST_LINES, MOST_NAMES = 12, 4


def print_outcome(outcome: Outcome, console: Console) -> None:
    """One table per data set, then what was refused, what failed, and what it took."""
    for dataset, entities in by_dataset(outcome).items():
        budget = f"false alarms asked for: {outcome.false_alarms_per_day:.3g} per node-day"
        labels = _labels(entities)
        console.print(_table(f"{dataset}, {_count(entities)}; {budget}{labels}", entities))
        console.print()
        scored = _scored(entities)
        if 0 < len(scored) < len(entities):
            console.print(_table(f"{dataset}, only the {len(scored)} with scores", scored))
            console.print()
        tested = _with_train_part(entities)
        if 0 < len(tested) < len(entities):
            title = f"{dataset}, only the {len(tested)} with a train part of their own"
            console.print(_table(title, tested))
            console.print()
    for line in lines(outcome):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def without_scores(outcome: Outcome) -> AnomalyError:
    """How many entities have no scores, and which, as an error to end with."""
    refused, asked_for = outcome.refused, len(outcome.entities) + len(outcome.failed)
    return AnomalyError(
        f"{len(refused)} of {asked_for} entities without scores, the trainer refuses "
        f"{few(refused, MOST_NAMES)}",
        f"what is printed says why: give them more to train on, or leave them out of {MANIFEST}",
    )


def lines(outcome: Outcome) -> list[str]:
    """What a table does not say: who was refused and why, what was done otherwise, what failed, the costs."""
    entities = outcome.entities
    refused = [(_refusal(entity), entity.entry.name) for entity in entities if entity.record.refused]
    noted = [(note, entity.entry.name) for entity in _scored(entities) for note in entity.record.notes]
    told = []
    if refused:
        told.append(f"no scores for {len(refused)} of {len(entities)} entities, the trainer refuses them:")
        told += [f"  {line}" for line in _grouped(refused)]
    if noted:
        told += ["otherwise than configured, or worth knowing:", *(f"  {line}" for line in _grouped(noted))]
    told += outcome.notes
    told += [f"failed, left out of the tables: {name}: {why}" for name, why in outcome.failed.items()]
    return [*told, _costs(outcome)]


def _refusal(entity: Entity) -> str:
    """Why, and what to do about it where that is known."""
    return in_a_line(entity.record.refused, entity.record.refused_hint)


def _labels(entities: Sequence[Entity]) -> str:
    """Whether other entities taught the Random Forest, and of how many, where not of all."""
    taught = sum(entity.record.lenders > 0 for entity in entities)
    if not taught:
        return ""
    return ", labels of others" if taught == len(_scored(entities)) else f", labels of others for {taught}"


def _grouped(said: Sequence[tuple[str, str]]) -> list[str]:
    """One line for each thing that is said, with those it is said of; what is said most comes first."""
    names: dict[str, list[str]] = {}
    for text, name in said:
        names.setdefault(text, []).append(name)
    ordered = sorted(names.items(), key=lambda item: -len(item[1]))
    grouped = []
    for text, of in ordered[:MOST_LINES]:
        grouped.append(f"{few(of, MOST_NAMES)}: {text}")
    if len(ordered) > MOST_LINES:
        grouped.append(f"and {len(ordered) - MOST_LINES} more; --output json has them all")
    return grouped


def _costs(outcome: Outcome) -> str:
    took = totals(outcome)
    work = sum(took[name] or 0.0 for name in ("train_minutes", "score_minutes", "baseline_minutes"))
    size = took["largest_bundle_bytes"]
    return (
        f"this run took {took['this_run_minutes']:.1f} min ({outcome.done_before} entities done before); "
        f"all entities together {work:.1f} min ({took['train_minutes']:.1f} train, "
        f"{took['score_minutes']:.1f} score, {took['baseline_minutes']:.1f} baselines); "
        f"a tick {_number(took['tick_ms_median'], 2)} ms CPU (median, "
        f"{_number(took['tick_ms_largest'], 2)} at most); "
        f"largest bundle {_number(None if size is None else size / 2**20, 2)} MiB"
    )


def by_dataset(outcome: Outcome) -> dict[str, list[Entity]]:
    """The entities that are done, data sets and entities in the order of the manifest."""
    found: dict[str, list[Entity]] = {}
    for entity in outcome.entities:
        found.setdefault(entity.entry.dataset, []).append(entity)
    return found


def as_json(outcome: Outcome) -> str:
    """Everything, with the figures of every entity; what is not known is null."""
    datasets = {
        dataset: {
            detector: {
                "mean": asdict(summarise([entity.figures[detector] for entity in entities])),
                "mean_of_scored": asdict(
                    summarise([entity.figures[detector] for entity in _scored(entities)])
                ),
                "mean_with_train_part": asdict(
                    summarise([entity.figures[detector] for entity in _with_train_part(entities)])
                ),
                "entities": [_figures(entity, detector) for entity in entities],
            }
            for detector in SHOWN
        }
        for dataset, entities in by_dataset(outcome).items()
    }
    document = {
        "false_alarms_per_day_asked_for": outcome.false_alarms_per_day,
        "labels_of_others": any(entity.record.lenders for entity in outcome.entities),
        "datasets": datasets,
        "entities": {
            entity.entry.name: {
                "lenders": entity.record.lenders,
                "refused": entity.record.refused,
                "refused_hint": entity.record.refused_hint,
                "notes": list(entity.record.notes),
                "seconds": dict(entity.record.seconds),
                "tick_ms": entity.record.tick_ms,
                "bundle_bytes": entity.record.bundle_bytes,
            }
            for entity in outcome.entities
        },
        "failed": dict(outcome.failed),
        "notes": list(outcome.notes),
        "totals": totals(outcome),
    }
    return json.dumps(document, indent=1, allow_nan=False)


def totals(outcome: Outcome) -> dict[str, float | None]:
    """What all entities took together, those of earlier runs included, and what this run took."""
    records = [entity.record for entity in outcome.entities]
    ticks = [record.tick_ms for record in records if record.tick_ms is not None]
    sizes = [record.bundle_bytes for record in records if record.bundle_bytes is not None]
    return {
        "this_run_minutes": outcome.seconds / 60.0,
        "train_minutes": sum(record.seconds["train"] for record in records) / 60.0,
        "score_minutes": sum(record.seconds["score"] for record in records) / 60.0,
        "baseline_minutes": sum(record.seconds["baselines"] for record in records) / 60.0,
        "tick_ms_median": float(np.median(ticks)) if ticks else None,
        "tick_ms_largest": max(ticks, default=None),
        "largest_bundle_bytes": max(sizes, default=None),
    }


def _figures(entity: Entity, detector: str) -> dict[str, object]:
    figures = entity.figures[detector]
    return {
        "entity": entity.entry.entity,
        **asdict(figures),
        "recall": figures.recall,
        "precision": figures.precision,
    }


def _table(title: str, entities: Sequence[Entity]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == COLUMNS[0] else "right")
    for detector, name in SHOWN.items():
        row = summarise([entity.figures[detector] for entity in entities])
        table.add_row(name, *_cells(row), style="bold" if detector == OURS else "")
    return table


def _scored(entities: Sequence[Entity]) -> list[Entity]:
    return [entity for entity in entities if not entity.record.refused]


def _with_train_part(entities: Sequence[Entity]) -> list[Entity]:
    """Those that an outside evaluator of `test` knows: its means are theirs."""
    return [entity for entity in entities if entity.has_train_part]


def _count(entities: Sequence[Entity]) -> str:
    return "1 entity" if len(entities) == 1 else f"{len(entities)} entities"


def _cells(row: Summary) -> Sequence[str]:
    return (
        _number(row.vus_pr, 3),
        _number(row.auc_pr, 3),
        _number(row.recall, 3),
        _number(row.false_alarms_per_day, 3),
        _number(row.false_alarms_per_week, 2),
        "-" if row.alarm_share is None else f"{row.alarm_share:.1%}",
        _number(row.precision, 3),
        _number(row.delay, 1),
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
