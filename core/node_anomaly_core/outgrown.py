"""Whether an alarm has ended because the threshold rose over it, and not because what was seen went away.

A threshold that follows drift follows an incident of many hours, too: the score falls below 1 while all is as
it was. That is no alarm, or every new normal would be one for days; but neither is it recovery, and a node
says so for as long as it lasts. Nothing here changes a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CALM_S = 600.0
"""What stays below the level that the alarm began at for this long has returned (ADR 0038)."""

CLOSED = (math.inf, -math.inf, 0.0, 0.0, 0.0, 0.0)
"""What `state` holds where no alarm is open."""


class Outgrown:
    """Follows one alarm from the level it began at, in blocks of ticks; the threshold's loop alone.

    Args:
        block_s: seconds of a block.
        most_blocks: so many after the last alarm that counts in full, what it showed is all that the node's
            window holds, and usual. Others do not begin the count anew: where a budget allows one in less
            time than that, it would have no end.
    """

    def __init__(self, block_s: float, most_blocks: int) -> None:
        self._calm = max(1, round(CALM_S / block_s))
        self._most = most_blocks
        self._crossed = math.inf  # the level in force when the alarm began; infinite where none is open
        self._highest = -math.inf  # of the block that is not ended
        self._below = 0  # blocks in a row below that level
        self._since = 0  # blocks without an alarm since the last one that counts in full
        self._long = False  # so long that it counts in full and raised the threshold over itself
        self._stays = False  # a block has been outgrown: a lower tick within the next ones is no recovery
        self.now = False
        """Whether the threshold has outgrown an alarm that has not gone away."""

    def step(self, evidence: float, *, alarm: bool) -> None:
        """Take in a tick: all of its evidence with peaks held, NaN = unknown, and whether it is an alarm."""
        self._highest = max(self._highest, evidence)
        self.now = not alarm and (self._stays or (self._long and evidence >= self._crossed))

    def end_block(self, judged: float, next_level: float, *, alarm: bool, counts: bool = False) -> None:
        """The block is over: the level it was judged by, the one from now on, and whether it was an alarm.

        `counts`: one that has lasted for so long that it counts in full.
        """
        highest, self._highest = self._highest, -math.inf
        if alarm:
            if self._crossed == math.inf:
                self._crossed = judged
            self._below = 0
            if counts:
                self._since = 0
            self._long |= counts and next_level > self._crossed
        elif self._crossed < math.inf:
            self._go_on(highest)
        if highest >= next_level:
            self._stays = False
        elif self._long and self._crossed <= highest:
            self._stays = True

    def _go_on(self, highest: float) -> None:
        self._since += 1
        if highest >= self._crossed:
            self._below = 0
        elif highest > -math.inf:  # a block of which nothing is known says nothing
            self._below += 1
        if self._below >= self._calm or self._since >= self._most:
            self._close()

    def _close(self) -> None:
        self._crossed, self._below, self._since = math.inf, 0, 0
        self._long = self._stays = False

    def state(self) -> list[float]:
        """Level, highest of this block, blocks below the level and since, whether long, and whether so."""
        flags = [float(self._long), float(self._stays)]
        return [self._crossed, self._highest, float(self._below), float(self._since), *flags]

    def restore(self, state: Sequence[float]) -> None:
        """Take over what `state` told; raises ValueError for numbers that it never tells."""
        crossed, highest, below, since, *flags = state
        counts = 0 <= below <= self._calm and 0 <= since <= self._most
        if not (crossed > 0 and highest < math.inf and counts and set(flags) <= {0.0, 1.0}):
            raise ValueError(
                f"a saved alarm began at a level of {crossed}, {below} of {since} blocks below it"
            )
        self._crossed, self._highest = crossed, highest
        self._below, self._since = int(below), int(since)
        self._long, self._stays = (bool(flag) and crossed < math.inf for flag in flags)

    def adopt(self, other: Outgrown, change: float) -> None:
        """Go on from another bundle's, whose levels are `change` times as high here."""
        self._crossed = other._crossed * change
        self._below, self._since = min(other._below, self._calm), min(other._since, self._most)
        self._highest = other._highest * change
        self._long, self._stays = other._long, other._stays
