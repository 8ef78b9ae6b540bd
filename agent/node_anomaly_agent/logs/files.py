"""Log files named by globs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from node_anomaly_agent.logs.discovery import Discovery, GroupOf, Pattern
from node_anomaly_agent.logs.follow import Follower, Limits
from node_anomaly_agent.logs.lines import LineFormat, PlainText
from node_anomaly_agent.logs.reading import MAX_BACKLOG_BYTES, read_lines
from node_anomaly_agent.logs.refusal import describe_refusal
from node_anomaly_agent.logs.source import Batch, Budget, SourceStatus

NAME = "files"


class FileSource:
    """Lines of files, through rotation by rename and by copying and truncating, and over restarts.

    Args:
        patterns: what to follow, and each one's group.
        excluded: globs over whole paths of what to leave out.
        limits: how many files, and how often to look for new ones.
        max_backlog: bytes a file of what was written while the agent was not there that are still counted.
        name: of the source.
        make_format: what is wrapped around the lines of a file, made anew for each; by default nothing.
        group_of: a path's group, in place of its pattern's; None leaves it out.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        patterns: Sequence[Pattern],
        excluded: Sequence[str] = (),
        limits: Limits | None = None,
        max_backlog: int = MAX_BACKLOG_BYTES,
        name: str = NAME,
        make_format: Callable[[], LineFormat] = PlainText,
        group_of: GroupOf | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._max_backlog = max_backlog
        self._clock = clock
        globs = ", ".join(pattern.glob for pattern in patterns[:3])
        self._none = SourceStatus(success=False, error=f"no file is named by {globs}", missing=True)
        self.follower = Follower(
            Discovery(patterns, excluded, group_of), make_format, limits or Limits(), clock
        )

    @property
    def name(self) -> str:
        """What metrics call it."""
        return self._name

    def read(self, budget: Budget) -> Iterator[Batch]:
        """What was written since the last read."""
        return read_lines(self.follower, budget, self._max_backlog, self._clock)

    def status(self) -> SourceStatus:
        """Failed if any file that is named may not be read, missing if there is none."""
        streams = len(self.follower.tails)
        refused = self.follower.refused
        if refused:
            path = min(refused)
            others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            return SourceStatus(
                success=False, error=describe_refusal(path, refused[path]) + others, streams=streams
            )
        if self.follower.ignored:
            error = f"{self.follower.ignored} files are too many to follow; name fewer, or exclude some"
            return SourceStatus(success=False, error=error, streams=streams)
        if not streams and not self.follower.parked:
            return self._none
        return SourceStatus(success=True, streams=streams)

    def state(self) -> dict[str, object]:
        """Positions of all files."""
        return self.follower.state()

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from saved positions."""
        return self.follower.restore(state)

    def close(self) -> None:
        """Close every file."""
        self.follower.close()
