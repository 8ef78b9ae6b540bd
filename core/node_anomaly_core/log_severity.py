"""How severe a log line is, told from its text: whole blocks of lines at once.

What a line says of itself comes first, in this order:

1. a structured level: syslog's `<PRI>` and klog's `E0102 15:04:05` at the start, `"level":"error"` in JSON
   (pino's and bunyan's numbers too), `level=error` in logfmt;
2. the first level word: in capitals (`ERROR`, `WARN`, `FATAL`, ...), else in brackets (`[error]`,
   `[core:warn]`) or before a colon at the start of the message (`sshd[1]: error: `).

A line that says nothing is judged by what it tells of: `error`, `exception`, `fatal`, `panic`, `segfault`,
`traceback` or `out of memory` make it an error; `warning`, `failed`, `failure`, `timed out`, `refused` or
`denied` a warning, unless they are denied (`no error`, `0 errors`, `errors=0`). Anything else is UNKNOWN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

UNKNOWN = 255
"""A line from which no severity can be told; severities are syslog's, 0 (emergency) to 7 (debug)."""

ERROR, WARNING = 3, 4
"""Up to ERROR counts as an error, WARNING alone as a warning."""

_WORDS = {
    0: "emerg emergency panic",
    1: "alert",
    2: "crit critical fatal dpanic",
    3: "error err severe failure",
    4: "warn warning",
    5: "notice",
    6: "info information informational",
    7: "debug trace verbose fine finer finest",
}
_LEVEL = {word.encode(): level for level, words in _WORDS.items() for word in words.split()}
_SHOUTED = {word.upper(): level for word, level in _LEVEL.items()}
_KLOG = {b"I": 6, b"W": WARNING, b"E": ERROR, b"F": 2}
_PINO = {b"10": 7, b"20": 7, b"30": 6, b"40": WARNING, b"50": ERROR, b"60": 2}
_SINGLE = {b"e": ERROR, b"w": WARNING, b"i": 6, b"d": 7, b"f": 2}
_HEAD = re.compile(rb"\n<(\d{1,3})>|\n([IWEF])\d{4} \d\d:\d\d")
_FIELD = re.compile(
    rb"(?:\"(?:[a-z@_.]{0,8}level|lvl|severity|PRIORITY)\"\s?:\s?|[ \n{](?:level|lvl|severity|loglevel)=)"
    rb"\"?([A-Za-z0-9]+)"
)
_FIELD_HINTS = (b'level"', b'lvl"', b'severity"', b'PRIORITY"', b"level=", b"lvl=", b"severity=")
_BOX = re.compile(rb"\[(?:[a-z_0-9]{1,32}:)?$")
_TELLING = (
    (WARNING, (b"warning", b"failed", b"failure", b"timed out", b"refused", b"denied")),
    (ERROR, (b"error", b"exception", b"fatal", b"panic", b"segfault", b"traceback", b"out of memory")),
)
_DENIED_BEFORE = re.compile(rb"(?:\b(?:no|without|0) |[a-z0-9_]=)$")
_DENIED_AFTER = re.compile(rb"s?[\"']?\s?[=:]\s?(?:0\b|none\b|null\b|false\b|\"\")")

_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
"""A colour on a terminal: its last letter would stand before a level word as if it were part of it."""

