"""Who may lend labels to whom, and what was lent already; what is lent is made in lenders.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import ConfigError, SourceError, TrainingError
from node_anomaly_trainer.bench.carry_out import carry_out
from node_anomaly_trainer.bench.data import Entry, digest_of, digests_of, load, read_manifest, together
from node_anomaly_trainer.bench.files import LABELS
from node_anomaly_trainer.bench.record import fingerprint
from node_anomaly_trainer.bench.tasks import LendLabels
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.few import few
from node_anomaly_trainer.progress import Progress

MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class Checked:
    """An entry whose file is as it must be."""

    entry: Entry
    digest: str
    measured: frozenset[str]
    """What names its `train` and its `test`."""
    cost: int
    """Roughly in ticks: what it takes compared with others."""

    @property
    def parts(self) -> dict[str, object]:
        """What a fingerprint of anything made from it names."""
        return {"data": self.digest, "name": self.entry.name, "interval_s": self.entry.interval_s}


@dataclass(frozen=True, slots=True)
class Loan:
    """What one entity lends: where its rows are, and what exactly they are."""

    lender: Checked
    path: Path
    fingerprint: str


def check(entries: Sequence[Entry], phase: str, progress: Progress) -> tuple[Checked, ...]:
    """Read every entity once: what is wrong with any is said before hours are spent on the others.

    Raises SourceError for all that cannot be used, so that nobody corrects one file after the other.
    """
    if not entries:
        return ()
    checked, wrong = [], []
    with progress.phase(phase) as report:
        for number, entry in enumerate(entries):
            report(number / len(entries), entry.name)
            try:
                series, label = load(entry)
            except SourceError as error:
                wrong.append(error)
                continue
            ticks = len(series.train) + len(series.test)
            checked.append(Checked(entry, digest_of(series, label), digests_of(series), ticks))
    if wrong:
        raise together(wrong, len(entries))
    return tuple(checked)


def may_lend(folder: Path | None, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Entities of the folder that could teach one of these; none without a folder.

    Raises ConfigError where there is a folder, and nobody in it could.
    """
    if folder is None:
        return ()
    taught: dict[str, set[str]] = {}
    for entry in entries:
        taught.setdefault(entry.dataset, set()).add(entry.entity)
    able = tuple(
        entry for entry in read_manifest(folder) if taught.get(entry.dataset, set()) - {entry.entity}
    )
    if not able:
        raise ConfigError(
            f"--labels-from {folder}: no entity there belongs to a data set that is judged here, but for the "
            f"one that is judged; judged are {few(sorted(taught), MOST_NAMED)}",
            "leave it out, or name a folder with other entities of that data set",
        )
    return able


def lend_out(
    lending: Sequence[Checked], out: Path, config: TrainConfig, jobs: int, progress: Progress
) -> tuple[tuple[Loan, ...], tuple[str, ...]]:
    """The loans of all that have something to lend, made where they were not; and who has none, in words.

    Raises TrainingError where one failed for another reason than that its train part is no good: figures
    headed "labels of others" are not to depend on how full the disk was.
    """
    loans = {
        one.entry.name: Loan(
            one, labels_path(out, one.entry), fingerprint(one.parts | {"lends": True}, config, ("training",))
        )
        for one in lending
    }
    todo = {
        name: LendLabels(loan.lender.entry, out, config, loan.fingerprint)
        for name, loan in loans.items()
        if not lent(loan.path, loan.fingerprint)
    }
    costs = {one.entry.name: one.cost for one in lending}
    failed = carry_out(todo, costs, "labels of others", jobs, progress)
    if failed:
        first = next(iter(failed.values()))
        raise TrainingError(
            f"labels of {few(list(failed), MOST_NAMED)} could not be written down: {first.message}",
            f"{first.hint or 'mend that'}; what is done is kept, the same command goes on",
        )
    refused = {name: why for name, loan in loans.items() if (why := refusal(loan.path))}
    made = tuple(loan for name, loan in loans.items() if name not in refused)
    return made, tuple(f"{name} lends no labels: {why}" for name, why in refused.items())


def loans_for(checked: Checked, loans: Sequence[Loan]) -> list[Loan]:
    """Loans of the same data set, but none of the entity under test: neither by name nor by measurements."""
    return [
        loan
        for loan in loans
        if loan.lender.entry.dataset == checked.entry.dataset
        and loan.lender.entry.entity != checked.entry.entity
        and not loan.lender.measured & checked.measured
    ]


def labels_path(out: Path, entry: Entry) -> Path:
    """Where the rows that an entity lends are kept."""
    return out / LABELS / entry.dataset / f"{entry.entity}.npz"


def lent(path: Path, wanted: str) -> bool:
    """Whether the file holds, unharmed, the rows with this fingerprint."""
    file = _read(path)
    if not set(file) >= {"fingerprint", "refused", "labels", "summary", "normalised"}:
        return False
    whole = file["labels"].shape == file["summary"].shape[:1] == file["normalised"].shape[:1]
    return whole and str(file["fingerprint"]) == wanted


def refusal(path: Path) -> str:
    """Why the entity has nothing to lend; empty if it has, or if the file is harmed, which `lent` tells."""
    return str(_read(path).get("refused", ""))


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file of labels; none where it cannot be read."""
    try:
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, BadZipFile):
        return {}
