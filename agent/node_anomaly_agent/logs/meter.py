"""Reads every log source once a tick, within a budget, and counts what they wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from node_anomaly_agent.collectors import CollectorMissing
from node_anomaly_agent.log_setup import Log
from node_anomaly_agent.logs.source import Batch, Budget, LogSource, SourceStatus
from node_anomaly_agent.logs.status import DROP_REASONS, Counted, LogStatus
from node_anomaly_core.expressions import Reading
from node_anomaly_core.log_counters import LogCounters, Stream

MINING_SHARE = 0.5
"""Of the time there is for all sources: after that patterns are looked for in the next tick's lines again."""


class LogMeter:
    """A collector whose reading are the agent's own log counters. Belongs to the loop's thread.

    Args:
        sources: read in this order, each with an equal share of the budget.
        groups: the configured groups.
        max_s: seconds that a tick may spend on all sources.
        max_bytes: bytes whose lines are looked at in a tick; lines beyond it are only counted.
        log: told once when a source begins to fail.
        wall: unix seconds.
    """

    name = "logs"

    def __init__(
        self,
        sources: Sequence[LogSource],
        groups: Sequence[str],
        max_s: float,
        max_bytes: int,
        log: Log | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._sources = tuple(sources)
        self._counters = LogCounters(tuple(source.name for source in sources), tuple(groups))
        self._max_s, self._max_bytes = max_s, max_bytes
        self._log = log
        self._wall = wall
        self._dropped: dict[str, float] = dict.fromkeys(DROP_REASONS, 0.0)
        self._statuses: dict[str, SourceStatus] = {}
        self._reading: Reading = {}
        self._examples_wanted = 0
        self.examples: list[bytes] = []

    def keep_examples(self, wanted: int) -> None:
        """Keep up to so many lines of new patterns in `examples`: for a person at this host only."""
        self._examples_wanted = wanted

    def read(self) -> Reading:
        """Count what was written since the last read. Raises CollectorMissing on a host without any logs."""
        started = time.monotonic()
        for number, source in enumerate(self._sources, 1):
            share = number / len(self._sources)
            budget = Budget(started + self._max_s * share, self._max_bytes // len(self._sources))
            for batch in source.read(budget):
                self._count(source.name, batch, started + self._max_s * MINING_SHARE * share)
            self._note(source.name, source.status())
        now = self._wall()
        self._counters.tick(now)
        self._reading = self._counters.reading(now, self._absent())
        if all(status.missing for status in self._statuses.values()):
            raise CollectorMissing("; ".join(status.error for status in self._statuses.values()))
        return self._reading

    def _count(self, source: str, batch: Batch, mining_deadline: float) -> None:
        looked_at = batch.data.count(b"\n")
        if batch.lines > looked_at:
            reason = "late" if batch.late else "estimated" if batch.estimated else "unread"
            self._dropped[reason] += batch.lines - looked_at
        self.examples += self._counters.add(
            source,
            batch.group,
            batch.lines,
            batch.size,
            batch.data,
            batch.severities,
            mine=time.monotonic() < mining_deadline,
            examples=self._examples_wanted - len(self.examples),
            late=batch.late,
        )

    def _note(self, source: str, status: SourceStatus) -> None:
        before = self._statuses.get(source)
        self._statuses[source] = status
        if self._log is None or status.missing or status.error == (before.error if before else ""):
            return
        if status.error:
            self._log.warning("log source" + (" has a gap" if status.success else " cannot be read"),
                              source=source, error=status.error)  # fmt: skip
        elif before is not None and not before.success:
            self._log.info("log source works", source=source)

    def _absent(self) -> frozenset[str]:
        """Sources whose counters stand still because they cannot be read: that is not silence."""
        return frozenset(name for name, status in self._statuses.items() if not status.success)

    def status(self) -> LogStatus:
        """What a scrape shows of the latest read."""
        return LogStatus(
            sources={
                name: (status.success, status.missing, status.streams)
                for name, status in self._statuses.items()
            },
            counted={
                name: _counted(stream)
                for name, stream in self._counters.sources.items()
                if name in self._statuses and self._statuses[name].success
            },
            groups={name: _counted(stream) for name, stream in self._counters.groups.items()},
            silences={
                key: value for key, value in self._reading.items() if key[0].endswith("silence_seconds")
            },
            templates=len(self._counters.miner),
            new_templates=self._counters.miner.created,
            unmined=self._counters.unmined,
            dropped=dict(self._dropped),
        )

    def state(self) -> dict[str, object]:
        """Positions and counters together, so that what is counted and what is read never disagree."""
        return {
            "counters": self._counters.state(),
            "sources": {source.name: source.state() for source in self._sources},
            "dropped": dict(self._dropped),
        }

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from a saved state; what cannot be used of it starts anew."""
        counters, sources, dropped = state.get("counters"), state.get("sources"), state.get("dropped")
        if not isinstance(counters, Mapping) or not isinstance(sources, Mapping):
            return False
        if not self._counters.restore(counters):
            return False
        used = True
        for source in self._sources:
            saved = sources.get(source.name)
            if saved is not None:
                used = isinstance(saved, Mapping) and source.restore(saved) and used
        if isinstance(dropped, Mapping):
            for reason, count in islice(dropped.items(), len(DROP_REASONS)):
                if reason in self._dropped and isinstance(count, int | float) and count >= 0:
                    self._dropped[reason] = float(count)
        return used

    def close(self) -> None:
        """Close every source."""
        for source in self._sources:
            source.close()


def _counted(stream: Stream) -> Counted:
    return Counted(stream.lines, stream.bytes, stream.errors, stream.warnings)
