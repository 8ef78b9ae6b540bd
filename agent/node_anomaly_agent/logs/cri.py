"""The log format of container runtimes (containerd, CRI-O): `time output tags message`.

https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md: the output is
`stdout` or `stderr`, the first of the tags (separated by colons) is `F` for a line's last or only piece and
`P` for one that goes on. What is not of this form counts as a line as it stands.
"""

from __future__ import annotations

import re

from node_anomaly_agent.logs.lines import NEWLINE, clip_long
from node_anomaly_agent.logs.pieces import Pieces

_TIME = rb"\d{4}-\d\d-\d\dT[0-9:.,]+(?:Z|[+-]\d\d:?\d\d)"
_PREFIX = re.compile(rb"^" + _TIME + rb" std(?:out|err) F(?::[^ \n]*)?(?: |$)", re.MULTILINE)
_PARTIAL = re.compile(rb"^" + _TIME + rb" std(?:out|err) P(?=[: \n])", re.MULTILINE)
_RECORD = re.compile(_TIME + rb" std(out|err) ([PF])(?::[^ ]*)?(?: (.*))?", re.DOTALL)


class CriFormat:
    """Lines of one container's log."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def decode(self, raw: bytes, lines: int) -> tuple[int, bytes]:
        """The messages that end in these lines."""
        if not self._pieces.unfinished and not _goes_on(raw):
            return lines, clip_long(_PREFIX.sub(b"", raw))
        messages = []
        for line in raw.split(NEWLINE)[:-1]:
            record = _RECORD.fullmatch(line)
            if record is None:
                messages.append(clip_long(line + NEWLINE))
                continue
            output, tag, message = record.groups(b"")
            if tag == b"P":
                self._pieces.add(output, message)
            else:
                messages.append(self._pieces.finish(output, message) + NEWLINE)
        return len(messages), b"".join(messages)

    def count(self, raw: bytes, lines: int) -> int:
        """How many messages end in these lines."""
        self._pieces.reset()
        return lines - len(_PARTIAL.findall(raw)) if _goes_on(raw) else lines

    def reset(self) -> None:
        """Forget unfinished messages."""
        self._pieces.reset()


def _goes_on(raw: bytes) -> bool:
    """Whether there may be a piece that does not end its line: a quick look, which is sometimes mistaken."""
    return b" stdout P" in raw or b" stderr P" in raw
