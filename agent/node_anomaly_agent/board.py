"""Where the last snapshot hangs: read from any thread, replaced by the loop alone, each time as a whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from node_anomaly_agent.snapshot import Snapshot


class Board:
    """Holds the published snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def update(self, **changes: Any) -> None:
        """Publish it with these fields changed, by one assignment."""
        self.snapshot = replace(self.snapshot, **changes)

    def show(self, part: str, status: object) -> None:
        """Publish one part's status, if it is another object than the one that is shown."""
        if getattr(self.snapshot, part) is not status:
            self.update(**{part: status})

    def count(self, name: str, label: str | None = None, amount: int = 1) -> None:
        """Publish it with `amount` more of one counter (see Counters.add)."""
        self.update(counters=self.snapshot.counters.add(name, label, amount))
