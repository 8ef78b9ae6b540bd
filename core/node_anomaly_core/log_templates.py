"""Patterns of log lines, mined as Drain does, in bounded memory and without keeping a word of any line.

A line becomes tokens; one with a digit in it, and the value of `key=value`, is a wildcard. Lines of equally
many tokens, with the same first word in the same position, are compared position by position: a line joins
the template that has at least half of its words, and where they differ the template gets a wildcard (He et
al., "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017, with a tree of depth two).

What is kept of a token is a 32-bit hash, so neither memory nor the state file holds what was logged. Most
lines differ from an earlier one only in their digits and are recognised without being taken apart. See
docs/adr/0017 for the comparison with drain3.
"""

from __future__ import annotations

import base64
import binascii
import re
from array import array
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain, compress, islice
from operator import eq
from zlib import crc32

MAX_TEMPLATES = 1000
"""Templates kept; the one not seen for longest makes room."""

MAX_TOKENS = 32
"""Tokens of a line that are looked at."""

MAX_TOKEN_BYTES = 48
"""A longer token is data, not a word."""

SIMILARITY = 0.5
"""Share of equal positions from which a line belongs to a template."""

MAX_KNOWN = 8192
"""Texts recognised without being taken apart; all forgotten when full."""

MAX_RIVALS = 256
"""Templates of one length and first word that a line is compared with."""

_ANY = 0
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_ZEROS = re.compile(rb"00+")
_BREAKS = bytes.maketrans(b"\t\"',{}[]()<>|;", b" " * 14)
_SYSLOG_HEAD = re.compile(rb"(?:<0>)?[A-Z][a-z]{2} +0 0:0:0 \S+ ")

Tokens = tuple[int, ...]
Place = tuple[int, int, int]
"""(tokens, position of the first that is no wildcard, its hash)."""


class TemplateMiner:
    """Counts the patterns it has seen.

    Attributes:
        created: templates found so far, ever; those forgotten since included.
    """

    def __init__(self, max_templates: int = MAX_TEMPLATES) -> None:
        self._max = max_templates
        self._clear()

    def _clear(self) -> None:
        self.created = 0
        self._templates: OrderedDict[int, Tokens] = OrderedDict()  # by number, least recently seen first
        self._places: dict[Place, list[int]] = {}
        self._known: dict[int, int] = {}  # hash of a text without its digits -> number
        self._next = 0

    def __len__(self) -> int:
        return len(self._templates)

    def mine(self, data: bytes, examples: int = 0) -> list[bytes]:
        """Take in lines, each ended by a newline; gives up to `examples` of those that were new patterns."""
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        plain = _ZEROS.sub(b"0", data.translate(_DIGITS_AS_ZERO)).split(b"\n")
        known, templates = self._known, self._templates
        new: list[bytes] = []
        for text in dict.fromkeys(plain[: len(lines)]):
            number = known.get(hash(text))
            if number is not None and number in templates:
                templates.move_to_end(number)
                continue
            tokens = _tokens(text)
            if not tokens:
                continue
            before = self.created
            number = self._find(tokens)
            if len(known) >= MAX_KNOWN:
                known.clear()
            known[hash(text)] = number
            if self.created > before and len(new) < examples:
                new.append(lines[plain.index(text)])
        return new

    def _find(self, tokens: Tokens) -> int:
        """The number of the template these tokens belong to, a new one if they belong to none."""
        place = _place(tokens)
        words = list(filter(None, tokens))
        best, best_equal = -1, SIMILARITY * len(words)
        for number in self._places.get(place, ()):
            equal = sum(map(eq, compress(self._templates[number], tokens), words))
            if equal >= best_equal:
                best, best_equal = number, equal + 0.5
        if best < 0:
            return self._create(tokens)
        template = self._templates[best]
        if template != tokens:
            self._templates[best] = tuple(
                a if a == b else _ANY for a, b in zip(template, tokens, strict=True)
            )
        self._templates.move_to_end(best)
        return best

    def _create(self, tokens: Tokens) -> int:
        self._put(tokens)
        self.created += 1
        return self._next - 1

    def _put(self, tokens: Tokens) -> None:
        rivals = self._places.setdefault(_place(tokens), [])
        if len(rivals) >= MAX_RIVALS:
            self._forget(rivals[0])
        elif len(self._templates) >= self._max:
            self._forget(next(iter(self._templates)))
        rivals = self._places.setdefault(_place(tokens), [])
        rivals.append(self._next)
        self._templates[self._next] = tokens
        self._next += 1

    def _forget(self, number: int) -> None:
        tokens = self._templates.pop(number)
        place = _place(tokens)
        rivals = self._places[place]
        rivals.remove(number)
        if not rivals:
            del self._places[place]

    def state(self) -> dict[str, object]:
        """The templates as plain JSON values: hashes of their tokens, least recently seen first."""
        flat = array("I", chain.from_iterable((len(tokens), *tokens) for tokens in self._templates.values()))
        return {"created": self.created, "tokens": base64.b64encode(flat.tobytes()).decode()}

    def restore(self, state: Mapping[str, object]) -> bool:
        """Go on from a saved state; False, and nothing changes, if it is none."""
        created, text = state.get("created"), state.get("tokens")
        if (
            not isinstance(created, int)
            or isinstance(created, bool)
            or created < 0
            or not isinstance(text, str)
        ):
            return False
        flat = array("I")
        try:
            flat.frombytes(base64.b64decode(text, validate=True))
        except (ValueError, binascii.Error):
            return False
        found: list[Tokens] = []
        numbers = iter(flat)
        for length in numbers:
            tokens = tuple(islice(numbers, min(length, MAX_TOKENS)))
            if not 0 < length <= MAX_TOKENS or len(tokens) != length:
                return False
            found.append(tokens)
        self._clear()
        for tokens in found[-self._max :]:
            self._put(tokens)
        self.created = created
        return True


def _place(tokens: Tokens) -> Place:
    """Where to look for rivals. All templates of a place have its word there, so merging never moves one."""
    for at, token in enumerate(tokens):
        if token != _ANY:
            return len(tokens), at, token
    return len(tokens), -1, _ANY


def _tokens(text: bytes) -> Tokens:
    """Hashes of the words of a line whose digits are all 0, _ANY for what varies; () for an empty line."""
    head = _SYSLOG_HEAD.match(text)
    words = text[head.end() if head else 0 :][: 64 * MAX_TOKENS].translate(_BREAKS).split(None, MAX_TOKENS)
    tokens = []
    for word in words[:MAX_TOKENS]:
        key, equals, _ = word.partition(b"=")
        if b"0" in key or len(key) > MAX_TOKEN_BYTES:
            tokens.append(_ANY)
        else:
            tokens.append(crc32(key + equals) or 1)
    return tuple(tokens)
