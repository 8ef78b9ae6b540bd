"""Logs of containers as a kubelet or a container runtime leaves them on the node.

`/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log` names all of them; where it is missing,
`/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` links to the same files. Which output a line went to is
no severity: many programs log everything to stderr.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from node_anomaly_agent.logs.cri import CriFormat
from node_anomaly_agent.logs.discovery import GroupOf, Pattern
from node_anomaly_agent.logs.docker_json import DockerFormat
from node_anomaly_agent.logs.files import FileSource
from node_anomaly_agent.logs.follow import Limits
from node_anomaly_agent.logs.lines import NEWLINE, LineFormat
from node_anomaly_agent.logs.pieces import Pieces, Shelf
from node_anomaly_agent.logs.reading import MAX_BACKLOG_BYTES
from node_anomaly_agent.logs.source import Batch, Budget, SourceStatus

NAME = "containers"


class ContainerFormat:
    """CRI or docker's JSON, told by the first whole line that is read."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._format: LineFormat | None = None

    def decode(self, raw: bytes, lines: int) -> tuple[int, bytes]:
        """The messages that end in these lines."""
        return self._of(raw).decode(raw, lines)

    def count(self, raw: bytes, lines: int) -> int:
        """How many messages end in these lines."""
        return self._of(raw).count(raw, lines)

    def reset(self) -> None:
        """Forget unfinished messages, and look at the format anew."""
        if self._format is not None:
            self._format.reset()
        self._format = None

    def _of(self, raw: bytes) -> LineFormat:
        if self._format is None:
            pieces = Pieces(self._shelf)
            last = raw.rfind(NEWLINE, 0, -1) + 1  # the first may have lost its beginning
            self._format = DockerFormat(pieces) if raw.startswith(b"{", last) else CriFormat(pieces)
        return self._format


class ContainerSource:
    """Lines that containers wrote, through kubelet's rotation and the coming and going of pods.

    Args:
        log_root: where the host's /var/log is.
        groups: globs over `NAMESPACE_POD_UID` (such as `kube-system_*`) and their group, the first one wins;
            pods that none of them names have no group.
        excluded: globs over whole paths of what to leave out.
        limits: how many files, and how often to look for new pods.
        max_backlog: bytes a file of what was written while the agent was not there that are still counted.
        group_of: a path's group, in place of `groups`; None leaves it out.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        log_root: str,
        groups: Sequence[tuple[str, str]] = (),
        excluded: Sequence[str] = (),
        limits: Limits | None = None,
        max_backlog: int = MAX_BACKLOG_BYTES,
        group_of: GroupOf | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        named = [Pattern(f"{log_root}/pods/{glob}/*/*.log", group) for glob, group in groups]
        patterns = [*named, Pattern(f"{log_root}/pods/*/*/*.log"), Pattern(f"{log_root}/containers/*.log")]
        shelf = Shelf()
        self._files = FileSource(
            patterns, excluded, limits, max_backlog, NAME, lambda: ContainerFormat(shelf), group_of, clock
        )

    @property
    def name(self) -> str:
        """What metrics call it."""
        return NAME

    @property
    def evictions(self) -> int:
        """Files that were closed because more are not held open."""
        return self._files.follower.evictions

    def read(self, budget: Budget) -> Iterator[Batch]:
        """What was written since the last read."""
        return self._files.read(budget)

    def status(self) -> SourceStatus:
        """Failed if any container's log may not be read, missing where there is none."""
        return self._files.status()

    def state(self) -> dict[str, object]:
        """Positions of all files."""
        return self._files.state()

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from saved positions."""
        return self._files.restore(state)

    def close(self) -> None:
        """Close every file."""
        self._files.close()