_IN_WORD = np.zeros(256, dtype=bool)
_IN_WORD[list(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")] = True


def line_severities(data: bytes, known: bytes | None = None) -> NDArray[np.uint8]:
    """The severity of each line of a block.

    Args:
        data: lines with a newline between them; one at the end ends the last.
        known: one byte a line, what the record said; where it is UNKNOWN, and if None, the text tells.

    Returns:
        (lines,) severities 0 to 7, UNKNOWN where nothing told.
    """
    if known is not None:
        known = known[: data.count(b"\n") + (not data.endswith(b"\n"))]
        if UNKNOWN not in known:
            return np.frombuffer(known, dtype=np.uint8)
    if b"\x1b[" in data:
        data = _COLOUR.sub(b"", data)
    # A leading newline makes the first line like all others; then line i lies between the newlines i and i+1.
    block = b"\n" + data + (b"" if data.endswith(b"\n") else b"\n")
    starts = np.flatnonzero(np.frombuffer(block, dtype=np.uint8) == 10)
    if not data:
        return np.empty(0, dtype=np.uint8)
    found = np.full(len(starts) - 1, UNKNOWN, dtype=np.uint8)
    _say(block, starts, found)
    if (found == UNKNOWN).any():
        _tell(block, starts, found)
    if known is not None:
        given = np.frombuffer(known, dtype=np.uint8)[: len(found)]
        found[: len(given)] = np.where(given == UNKNOWN, found[: len(given)], given)
    return found


def count_severities(severities: NDArray[np.uint8]) -> tuple[int, int]:
    """How many of the lines are errors, and how many are warnings."""
    return int((severities <= ERROR).sum()), int((severities == WARNING).sum())


def _say(block: bytes, starts: NDArray[np.intp], found: NDArray[np.uint8]) -> None:
    """What the lines say of themselves: the first structured level, else the first level word.

    One plain search for each word runs at memory speed; one regular expression took ten times as long.
    """
    shouted = [(_places(block, word), level, len(word)) for word, level in _SHOUTED.items()]
    raw = np.frombuffer(block, dtype=np.uint8)

    def alone(places: NDArray[np.intp], size: int) -> NDArray[np.bool_]:
        return ~(_IN_WORD[raw[places - 1]] | _IN_WORD[raw[places + size]])

    at, levels = _joined(shouted, alone)
    _write(at, levels, starts, found)
    heads: list[int] = []
    told: list[int] = []
    if _HEAD.search(block):
        for match in _HEAD.finditer(block):
            if match[2] or int(match[1]) < 192:
                heads.append(match.start() + 1)
                told.append(_KLOG[match[2]] if match[2] else int(match[1]) % 8)
    if any(hint in block for hint in _FIELD_HINTS):
        for match in _FIELD.finditer(block):
            level = _field(match[1])
            if level is not None:
                heads.append(match.start(1))
                told.append(level)
    _write(np.array(heads, dtype=np.intp), np.array(told, dtype=np.uint8), starts, found)


def _joined(
    found: Iterable[tuple[list[int], int, int]],
    holds: Callable[[NDArray[np.intp], int], NDArray[np.bool_]],
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """The places of all words that hold, and the level of each."""
    all_places, all_levels = [np.empty(0, dtype=np.intp)], [np.empty(0, dtype=np.uint8)]
    for places, level, size in found:
        if places:
            kept = np.array(places, dtype=np.intp)
            kept = kept[holds(kept, size)]
            all_places.append(kept)
            all_levels.append(np.full(len(kept), level, dtype=np.uint8))
    return np.concatenate(all_places), np.concatenate(all_levels)


def _places(text: bytes, word: bytes) -> list[int]:
    places = []
    at = text.find(word)
    while at >= 0:
        places.append(at)
        at = text.find(word, at + len(word))
    return places


def _write(
    at: NDArray[np.intp], levels: NDArray[np.uint8], starts: NDArray[np.intp], found: NDArray[np.uint8]
) -> None:
    """Give each line that has a level at one of these places the first of them."""
    backwards = np.argsort(-at, kind="stable")
    found[np.searchsorted(starts, at[backwards], side="right") - 1] = levels[backwards]


def _field(text: bytes) -> int | None:
    """The severity that a level field's value stands for, None if it is no level."""
    lowered = text.lower()
    level = _LEVEL.get(lowered, _SINGLE.get(lowered))
    if level is None and text.isdigit():
        level = int(text) if len(text) == 1 and text < b"8" else _PINO.get(text)
    return level


def _tell(block: bytes, starts: NDArray[np.intp], found: NDArray[np.uint8]) -> None:
    """What the lines tell of, for those that say nothing in capitals; the worst word of a line counts."""
    silent = np.flatnonzero(found == UNKNOWN)
    bounds = zip(starts[silent].tolist(), starts[silent + 1].tolist(), strict=True)
    text = b"".join([block[start:end] for start, end in bounds]).lower() + b"\n"
    begins = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 10)
    told = np.full(len(silent), UNKNOWN, dtype=np.uint8)
    for level, words in _TELLING:
        hits = [at for word in words for at in _places(text, word) if not _denied(text, at, at + len(word))]
        if hits:
            told[np.searchsorted(begins, np.array(hits), side="right") - 1] = level
    spoken = [(_spoken(text, word), level, len(word)) for word, level in _LEVEL.items()]
    at, levels = _joined(spoken, lambda places, _size: np.ones(len(places), dtype=bool))
    _write(at, levels, begins, told)
    found[silent] = told


def _denied(text: bytes, first: int, last: int) -> bool:
    before = text[max(first - 12, 0) : first]
    return bool(_DENIED_BEFORE.search(before) or _DENIED_AFTER.match(text, last, last + 12))


def _spoken(text: bytes, word: bytes) -> list[int]:
    """Where a level stands in brackets, or before a colon at the start of the line or of the message."""
    boxed = [at for at in _places(text, word + b"]") if _BOX.search(text, max(at - 34, 0), at)]
    before_colon = [
        at for at in _places(text, word + b": ") if text[at - 1] == 10 or text[at - 2 : at] == b": "
    ]
    return boxed + before_colon
