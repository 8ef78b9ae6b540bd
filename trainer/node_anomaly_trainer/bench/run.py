"""A bench as one page: read the data -> learn what others can lend -> do every entity -> figures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from node_anomaly_core.errors import ConfigError
from node_anomaly_trainer.bench.carry_out import carry_out, in_a_line
from node_anomaly_trainer.bench.data import Entry, choose, load, read_manifest
from node_anomaly_trainer.bench.files import HIDDEN, scores_path
from node_anomaly_trainer.bench.loans import MOST_NAMED, Checked, Loan, check, lend_out, loans_for, may_lend
from node_anomaly_trainer.bench.metrics import Figures, judge
from node_anomaly_trainer.bench.plan import FOREST
from node_anomaly_trainer.bench.record import Record, fingerprint, finished, forget
from node_anomaly_trainer.bench.tasks import BenchEntity
from node_anomaly_trainer.bench.yardsticks import RANDOM, RANDOM_THRESHOLD
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.few import few
from node_anomaly_trainer.progress import Progress
from node_anomaly_trainer.whole_file import write_whole

DAYS_PER_WEEK = 7.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    data: Path
    scores: Path
    labels_from: Path | None = None
    false_alarms_per_day: float = 1.0
    jobs: int = 1
    datasets: tuple[str, ...] = ()
    entities: str = ""


@dataclass(frozen=True, slots=True)
class Entity:
    """An entity that is done; `figures` by detector, random among them."""

    entry: Entry
    record: Record
    figures: Mapping[str, Figures]
    has_train_part: bool = True
    """False for a single series, of which an evaluator of `test` knows nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a bench has to say."""

    entities: tuple[Entity, ...]
    failed: Mapping[str, str]
    """Entities that ended unexpectedly, and with what; they have no scores."""
    notes: tuple[str, ...]
    false_alarms_per_day: float
    done_before: int
    seconds: float

    @property
    def refused(self) -> tuple[str, ...]:
        """The entities that the trainer made no bundle of; their scores are all unknown."""
        return tuple(entity.entry.name for entity in self.entities if entity.record.refused)


def run(options: Options, config: TrainConfig, progress: Progress) -> Outcome:
    """Do what is not done yet and say what came of all. Raises ConfigError and SourceError before it begins.

    A KeyboardInterrupt ends it at once; what was finished is kept, and the same call goes on.
    """
    begun = time.monotonic()
    budget = replace(config.budget, false_alarms_per_node_week=DAYS_PER_WEEK * options.false_alarms_per_day)
    config = replace(config, budget=budget)
    if options.scores.resolve() in {one.resolve() for one in (options.data, options.labels_from) if one}:
        raise ConfigError(
            f"--scores {options.scores}: is the folder of the data, whose files it would write over",
            "name another folder; one below it will do",
        )
    entries = choose(read_manifest(options.data), options.datasets, options.entities)
    if options.labels_from is not None and FOREST not in config.models.enabled:
        raise ConfigError(
            f"--labels-from: only the {FOREST} learns from labels, and models.enabled leaves it out",
            "enable it, or leave out --labels-from",
        )
    could_lend = may_lend(options.labels_from, entries)
    require_writable(options.scores)
    checked = check(entries, "check data", progress)
    lending = check(could_lend, "check lenders", progress)
    loans, notes = lend_out(lending, options.scores, config, options.jobs, progress)
    todo, records = plan(checked, loans, options.scores, config)
    costs = {one.entry.name: one.cost for one in checked}
    discard(todo, options.scores, progress)
    errors = carry_out(todo, costs, "entities", options.jobs, progress)
    failed = {name: in_a_line(error.message, error.hint) for name, error in errors.items()}
    for task in todo.values():
        entry = task.entry
        made = finished(options.scores, entry.dataset, entry.entity, task.fingerprint)
        if made is not None:
            records[entry.name] = made
        elif entry.name not in failed:
            failed[entry.name] = "its record cannot be read back"
    with progress.phase("random scores"):
        entities = with_random([entry for entry in entries if entry.name in records], records)
    return Outcome(
        entities=entities,
        failed=failed,
        notes=(*notes, *not_asked_for(entries, options.scores)),
        false_alarms_per_day=options.false_alarms_per_day,
        done_before=len(entries) - len(todo),
        seconds=time.monotonic() - begun,
    )


def require_writable(out: Path) -> None:
    """Raises ConfigError where scores cannot be written: better now than after the first entity."""
    try:
        write_whole(out / ".writable", b"")
        (out / ".writable").unlink()
    except OSError as error:
        raise ConfigError(
            f"--scores {out}: {error.strerror or error}", "choose a directory that can be written to"
        ) from error


def discard(todo: Mapping[str, BenchEntity], out: Path, progress: Progress) -> None:
    """Remove what is there of all that is to be done, at once: a run that is stopped leaves no mixture."""
    stale = [name for name, task in todo.items() if scores_path(out, *_named(task.entry)).exists()]
    for task in todo.values():
        with suppress(OSError):  # whoever does this entity stumbles over it, and names it
            forget(out, *_named(task.entry))
    if stale:
        progress.note(f"removed scores of other settings, data or code: {few(stale, MOST_NAMED)}")


def _named(entry: Entry) -> tuple[str, str]:
    return entry.dataset, entry.entity


def not_asked_for(entries: Sequence[Entry], out: Path) -> tuple[str, ...]:
    """That there are scores of entities beside those of `entries`, in words; empty if there are none."""
    asked = {scores_path(out, *_named(entry)) for entry in entries}
    names = sorted(
        path.relative_to(out).as_posix().removesuffix(".csv")
        for path in out.glob("*/**/*.csv")
        if path not in asked and not path.relative_to(out).parts[0].startswith(HIDDEN)
    )
    if not names:
        return ()
    there = f"{out} also holds scores that were not asked for now, perhaps of other settings"
    return (f"{there}: {few(names, MOST_NAMED)}",)


def plan(
    checked: Sequence[Checked], loans: Sequence[Loan], out: Path, config: TrainConfig
) -> tuple[dict[str, BenchEntity], dict[str, Record]]:
    """What is to be done, by name, and the records of what is done."""
    todo, done = {}, {}
    for one in checked:
        borrowed = loans_for(one, loans)
        wanted = fingerprint(one.parts | {"borrowed": [loan.fingerprint for loan in borrowed]}, config)
        made = finished(out, one.entry.dataset, one.entry.entity, wanted)
        if made is not None:
            done[one.entry.name] = made
        else:
            paths = tuple(loan.path for loan in borrowed)
            todo[one.entry.name] = BenchEntity(one.entry, out, config, wanted, paths)
    return todo, done


def with_random(entries: Sequence[Entry], records: Mapping[str, Record]) -> tuple[Entity, ...]:
    """Every entity with the figures of a random score.

    Drawn as an outside evaluator draws it: one stream over the entities with a test part, in order. Series
    without one have a stream of their own.
    """
    streams = {True: np.random.default_rng(0), False: np.random.default_rng(1)}
    entities = []
    for entry in entries:
        series, label = load(entry)
        score = streams[series.has_train_part].random(len(label))
        figures = judge(label, score, series.interval_s, RANDOM_THRESHOLD)
        made = records[entry.name]
        entities.append(Entity(entry, made, {**made.figures, RANDOM: figures}, series.has_train_part))
    return tuple(entities)
