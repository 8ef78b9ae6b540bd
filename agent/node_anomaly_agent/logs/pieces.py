"""Long lines that a container runtime wrote in pieces, put together again."""

from __future__ import annotations

from node_anomaly_agent.logs.source import MAX_LINE_BYTES

MAX_HELD_BYTES = 1 << 20


class Shelf:
    """How much all unfinished lines may hold together; beyond it only the end of a line is looked at."""

    def __init__(self, limit: int = MAX_HELD_BYTES) -> None:
        self.limit = limit
        self.held = 0


class Pieces:
    """The unfinished lines of one container, one for each of its outputs.

    A line counts when its last piece is read, so that a count needs nothing from before. What the earlier
    pieces said is kept until then, up to what is looked at of any line; it is not saved over a restart.
    """

    __slots__ = ("_begun", "_shelf")

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._begun: dict[bytes, bytearray] = {}

    def add(self, output: bytes, piece: bytes) -> None:
        """One more piece of an output's line, which does not end yet."""
        begun = self._begun.get(output)
        if begun is None:
            begun = self._begun[output] = bytearray()
        room = min(MAX_LINE_BYTES - len(begun), self._shelf.limit - self._shelf.held)
        kept = piece[: max(0, room)]
        begun += kept
        self._shelf.held += len(kept)

    def finish(self, output: bytes, piece: bytes) -> bytes:
        """The line that ends with this piece, as much of it as is looked at."""
        begun = self._begun.pop(output, None)
        if begun is None:
            return piece[:MAX_LINE_BYTES]
        self._shelf.held -= len(begun)
        return bytes(begun + piece[: MAX_LINE_BYTES - len(begun)])

    def reset(self) -> None:
        """Forget unfinished lines."""
        for begun in self._begun.values():
            self._shelf.held -= len(begun)
        self._begun.clear()

    @property
    def unfinished(self) -> bool:
        """Whether some output's line has begun."""
        return bool(self._begun)
