"""Incidents of other entities of the same data set, as the Random Forest of a bundle can learn from them.

A lender is treated as a server of one's own fleet whose incidents somebody wrote down: its baselines are
those of its own train part, its rows are what a node would have shown its forests over the whole series, and
labels say which of them were incidents. The entity under test never lends to itself (loans.loans_for).
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.errors import SourceError, TrainingError
from node_anomaly_core.summary import SUMMARY_WIDTH
from node_anomaly_trainer.bench.data import Entry, Series, load
from node_anomaly_trainer.bench.files import require_room
from node_anomaly_trainer.bench.loans import labels_path
from node_anomaly_trainer.bench.plan import history_of, planned
from node_anomaly_trainer.config import TrainConfig
from node_anomaly_trainer.dataset import ANOMALOUS, NORMAL
from node_anomaly_trainer.fitting import FAULT_GUARD_TICKS, LabelledRows
from node_anomaly_trainer.labels import guard_band
from node_anomaly_trainer.progress import Report
from node_anomaly_trainer.replay import fit_cohort, replay_residuals, with_summary
from node_anomaly_trainer.whole_file import write_whole

MOST_NORMAL_ROWS = 4_000
"""That one lender lends; a forest is fitted on at most 20,000 of all."""


def lend(entry: Entry, out: Path, config: TrainConfig, fingerprint: str, report: Report) -> None:
    """Write what an entity teaches others, or that its train part is too short to teach anybody."""
    series, label = load(entry)
    refused = ""
    try:
        rows = labelled_rows(series, label, config, report)
    except TrainingError as error:
        nothing = np.empty((0, SUMMARY_WIDTH), dtype=np.float32)
        rows, refused = LabelledRows(nothing, nothing, np.empty(0, dtype=np.int8)), error.message
    require_room(out, rows.summary.nbytes + rows.normalised.nbytes + rows.labels.nbytes)
    content = BytesIO()
    np.savez(
        content,
        summary=rows.summary,
        normalised=rows.normalised,
        labels=rows.labels,
        fingerprint=np.array(fingerprint),
        refused=np.array(refused),
    )
    write_whole(labels_path(out, entry), content.getvalue())


def borrow(paths: Sequence[Path]) -> LabelledRows | None:
    """The rows of all lenders, one after the other; None where they hold no incident, or nothing else.

    Raises SourceError for a file that is not theirs.
    """
    parts = []
    for path in paths:
        try:
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
                parts.append(LabelledRows(file["summary"], file["normalised"], file["labels"]))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise SourceError(f"{path}: {error}", "remove it and run bench again") from error
    if not all(any((part.labels == kind).any() for part in parts) for kind in (NORMAL, ANOMALOUS)):
        return None
    return LabelledRows(
        np.concatenate([part.summary for part in parts]),
        np.concatenate([part.normalised for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def labelled_rows(
    series: Series, label: NDArray[np.int8], config: TrainConfig, report: Report
) -> LabelledRows:
    """Rows of the test part: all that lie in incidents, and a sample of those that are far from any."""
    config = planned(config, series.train, series.interval_s, lent=True).config
    ticks = len(series.train) + len(series.test)
    labels = np.full(ticks, NORMAL, dtype=np.int8)
    struck = len(series.train) + series.tick_of_row[label == 1]
    labels[struck] = ANOMALOUS
    history = history_of(series, np.concatenate([series.train, series.test]), labels)
    fit_ticks = int(len(series.train) * config.training.fit_fraction)
    early = history.between(0.0, fit_ticks / ticks)
    cohort = fit_cohort(early, lambda done, _: report(0.1 * done, "baselines"))
    replayed = replay_residuals(history, cohort, lambda done, _: report(0.1 + 0.8 * done, "replay"))
    replayed, _ = with_summary(replayed, cohort, early.labels == NORMAL, series.interval_s)
    guarded = guard_band(history.labels, FAULT_GUARD_TICKS)[:, 0]
    guarded[: len(series.train)] = -1  # nobody labelled the train part
    normal, anomalous = np.flatnonzero(guarded == NORMAL), np.flatnonzero(guarded == ANOMALOUS)
    if len(normal) > MOST_NORMAL_ROWS:
        rng = np.random.default_rng(config.training.seed)
        normal = rng.choice(normal, MOST_NORMAL_ROWS, replace=False)
    chosen = np.sort(np.concatenate([normal, anomalous]))
    return LabelledRows(replayed.summary[chosen, 0], replayed.normalised[chosen, 0], guarded[chosen])
