"""Run tasks and tell how far all of them are, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Mapping

from node_anomaly_core.errors import AnomalyError
from node_anomaly_trainer.bench.workers import Ended, Task, run_tasks
from node_anomaly_trainer.progress import Progress

EARLY = 0.02
"""Of the work; before that the remaining time would be a guess."""


def carry_out(
    tasks: Mapping[str, Task], costs: Mapping[str, int], phase: str, jobs: int, progress: Progress
) -> dict[str, AnomalyError]:
    """Do all tasks, `jobs` at a time; of each that failed, by its name, the error and what to do about it.

    `costs` are what the tasks take compared with each other, by name.
    """
    if not tasks:
        return {}
    names = list(tasks)
    whole = sum(costs[name] for name in names)
    shares = dict.fromkeys(names, 0.0)
    failed: dict[str, AnomalyError] = {}
    over, begun = 0, time.monotonic()
    with progress.phase(phase) as report:
        for event in run_tasks(list(tasks.values()), jobs):
            name = names[event.index]
            shares[name] = 1.0 if isinstance(event, Ended) else min(event.share, 1.0)
            if isinstance(event, Ended):
                over += 1
                if event.error:
                    failed[name] = AnomalyError(event.error, event.hint)
                    progress.note(f"{name} failed: {in_a_line(event.error, event.hint)}")
            done = sum(costs[each] * share for each, share in shares.items()) / whole
            left = remaining(done, time.monotonic() - begun)
            report(done, f"{over} of {len(names)} done{left}, {name}")
    return failed


def in_a_line(message: str, hint: str) -> str:
    """What is wrong, and what to do about it where that is known."""
    return message + (f". Try: {hint}" if hint else "")


def remaining(done: float, seconds: float) -> str:
    """`, about 12 min left` when so much (0..1) was done in so many seconds; empty while it is too early."""
    if not EARLY <= done < 1.0:
        return ""
    left = seconds * (1.0 - done) / done
    return f", about {left / 60.0:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
