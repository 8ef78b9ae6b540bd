"""What scores of one entity are worth, and of many: the same definitions as any outside evaluator can apply.

An alarm is an episode of scores at or above the threshold for HOLD_TICKS ticks; episodes that are at most
MERGE_TICKS apart are one. It is raised once, at its HOLD_TICKS-th tick. Within MERGE_TICKS before an event it
catches the event; an alarm that already stood catches nothing, so a detector that never stops alarming
catches nothing. Nothing here is fitted: the threshold is 1.0, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node_anomaly_core.calibration import HOLD_TICKS, MERGE_TICKS
from node_anomaly_trainer.bench.range_pr import average_precision, vus_pr
from node_anomaly_trainer.labels import runs

DAY_S = 86_400.0

Label = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Figures:
    """One detector on one entity; None = there is nothing that the figure could be of."""

    rows: int
    days: float
    """As long as it was: totals are divided by sums of it, and of an hour two digits are off by 4 %."""
    unknown: int
    """Rows without a score."""
    vus_pr: float | None
    auc_pr: float | None
    events: int
    caught: int
    alarms: int
    false_alarms: int
    """Alarms raised further than MERGE_TICKS from every event."""
    false_alarms_per_day: float
    alarm_share: float | None
    """Of the rows outside events, those spent in alarm."""
    delay: float | None
    """Median ticks from an event's first row to its alarm, over the events that were caught."""

    @property
    def recall(self) -> float | None:
        """Share of the events that were caught."""
        return self.caught / self.events if self.events else None

    @property
    def precision(self) -> float | None:
        """Share of the alarms that were raised at an event."""
        return (self.alarms - self.false_alarms) / self.alarms if self.alarms else None


@dataclass(frozen=True, slots=True)
class Summary:
    """One detector on several entities.

    Events, alarms and days are counted over all of them; the other figures are means over entities.
    """

    entities: int
    vus_pr: float | None
    auc_pr: float | None
    recall: float | None
    false_alarms_per_day: float | None
    false_alarms_per_week: float | None
    alarm_share: float | None
    precision: float | None
    delay: float | None


def episodes(score: NDArray[np.floating], threshold: float = 1.0) -> NDArray[np.intp]:
    """Alarms over scores (n,), NaN = unknown: first row, last row and the row each is raised at, (k, 3)."""
    found: list[list[int]] = []
    for first, stop in runs(np.nan_to_num(score, nan=-np.inf, posinf=np.inf) >= threshold).tolist():
        if stop - first < HOLD_TICKS:
            continue
        if found and first - found[-1][1] <= MERGE_TICKS:
            found[-1][1] = stop - 1
        else:
            found.append([first, stop - 1, first + HOLD_TICKS - 1])
    return np.array(found, dtype=np.intp).reshape(-1, 3)


def judge(label: Label, score: NDArray[np.floating], interval_s: float, threshold: float = 1.0) -> Figures:
    """Figures of scores (n,), NaN = the detector did not know, against labels (n,) of 0 and 1."""
    known = np.isfinite(score)
    # what was not known is ranked below everything that was, and is never in alarm
    ranked = np.where(known, score, score[known].min() if known.any() else 0.0)
    alarms = episodes(np.where(known, score, np.nan), threshold)
    events = runs(label == 1)
    raised = alarms[:, 2]
    delays = []
    for first, stop in events:
        inside = raised[(raised >= first - MERGE_TICKS) & (raised < stop)]
        if len(inside):
            delays.append(max(0, int(inside[0] - first)))
    near = np.zeros(len(raised), dtype=bool)
    for first, stop in events:
        near |= (raised >= first - MERGE_TICKS) & (raised < stop + MERGE_TICKS)
    standing = np.zeros(len(label), dtype=bool)
    for first, last, _ in alarms:
        standing[first : last + 1] = True
    days = len(label) * interval_s / DAY_S
    normal = label != 1
    return Figures(
        rows=len(label),
        days=days,
        unknown=int((~known).sum()),
        vus_pr=vus_pr(label, ranked) if len(events) else None,
        auc_pr=average_precision(label, ranked) if len(events) else None,
        events=len(events),
        caught=len(delays),
        alarms=len(alarms),
        false_alarms=int((~near).sum()),
        false_alarms_per_day=float((~near).sum()) / days,
        alarm_share=float(standing[normal].mean()) if normal.any() else None,
        delay=float(np.median(delays)) if delays else None,
    )


def summarise(figures: Sequence[Figures]) -> Summary:
    """One row of the table."""
    days = sum(one.days for one in figures)
    false = sum(one.false_alarms for one in figures)
    per_day = false / days if days > 0 else None
    return Summary(
        entities=len(figures),
        vus_pr=_mean(figures, lambda one: one.vus_pr),
        auc_pr=_mean(figures, lambda one: one.auc_pr),
        recall=_share(sum(one.caught for one in figures), sum(one.events for one in figures)),
        false_alarms_per_day=per_day,
        false_alarms_per_week=None if per_day is None else 7.0 * per_day,
        alarm_share=_mean(figures, lambda one: one.alarm_share),
        precision=_share(sum(one.alarms for one in figures) - false, sum(one.alarms for one in figures)),
        delay=_mean(figures, lambda one: one.delay),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(figures: Iterable[Figures], figure: Callable[[Figures], float | None]) -> float | None:
    known = [value for value in map(figure, figures) if value is not None]
    return float(np.mean(known)) if known else None
