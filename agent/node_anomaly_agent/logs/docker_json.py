r"""Docker's json-file format: one object a line, `{"log": "message\n", "stream": "stdout", "time": "..."}`.

A message of more than 16 KiB comes in pieces; only the last one's `log` ends with a line end. What is not of
this form counts as a line as it stands.
"""

from __future__ import annotations

import json
import re

from node_anomaly_agent.logs.lines import NEWLINE, clip_long
from node_anomaly_agent.logs.pieces import Pieces

_LINE_END = b'\\n","stream":"'
_ESCAPED = b'\\\\n","stream":"'  # a message that ends with a backslash and an n, and with no line end

_SIMPLE = re.compile(  # as docker writes it, and nothing in the message is escaped: no JSON parser is needed
    rb'^\{"log":"([^"\\\n]*)\\n","stream":"([^"\\\n]*)"(?:,"attrs":\{[^}\n]*\})?,"time":"[^"\\\n]*"\}$',
    re.MULTILINE,
)


class DockerFormat:
    """Lines of one container's log."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def decode(self, raw: bytes, lines: int) -> tuple[int, bytes]:
        """The messages that end in these lines."""
        if not self._pieces.unfinished:
            simple = _SIMPLE.findall(raw)
            if len(simple) == lines:
                return lines, clip_long(b"".join([message + NEWLINE for message, _ in simple]))
        messages = []
        for line in raw.split(NEWLINE)[:-1]:
            match = _SIMPLE.fullmatch(line)
            record = (match[2], match[1] + NEWLINE) if match else _record(line)
            if record is None:
                messages.append(clip_long(line + NEWLINE))
                continue
            output, text = record
            if text.endswith(NEWLINE):
                message = self._pieces.finish(output, text[:-1])
                messages.append(message.replace(NEWLINE, b" ") + NEWLINE)
            else:
                self._pieces.add(output, text)
        return len(messages), b"".join(messages)

    def count(self, raw: bytes, lines: int) -> int:
        """How many messages end in these lines."""
        self._pieces.reset()
        if raw.count(_LINE_END) == lines and _ESCAPED not in raw:
            return lines
        records = (_record(line) for line in raw.split(NEWLINE)[:-1])
        return sum(record is None or record[1].endswith(NEWLINE) for record in records)

    def reset(self) -> None:
        """Forget unfinished messages."""
        self._pieces.reset()


def _record(line: bytes) -> tuple[bytes, bytes] | None:
    """Output and message of one line of the file, or None if it is of another form."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    text, output = record.get("log"), record.get("stream", "")
    if not isinstance(text, str) or not isinstance(output, str):
        return None
    return output.encode("utf-8", "surrogatepass"), text.encode("utf-8", "surrogatepass")
