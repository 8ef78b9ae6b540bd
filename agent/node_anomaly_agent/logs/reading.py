"""Within a budget: which lines of the followed files are looked at, which only counted, which reckoned.

Lines are looked at while bytes of the budget are left, shared out so that one noisy file does not starve the
others. The rest is counted at the speed of memory. When time runs out, what a file is ahead by is reckoned
from bytes, so that a rate stays a rate and the tick is on time; little is simply left for the next tick.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from node_anomaly_agent.logs.follow import Follower
from node_anomaly_agent.logs.source import Batch, Budget
from node_anomaly_agent.logs.tail import CHUNK_BYTES, Tail

MAX_BACKLOG_BYTES = 64 << 20
"""Of what one file got while the agent was not there this much, the latest, is counted line by line."""

LEAVE_BYTES = 1 << 20
"""Less than this is not reckoned when time runs out, but read at the next tick."""

MIN_LOOK_BYTES = 8 << 10
"""A share of the budget below this looks at no further line: reading by crumbs costs more than it shows."""

_RESERVE = 0.1  # of the time is kept for reckoning


def read_lines(
    follower: Follower,
    budget: Budget,
    max_backlog: int = MAX_BACKLOG_BYTES,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Batch]:
    """The batches of one tick. A file's position has moved on when its batch is handed out, not before."""
    begun = clock()
    until = budget.deadline - _RESERVE * max(0.0, budget.deadline - begun)
    if begun >= budget.deadline:
        return
    follower.refresh()
    active = list(follower.by_backlog())
    left = budget.size
    for index, tail in enumerate(active):
        share = left // (len(active) - index)
        try:
            for batch in _read_one(tail, share, until, max_backlog, clock):
                left -= len(batch.data)
                yield batch
        except OSError as error:
            follower.refused[tail.path] = error
            tail.seen = None  # looked at again at the next tick
    for tail in active:
        if tail.backlog > LEAVE_BYTES and clock() < budget.deadline:
            try:
                lines, size = tail.skip(tail.size)
            except OSError as error:
                follower.refused[tail.path] = error
                continue
            yield Batch(tail.group, lines, size, b"", estimated=True, late=tail.position <= tail.late_until)


def _read_one(
    tail: Tail, share: int, until: float, max_backlog: int, clock: Callable[[], float]
) -> Iterator[Batch]:
    """What one file has, until time runs out."""
    if tail.late_until - tail.scanned > max_backlog and clock() < until:
        lines, size = tail.skip(tail.late_until - max_backlog)
        yield Batch(tail.group, lines, size, b"", estimated=True, late=True)
    while tail.backlog > 0 and clock() < until:
        late = tail.scanned < tail.late_until
        looks = not late and (share >= MIN_LOOK_BYTES or share >= tail.backlog)
        begin = tail.scanned
        limit = tail.late_until - begin if late else share if looks else CHUNK_BYTES
        raw, lines, size = tail.take(min(CHUNK_BYTES, limit))
        share -= tail.scanned - begin
        if not size:
            continue
        if looks:
            lines, data = tail.format.decode(raw, lines)
            yield Batch(tail.group, lines, size, data)
        else:
            yield Batch(tail.group, tail.format.count(raw, lines), size, b"", late=late)
